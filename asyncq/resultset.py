"""Many handles as one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncq import config
from asyncq.context import check_join
from asyncq.portal import carried, synced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from asyncq.app import AsyncQ
    from asyncq.results import AsyncResult

R = TypeVar("R")


class ResultSet(Generic[R]):
    """The handles of several jobs, in order.

    Example:
        ```python
        results = await add.map([(1, 2), (3, 4)])
        print(len(results), await results.get(timeout=10))  # 2 [3, 7]
        ```
    """

    def __init__(self, results: Iterable[AsyncResult[R]], app: AsyncQ | None = None) -> None:
        self.results = list(results)
        self._app = app

    @property
    def app(self) -> AsyncQ:
        """The app that the handles belong to."""
        if self._app is None:
            from asyncq.app import the_only_app

            self._app = self.results[0].app if self.results else the_only_app()
        return self._app

    @property
    def _carrier(self) -> AsyncQ:
        return self.app

    @carried
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R]:
        """Waits for all jobs and returns their values in order.

        Args:
            timeout: seconds for all of them together; None waits for ever.
            propagate: False puts exceptions into the list instead of raising the first.
            callback: called as `callback(id, value)` for each, in order.
            disable_sync_subtasks: False allows this wait inside a task.

        Raises:
            ResultTimeout: not all ended in time. The jobs go on; a second call waits again.
            Exception: what the first of them (in order) raises from its `get`.
        """
        check_join("ResultSet.get()", disable_sync_subtasks=disable_sync_subtasks)
        end = None if timeout is None else time.monotonic() + config.seconds(timeout)
        values = []
        for result in self.results:
            left = None if end is None else max(0.0, end - time.monotonic())
            values.append(
                await result.get(
                    left, propagate=propagate, callback=callback, disable_sync_subtasks=disable_sync_subtasks
                )
            )
        return values

    get_sync = synced(get)
    join = get
    join_sync = get_sync

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AsyncResult[R]:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return self.results == other.results if isinstance(other, ResultSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list of handles, and as mutable

    def __repr__(self) -> str:
        ids = [result.id for result in self.results[:3]] + ["..."] * (len(self) > 3)
        return f"<ResultSet of {len(self)}: {', '.join(ids)}>"
