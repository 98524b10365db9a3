"""Many handles under one id, which can be saved and found again in any process.

`GroupResult` is the handle of a group; `GroupResults` is `app.GroupResult`, which makes and finds them. What
talks to the server runs on the loop of the session that serves the call.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import TypeVar

from asyncq.client.sessions import the_only_app
from asyncq.errors import DecodeError
from asyncq.results import handle_serialization
from asyncq.results.resultset import ResultSet
from asyncq.short_repr import brief
from asyncq.sync_bridge import blocking, on_app_loop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq.client.application import App
    from asyncq.results.handle import AsyncResult
    from asyncq.sync_bridge import LoopOwner

R = TypeVar("R")
H_co = TypeVar("H_co", default="AsyncResult[R]", covariant=True)


class GroupResult(ResultSet[R, H_co]):
    """Holds the handles of a group: a `ResultSet` with an id. Its members may be groups, too; the values nest
    in the same way.

    Args:
        id: of the group; by default a new one.
        results: handles and groups.
        parent: what the group came after, if anything.
        app: the app; by default that of the first handle.

    Attributes:
        id: the id of the group.
        parent: what the group came after, if anything.

    Raises:
        ValueError: `id` is no text, or an empty one.

    Example:
        ```python
        group = GroupResult(results=[await add.delay(1, 2), await add.delay(3, 4)])
        await group.save()
        ...
        group = await app.GroupResult.restore(id)
        print(await group.get(timeout=10))  # [3, 7]
        ```
    """

    @overload
    def __init__(
        self,
        id: str | None = None,
        results: Iterable[AsyncResult[R]] = (),
        parent: AsyncResult[Any] | GroupResult[Any, Any] | None = None,
        app: App | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: GroupResult[Any, Any],
        id: str | None = None,
        results: Iterable[AsyncResult[Any] | GroupResult[Any, Any]] = (),
        parent: AsyncResult[Any] | GroupResult[Any, Any] | None = None,
        app: App | None = None,
    ) -> None: ...

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] = (),
        parent: AsyncResult[Any] | GroupResult[Any, Any] | None = None,
        app: App | None = None,
    ) -> None:
        if id is not None and (not isinstance(id, str) or not id):
            raise ValueError(f"GroupResult needs a text as its id, or None for a new one, not {brief(id)}")
        super().__init__(results, app)
        self.id: str = id or os.urandom(12).hex()
        self.parent: AsyncResult[Any] | GroupResult[Any, Any] | None = parent

    @property
    def children(self) -> list[H_co]:
        """The members, by Celery's other name."""
        return self.results

    async def save(self) -> None:
        """Saves the ids of its members under its own id, for `result_ttl` seconds from now. A second call
        saves them again.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
            QueueFull: the server is out of memory.
        """
        await GroupResults(self.app).save(self)

    def save_sync(self) -> None:
        """Blocking twin of `save`, for code that is not async."""
        GroupResults(self.app).save_sync(self)

    async def delete(self) -> None:
        """Removes what `save` saved. The jobs and their results stay. A second call changes nothing.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
            QueueFull: the server is out of memory.
        """
        await GroupResults(self.app).delete(self.id)

    def delete_sync(self) -> None:
        """Blocking twin of `delete`, for code that is not async."""
        GroupResults(self.app).delete_sync(self.id)

    @classmethod
    async def restore(cls, id: str, app: App | None = None) -> GroupResult[Any] | None:
        """Returns the group that was saved under an id; None if there is none (any more).

        Args:
            id: of the group.
            app: the app; by default the only one of this process.

        Raises:
            RuntimeError: no app was given, and there is not exactly one.
            DecodeError: what is saved there is not a group.
            BrokerUnavailable: no answer within the operation timeout.

        Example:
            ```python
            group = await GroupResult.restore(id)
            if group is not None:
                print(await group.completed_count(), "of", len(group))
            ```
        """
        return await GroupResults(app or the_only_app()).restore(id)

    @classmethod
    def restore_sync(cls, id: str, app: App | None = None) -> GroupResult[Any] | None:
        """Blocking twin of `restore`, for code that is not async."""
        return GroupResults(app or the_only_app()).restore_sync(id)

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """Returns all ids as Celery writes them: `((id, parent's tuple or None), [members' tuples])`."""
        described: tuple[tuple[str, Any], list[Any]] = handle_serialization.as_tuple(self)
        return described

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupResult):
            return self.id == other if isinstance(other, str) else NotImplemented
        mine: Any = self
        its: Any = other
        while isinstance(mine, GroupResult) and isinstance(its, GroupResult):
            if (mine.id, mine.results) != (its.id, its.results):
                return False
            mine, its = mine.parent, its.parent
        return bool(mine == its)

    def __hash__(self) -> int:  # unlike a mere set, a group is known by its id
        return hash(self.id)

    def __bool__(self) -> bool:
        return True  # a group without members is a group: `if await GroupResult.restore(id)`

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<GroupResult {self.id} of {len(self)}>"

    def __reduce__(self) -> Any:
        # A group is its ids. The process that unpickles it finds its own app.
        return handle_serialization.from_rows, (handle_serialization.of_handle(self),)


class GroupResults:
    """Makes groups of an app, and finds saved ones: `app.GroupResult`.

    Example:
        ```python
        group = app.GroupResult(results=await add.map([(1, 2), (3, 4)]))
        await group.save()
        same = await app.GroupResult.restore(group.id)
        ```
    """

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def _loop_owner(self) -> LoopOwner:
        return self._app.sessions

    def __call__(
        self,
        id: str | None = None,
        results: Iterable[AsyncResult[R]] = (),
        parent: AsyncResult[Any] | GroupResult[Any, Any] | None = None,
    ) -> GroupResult[R]:
        """Makes a group of this app."""
        return GroupResult(id, results, parent, self._app)

    @on_app_loop
    async def save(self, group: GroupResult[Any, Any]) -> None:
        """Saves a group, see `GroupResult.save`."""
        description = json.dumps(handle_serialization.of_handle(group), separators=(",", ":")).encode()
        await self._app.sessions.current().broker.save_group(group.id, description)

    @blocking(save)
    def save_sync(self) -> None:
        """Blocking twin of `save`."""

    @on_app_loop
    async def delete(self, id: str) -> None:
        """Removes what was saved under a group's id, see `GroupResult.delete`."""
        await self._app.sessions.current().broker.delete_group(id)

    @blocking(delete)
    def delete_sync(self) -> None:
        """Blocking twin of `delete`."""

    @on_app_loop
    async def restore(self, id: str) -> GroupResult[Any] | None:
        """Returns the group that was saved under an id; None if there is none (any more).

        Raises:
            DecodeError: what is saved there is not a group.
            BrokerUnavailable: no answer within the operation timeout.
        """
        description = await self._app.sessions.current().broker.restore_group(id)
        if description is None:
            return None
        try:
            group = handle_serialization.from_rows(json.loads(description), self._app)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise DecodeError(f"the value saved under the id {brief(id)} is not a group: {error}") from error
        if not isinstance(group, GroupResult):
            raise DecodeError(f"the value saved under the id {brief(id)} is one job, not a group")
        return group

    @blocking(restore)
    def restore_sync(self) -> None:
        """Blocking twin of `restore`."""


def result_from_tuple(data: Any, app: App | None = None) -> Any:
    """Returns the handle or group that `as_tuple` described, with its parents and members.

    Args:
        data: what `as_tuple` gave, also after a way through JSON.
        app: the app; by default the only one of this process.

    Returns:
        An `AsyncResult`, or a `GroupResult` if it was one.

    Raises:
        ValueError: `data` is no such tuple.

    Example:
        ```python
        same = asyncq.result_from_tuple(json.loads(json.dumps(result.as_tuple())))
        ```
    """
    return handle_serialization.from_rows(handle_serialization.of_tuple(data), app)


handle_serialization.register(handle_serialization.GROUP, GroupResult)
