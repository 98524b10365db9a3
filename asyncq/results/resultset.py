"""Many handles as one: wait for all, look at all, end all.

A set is a list of handles that the user may change at any time; each call takes them as they are when it
begins, see `members`. The coroutines may be awaited on any loop, and the blocking twins called on any thread
without a loop.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, overload

from typing_extensions import TypeVar

from asyncq import sync_bridge
from asyncq.client.deadlock import check_join
from asyncq.client.sessions import the_only_app
from asyncq.results.completion import value_or_error
from asyncq.results.handle import AsyncResult
from asyncq.results.members import Members
from asyncq.short_repr import brief
from asyncq.states import EXCEPTION_STATES, READY_STATES, State
from asyncq.sync_bridge import INLINE, blocking, on_app_loop, overloaded, refuse_in_loop, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
    from datetime import timedelta
    from typing import Self

    from asyncq.client.application import App
    from asyncq.sync_bridge import LoopOwner
    from asyncq.wire import Signal

R = TypeVar("R")
H_co = TypeVar("H_co", default="AsyncResult[R]", covariant=True)


class ResultSet(Generic[R, H_co]):  # noqa: PLW1641 - a list of handles, and as mutable
    """Holds the handles of several jobs, in order. `ResultSet[R]` has the type of their values; the type of
    the handles, where it is not `AsyncResult[R]`, is a second parameter.

    All waits and looks go through one connection, 500 handles in each command, and one deadline holds for all
    of them. Each awaited method has a blocking twin with the suffix `_sync`.

    Args:
        results: the handles.
        app: the app; by default that of the first handle.

    Attributes:
        results: the handles, in order.

    Raises:
        TypeError: one of `results` is no handle.

    Example:
        ```python
        results = await add.map([(1, 2), (3, 4)])
        print(len(results), await results.get(timeout=10))  # 2 [3, 7]
        ```
    """

    def __init__(self, results: Iterable[AsyncResult[R]] = (), app: App | None = None) -> None:
        self.results: list[H_co] = cast("list[H_co]", list(results))
        _check(self.results)
        self._app = app

    @property
    def app(self) -> App:
        """The app that the handles belong to.

        Raises:
            RuntimeError: there are no handles, and not exactly one app in this process.
        """
        if self._app is None:
            self._app = next((handle.app for handle in Members(self).deciding()), None) or the_only_app()
        return self._app

    @property
    def _loop_owner(self) -> LoopOwner:
        app = Members(self, self._app).serving_app
        return INLINE if app is None else app.sessions

    # -- waiting --

    def __await__(self) -> Generator[Any, Any, list[R]]:
        """Waits for the values: `await results` is `await results.get()`."""
        return self.get().__await__()

    @overload
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: Literal[True] = True,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R]: ...

    @overload
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R | Exception]: ...

    @overloaded
    @on_app_loop
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R] | list[R | Exception]:
        """Waits for all jobs and returns their values in order.

        The first failure is raised as soon as it is known; the other jobs go on. If several have failed by
        then, it is that of the first in order. A timeout or a cancellation ends this wait only, and it may be
        called any number of times.

        Args:
            timeout: in seconds, for all of them together; None waits for ever, 0 looks once.
            propagate: False waits for all, and puts exceptions into the list instead of raising the first.
                The exceptions of a group inside this one are in that group's own list, which its type does
                not say.
            callback: called as `callback(id, value)` for each, in order, when all have ended.
            disable_sync_subtasks: False allows this wait inside a task.

        Raises:
            ResultTimeout: not all ended in time. The jobs go on; a second call waits again.
            WouldDeadlock: called inside a task, where waits are not allowed.
            Exception: what `get` of the failed one raises.

        Example:
            ```python
            results = await add.map([(1, 2), (3, 4)])
            assert await results.get(timeout=10) == [3, 7]
            ```
        """
        members = Members(self, self._app)
        check_join("ResultSet.get()", members.awaited(), disable_sync_subtasks=disable_sync_subtasks)
        return await members.values(timeout, callback, propagate=propagate)

    @overload
    def get_sync(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: Literal[True] = True,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R]: ...

    @overload
    def get_sync(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R | Exception]: ...

    @overloaded
    @blocking(get)
    def get_sync(self) -> None:
        """Blocking twin of `get`."""

    join = get
    join_sync = get_sync

    def as_completed(self, timeout: float | timedelta | None = None) -> AsyncIterator[H_co]:
        """Gives each handle as its job ends, whatever the end: `async for result in results.as_completed()`.

        The outcome of a handle that it gave is at hand: `await result` returns or raises at once. Of a group
        inside this one, each handle is given by itself.

        Args:
            timeout: in seconds, from the first step to the last; None waits for ever, 0 looks once.

        Raises:
            ResultTimeout: from the loop: the time is over; those that ended in time were given.
            WouldDeadlock: called inside a task, where waits are not allowed.

        Example:
            ```python
            async for result in results.as_completed(timeout=60):
                print(result.id, result.state)
            ```
        """
        members = Members(self, self._app)
        members = Members(self, self._app)
        check_join("ResultSet.as_completed()", members.awaited())
        return members.completed(timeout)

    def as_completed_sync(self, timeout: float | timedelta | None = None) -> Iterator[H_co]:
        """Blocking twin of `as_completed`, for code that is not async: `for result in ...`.

        Raises what `as_completed` raises.
        """
        refuse_in_loop("as_completed_sync()", "async for result in ....as_completed(...)")
        members = Members(self, self._app)
        check_join("ResultSet.as_completed()", members.awaited())
        return members.completed_sync(timeout)

    def then(
        self,
        callback: Callable[[ResultSet[R, H_co]], object],
        on_error: Callable[[ResultSet[R, H_co]], object] | None = None,
    ) -> ResultSet[R, H_co]:
        """Calls `callback(results)` in this thread's loop when all jobs have ended. Returns the set itself.

        If any of them failed or was revoked, `on_error` is called instead, if it is given. A coroutine that a
        callback returns is run. An exception from a callback goes to the loop's exception handler.

        Raises:
            RuntimeError: there is no running event loop to call back in.
        """
        handles: list[AsyncResult[Any]] = list(Members(self).deciding())
        left = len(handles)

        def one_ended(_: object) -> object:
            nonlocal left
            left -= 1
            if left > 0:
                return None
            good = all(handle.state is State.SUCCESS for handle in handles)
            return (callback if good or on_error is None else on_error)(self)

        for handle in handles:
            handle.then(one_ended)
        if not handles:
            soon(one_ended, None)
        return self

    # -- looking --

    @on_app_loop
    async def ready(self) -> bool:
        """Looks once whether all jobs have ended, in whatever way.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        return all(handle.state in READY_STATES for handle in await Members(self, self._app).fetch_states())

    @blocking(ready)
    def ready_sync(self) -> None:
        """Blocking twin of `ready`."""

    @on_app_loop
    async def successful(self) -> bool:
        """Looks once whether all jobs have ended with a value. Raises what `ready` raises."""
        return all(handle.state == State.SUCCESS for handle in await Members(self, self._app).fetch_states())

    @blocking(successful)
    def successful_sync(self) -> None:
        """Blocking twin of `successful`."""

    @on_app_loop
    async def failed(self) -> bool:
        """Looks once whether any of the jobs has ended with an error. Raises what `ready` raises."""
        return any(handle.state == State.FAILURE for handle in await Members(self, self._app).fetch_states())

    @blocking(failed)
    def failed_sync(self) -> None:
        """Blocking twin of `failed`."""

    @on_app_loop
    async def waiting(self) -> bool:
        """Looks once whether any of the jobs has not ended. Raises what `ready` raises."""
        return any(
            handle.state not in READY_STATES for handle in await Members(self, self._app).fetch_states()
        )

    @blocking(waiting)
    def waiting_sync(self) -> None:
        """Blocking twin of `waiting`."""

    @on_app_loop
    async def completed_count(self) -> int:
        """Looks once how many of the jobs have ended with a value. Raises what `ready` raises."""
        members = Members(self, self._app)
        await members.fetch_states()
        return sum(handle.state == State.SUCCESS for handle in members.leaves())

    @blocking(completed_count)
    def completed_count_sync(self) -> None:
        """Blocking twin of `completed_count`."""

    @on_app_loop
    async def maybe_throw(
        self, callback: Callable[[str, Any], object] | None = None, *, propagate: bool = True
    ) -> None:
        """Looks once, and raises what the first in order of those that have failed raised.

        Args:
            callback: called as `callback(id, value)` for each that has ended, in order.
            propagate: False raises nothing, and hands exceptions to the callback.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
            Exception: what the task raised.
        """
        members = Members(self, self._app)
        handles, leaves = await members.fetch_states(), set(members.leaves())
        for handle in handles:
            if handle.state not in READY_STATES:
                continue
            if propagate and handle.state in EXCEPTION_STATES:
                await handle.get(disable_sync_subtasks=False)
            if callback is not None and handle in leaves:
                callback(handle.id, value_or_error(handle))

    @blocking(maybe_throw)
    def maybe_throw_sync(self) -> None:
        """Blocking twin of `maybe_throw`."""

    # -- ending --

    @on_app_loop
    async def revoke(
        self,
        *,
        terminate: bool = False,
        signal: Signal = "SIGTERM",
        wait: bool = False,
        timeout: float | timedelta | None = None,
        reason: str | None = None,
        parents: bool = False,
    ) -> list[State | str]:
        """Revokes all jobs, as `AsyncResult.revoke` does one, and those that they came after. All revocations
        are sent before the call waits for anything.

        Args:
            terminate: also end those that run.
            signal: what those get that run in a process.
            wait: wait until all have ended.
            timeout: of that wait, in seconds, for all of them together.
            reason: a text that `TaskRevoked` shows.
            parents: also end the jobs before each that its handle does not know, see `AsyncResult.revoke`.

        Returns:
            The state of each job after the call, in order.

        Raises:
            ValueError: `signal` is none of `SIGTERM`, `SIGINT` and `SIGKILL`.
            ResultNotFound, ResultTimeout: with `wait`, see `AsyncResult.revoke`; all revocations were sent.
            BrokerUnavailable: no answer within the operation timeout; some may have been revoked.

        Example:
            ```python
            await results.revoke(terminate=True)
            ```
        """
        members = Members(self, self._app)
        if wait:
            check_join("ResultSet.revoke(wait=True)", members.awaited())
        calls: list[Any] = [
            handle.revoke(
                terminate=terminate,
                signal=signal,
                wait=wait,
                timeout=timeout,
                reason=reason,
                parents=parents,
            )
            for handle in members.leaves()
        ]
        count = len(calls)
        # After the members, so that these are revoked and do not end with what they came after.
        calls += [
            before.revoke(terminate=terminate, signal=signal, reason=reason, parents=parents)
            for before in members.befores()
        ]
        return (await sync_bridge.each(calls))[:count]

    @blocking(revoke)
    def revoke_sync(self) -> None:
        """Blocking twin of `revoke`."""

    @on_app_loop
    async def forget(self) -> None:
        """Removes all results, as `AsyncResult.forget` does one, and those of the jobs that they came after.
        Raises what `ready` raises.
        """
        members = Members(self, self._app)
        await sync_bridge.each(one.forget() for one in (*members.leaves(), *members.befores()))

    @blocking(forget)
    def forget_sync(self) -> None:
        """Blocking twin of `forget`."""

    # -- as a list --

    def add(self, result: AsyncResult[R]) -> None:
        """Adds a handle at the end, unless it is there already.

        Raises:
            TypeError: `result` is no handle.
        """
        _check([result])
        held: list[Any] = self.results
        if result not in held:
            held.append(result)

    def update(self, results: Iterable[AsyncResult[R]]) -> None:
        """Adds handles at the end, each unless it is there already.

        Raises:
            TypeError: one of `results` is no handle; then none is added.
        """
        held: list[Any] = self.results
        more = list(results)
        _check(more)
        known = {result.id for result in held}
        for result in more:
            if result.id not in known:
                known.add(result.id)
                held.append(result)

    def remove(self, result: AsyncResult[R] | str) -> None:
        """Takes out a handle, which may be named by its id. The job goes on.

        Raises:
            KeyError: it is not there.
        """
        position = next((i for i, known in enumerate(self.results) if known == result), None)
        if position is None:
            raise KeyError(result)
        del self.results[position]

    def discard(self, result: AsyncResult[R] | str) -> None:
        """Takes out a handle if it is there. The job goes on."""
        if result in self.results:
            self.remove(result)

    def clear(self) -> None:
        """Takes out all handles. The jobs go on."""
        self.results.clear()

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[H_co]:
        return iter(self.results)

    @overload
    def __getitem__(self, index: int) -> H_co: ...

    @overload
    def __getitem__(self, index: slice) -> ResultSet[R, H_co]: ...

    def __getitem__(self, index: int | slice) -> H_co | ResultSet[R, H_co]:
        if isinstance(index, slice):
            part: list[Any] = self.results[index]
            return ResultSet(part, app=self._app)
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return self.results == other.results if isinstance(other, ResultSet) else NotImplemented

    def __repr__(self) -> str:
        first: list[Any] = self.results[:3]
        ids = [result.id for result in first] + ["..."] * (len(self) > 3)
        return f"<{type(self).__name__} of {len(self)}: {', '.join(ids)}>"

    def __copy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copies the list; for `deepcopy`, which hands over what it has copied, the handles as well."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.results = list(self.results) if memo is None else copy.deepcopy(self.results, memo)
        return other

    __deepcopy__ = __copy__

    def __reduce__(self) -> Any:
        # A set is its handles, and a handle its ids. The process that unpickles it finds its own app.
        return ResultSet, (self.results,)


def _check(handles: Sequence[Any]) -> None:
    """Refuses what is no handle. The commonest mistake is a coroutine."""
    if all(issubclass(kind, (AsyncResult, ResultSet)) for kind in set(map(type, handles))):
        return
    wrong = [handle for handle in handles if not isinstance(handle, (AsyncResult, ResultSet))]
    for one in wrong:
        if inspect.iscoroutine(one):
            one.close()  # nobody will await it, and Python would warn of that besides
    raise TypeError(
        f"a ResultSet is made of handles, not of {brief(wrong[0])}: `await task.delay(...)` gives one"
    )
