"""Many handles as one."""

from __future__ import annotations

import asyncio
import copy
import inspect
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, overload

from typing_extensions import TypeVar

from asyncq import config, sync_bridge
from asyncq.client.deadlock import check_join
from asyncq.client.sessions import the_only_app
from asyncq.errors import ResultTimeout
from asyncq.results.completion import Completions, fetch_states, value_or_error
from asyncq.results.handle import AsyncResult
from asyncq.short_repr import brief
from asyncq.states import EXCEPTION_STATES, READY_STATES, State
from asyncq.sync_bridge import INLINE, blocking, on_app_loop, overloaded, refuse_in_loop, running_loop, soon

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
    """The handles of several jobs, in order. `ResultSet[R]` has the type of their values; the type of the
    handles, where it is not `AsyncResult[R]`, is a second parameter.

    Waiting and looking go through one connection, 500 handles in each command, and one deadline holds for
    all. Each awaited method has a blocking twin with the suffix `_sync`.

    Args:
        results: the handles.
        app: the app; by default that of the first handle.

    Raises:
        TypeError: something else than a handle.

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
            self._app = next((handle.app for handle in self._deciding()), None) or the_only_app()
        return self._app

    @property
    def _serving_app(self) -> App | None:
        """The app whose server is asked; None if there is nothing to ask."""
        real = next((handle for handle in self._deciding() if not handle.is_local), None)
        return None if real is None else self._app or real.app

    @property
    def loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self._serving_app.sessions if self._serving_app is not None else INLINE

    def _members(self) -> list[Any]:
        return self.results

    def _before(self) -> AsyncResult[Any] | ResultSet[Any, Any] | None:
        """What the jobs came after."""
        return None

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        """The handles of single jobs, in order, those of groups inside this one among them."""
        for member in self._members():
            if isinstance(member, ResultSet):
                yield from member._leaves()
            else:
                yield member

    def _deciding(self) -> Iterator[AsyncResult[Any]]:
        """The handles whose ends are the end of the whole: those of single jobs, and for a group without
        members those of what it came after, which its members would have waited for and failed with.
        """
        one: AsyncResult[Any] | ResultSet[Any, Any] | None = self
        while isinstance(one, ResultSet):
            is_empty = True
            for member in one._members():
                for handle in member._deciding() if isinstance(member, ResultSet) else (member,):
                    is_empty = False
                    yield handle
            one = one._before() if is_empty else None
        if one is not None:
            yield one

    def _befores(self) -> Iterator[AsyncResult[Any] | ResultSet[Any, Any]]:
        """What this group and those inside it came after."""
        before = self._before()
        if before is not None:
            yield before
        for member in self._members():
            if isinstance(member, ResultSet):
                yield from member._befores()

    def _awaited(self) -> Iterator[AsyncResult[Any]]:
        """Those that a wait is for: nothing in an eager one waits."""
        return (handle for handle in self._deciding() if not handle.is_local)

    # -- waiting --

    def __await__(self) -> Generator[Any, Any, list[R]]:
        """`await results` is `await results.get()`."""
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

        Fails fast: the first failure is raised as soon as it is known, without waiting for the rest, which go
        on. If several have failed by then, it is the first in order. Cancelling or timing out ends this wait
        only; it may be called any number of times.

        Args:
            timeout: seconds for all of them together; None waits for ever, 0 looks once.
            propagate: False waits for all, and puts exceptions into the list instead of raising the first. Of
                a group inside this one, they are in the list that is that group's value, which its type does
                not say.
            callback: called as `callback(id, value)` for each, in order, when all have ended.
            disable_sync_subtasks: False allows this wait inside a task.

        Raises:
            ResultTimeout: not all ended in time. The jobs go on; a second call waits again.
            WouldDeadlock: called inside a task, without leave.
            Exception: what the failed one raises from its `get`.
        """
        check_join("ResultSet.get()", self._awaited(), disable_sync_subtasks=disable_sync_subtasks)
        with closing(Completions(list(self._deciding()), self._serving_app, timeout)) as completions:
            in_time = await completions.until(
                lambda: completions.complete or (propagate and completions.failed)
            )
        if propagate and completions.failed:
            raise _first_failure(completions)
        if not in_time:
            raise _too_late(completions, timeout)
        return self._values(callback, propagate=propagate)

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

    def _values(self, callback: Callable[[str, Any], object] | None, *, propagate: bool) -> list[Any]:
        values: list[Any] = []
        for member in self._members():
            if isinstance(member, ResultSet):
                value: Any = member._values(None, propagate=propagate)
            else:
                value = value_or_error(member)
                if propagate and isinstance(value, Exception):
                    raise value
            if callback is not None:
                callback(str(member), value)
            values.append(value)
        return values

    def as_completed(self, timeout: float | timedelta | None = None) -> AsyncIterator[H_co]:
        """Gives each handle as its job ends, whatever the end: `async for result in results.as_completed()`.

        A handle that it gave has its outcome at hand: `await result` returns or raises at once. Handles of
        groups inside this one are given singly.

        Args:
            timeout: seconds from the first step to the last; None waits for ever, 0 looks once.

        Raises:
            ResultTimeout: from the loop, when the time is over; those that ended in time were given.
            WouldDeadlock: called inside a task, without leave.

        Example:
            ```python
            async for result in results.as_completed(timeout=60):
                print(result.id, result.state)
            ```
        """
        check_join("ResultSet.as_completed()", self._awaited())
        return self._as_completed(timeout)

    async def _as_completed(self, timeout: float | timedelta | None) -> AsyncIterator[H_co]:
        with closing(Completions(list(self._leaves()), self._serving_app, timeout)) as completions:
            given = 0
            while given < len(completions.handles):
                for handle in await self._next_ended(completions, given, timeout):
                    given += 1
                    yield handle

    def as_completed_sync(self, timeout: float | timedelta | None = None) -> Iterator[H_co]:
        """Blocking twin of `as_completed`, for code that is not async: `for result in ...`. Raises as it."""
        refuse_in_loop("as_completed_sync()", "async for result in ....as_completed(...)")
        check_join("ResultSet.as_completed()", self._awaited())
        return self._as_completed_sync(timeout)

    def _as_completed_sync(self, timeout: float | timedelta | None) -> Iterator[H_co]:
        with closing(Completions(list(self._leaves()), self._serving_app, timeout)) as completions:
            given = 0
            while given < len(completions.handles):
                ended = sync_bridge.wait(self.loop_owner, self._next_ended(completions, given, timeout))
                given += len(ended)
                yield from ended

    @on_app_loop
    async def _next_ended(
        self, completions: Completions[Any], given: int, timeout: float | timedelta | None
    ) -> list[H_co]:
        """What ended after the first so many, once there is something."""
        if not await completions.until(lambda: len(completions.ended) > given, all_of_them=False):
            raise _too_late(completions, timeout)
        ended: list[Any] = completions.ended[given:]
        return ended

    def then(
        self,
        callback: Callable[[ResultSet[R, H_co]], object],
        on_error: Callable[[ResultSet[R, H_co]], object] | None = None,
    ) -> ResultSet[R, H_co]:
        """Calls `callback(results)` in this thread's loop when all jobs have ended. Returns the set itself.

        With `on_error`, that one is called instead if any of them failed or was revoked. A coroutine that a
        callback returns is run; what a callback raises goes to the loop's exception handler.

        Raises:
            RuntimeError: there is no running event loop to call back in.
        """
        handles = list(self._deciding())
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

    async def _fetch_statuses(self) -> list[AsyncResult[Any]]:
        handles = list(self._deciding())
        await fetch_states(handles, self._serving_app)
        return handles

    @on_app_loop
    async def ready(self) -> bool:
        """Whether all jobs have ended, in whatever way. Looks once.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        return all(handle.state in READY_STATES for handle in await self._fetch_statuses())

    @blocking(ready)
    def ready_sync(self) -> None:
        """Blocking twin of `ready`."""

    @on_app_loop
    async def successful(self) -> bool:
        """Whether all jobs have ended with a value. Looks once. Raises as `ready`."""
        return all(handle.state == State.SUCCESS for handle in await self._fetch_statuses())

    @blocking(successful)
    def successful_sync(self) -> None:
        """Blocking twin of `successful`."""

    @on_app_loop
    async def failed(self) -> bool:
        """Whether any of the jobs has ended with an error. Looks once. Raises as `ready`."""
        return any(handle.state == State.FAILURE for handle in await self._fetch_statuses())

    @blocking(failed)
    def failed_sync(self) -> None:
        """Blocking twin of `failed`."""

    @on_app_loop
    async def waiting(self) -> bool:
        """Whether any of the jobs has not ended. Looks once. Raises as `ready`."""
        return any(handle.state not in READY_STATES for handle in await self._fetch_statuses())

    @blocking(waiting)
    def waiting_sync(self) -> None:
        """Blocking twin of `waiting`."""

    @on_app_loop
    async def completed_count(self) -> int:
        """How many of the jobs have ended with a value. Looks once. Raises as `ready`."""
        await self._fetch_statuses()
        return sum(handle.state == State.SUCCESS for handle in self._leaves())

    @blocking(completed_count)
    def completed_count_sync(self) -> None:
        """Blocking twin of `completed_count`."""

    @on_app_loop
    async def maybe_throw(
        self, callback: Callable[[str, Any], object] | None = None, *, propagate: bool = True
    ) -> None:
        """Raises what the first (in order) that has failed by now raised; else returns. Looks once.

        Args:
            callback: called as `callback(id, value)` for each that has ended, in order.
            propagate: False hands exceptions to the callback instead.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
            Exception: the task's own.
        """
        handles, members = await self._fetch_statuses(), set(self._leaves())
        for handle in handles:
            if handle.state not in READY_STATES:
                continue
            if propagate and handle.state in EXCEPTION_STATES:
                await handle.get(disable_sync_subtasks=False)
            if callback is not None and handle in members:
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
        """Revokes all jobs, as `AsyncResult.revoke` does one, and those that they came after. All are told
        before anything is waited for.

        Args:
            terminate: also end those that run.
            signal: what those get that run in a process.
            wait: wait until all have ended.
            timeout: of that wait, in seconds, for all of them together.
            reason: text that `TaskRevoked` shows.
            parents: also the jobs before each that its handle does not know, as `AsyncResult.revoke`.

        Returns:
            The state of each job after the call, in order.

        Raises:
            ValueError: another signal than `SIGTERM`, `SIGINT` and `SIGKILL`.
            ResultNotFound, ResultTimeout: with `wait`, as `AsyncResult.revoke`, after all have been told.
            BrokerUnavailable: no answer within the operation timeout; some may have been revoked.
        """
        if wait:
            check_join("ResultSet.revoke(wait=True)", self._awaited())
        calls: list[Any] = [
            handle.revoke(
                terminate=terminate,
                signal=signal,
                wait=wait,
                timeout=timeout,
                reason=reason,
                parents=parents,
            )
            for handle in self._leaves()
        ]
        count = len(calls)
        # After the members, so that these are revoked and do not end with what they came after.
        calls += [
            before.revoke(terminate=terminate, signal=signal, reason=reason, parents=parents)
            for before in self._befores()
        ]
        return (await _each(calls))[:count]

    @blocking(revoke)
    def revoke_sync(self) -> None:
        """Blocking twin of `revoke`."""

    @on_app_loop
    async def forget(self) -> None:
        """Removes all results, as `AsyncResult.forget` does one, and those of the jobs that they came after.
        Raises as `ready`.
        """
        await _each(handle.forget() for handle in (*self._leaves(), *self._befores()))

    @blocking(forget)
    def forget_sync(self) -> None:
        """Blocking twin of `forget`."""

    # -- as a list --

    def add(self, result: AsyncResult[R]) -> None:
        """Adds a handle at the end, unless it is there.

        Raises:
            TypeError: something else than a handle.
        """
        _check([result])
        if result not in self.results:
            self._members().append(result)

    def update(self, results: Iterable[AsyncResult[R]]) -> None:
        """Adds handles at the end, each unless it is there.

        Raises:
            TypeError: something else than a handle; then none is added.
        """
        held, more = self._members(), list(results)
        _check(more)
        known = {result.id for result in held}
        for result in more:
            if result.id not in known:
                known.add(result.id)
                held.append(result)

    def remove(self, result: AsyncResult[R] | str) -> None:
        """Takes a handle out, or the one with an id. The job goes on.

        Raises:
            KeyError: it is not there.
        """
        position = next((i for i, known in enumerate(self.results) if known == result), None)
        if position is None:
            raise KeyError(result)
        del self.results[position]

    def discard(self, result: AsyncResult[R] | str) -> None:
        """Takes a handle out if it is there. The job goes on."""
        if result in self.results:
            self.remove(result)

    def clear(self) -> None:
        """Takes all handles out. The jobs go on."""
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
        ids = [result.id for result in self._members()[:3]] + ["..."] * (len(self) > 3)
        return f"<{type(self).__name__} of {len(self)}: {', '.join(ids)}>"

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.results = list(self.results)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = self.__copy__()
        other.results = copy.deepcopy(self.results, memo)
        return other

    def __reduce__(self) -> Any:
        # The ids say it all; the app is found where it is unpickled.
        return ResultSet, (self.results,)


def _first_failure(completions: Completions[Any]) -> Exception:
    """What the first in order of those that have failed by now raised."""
    ended = set(completions.ended)
    values = (value_or_error(handle) for handle in completions.handles if handle in ended)
    return next(value for value in values if isinstance(value, Exception))


def _too_late(completions: Completions[Any], timeout: Any) -> ResultTimeout:
    ended = set(completions.ended)
    late = [handle.id for handle in completions.handles if handle not in ended]
    shown = ", ".join(late[:3]) + (", ..." if len(late) > 3 else "")
    within = config.shown(config.seconds(timeout))
    return ResultTimeout(
        f"{len(late)} of {len(completions.handles)} jobs did not end within {within} (they go on): {shown}"
    )


async def _each(calls: Iterable[Any]) -> list[Any]:
    """Makes all calls, pipelined; then raises the first error, if there is one."""
    if running_loop() is None:  # all are eager and the caller blocks: nothing in them waits
        return [await call for call in calls]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _check(handles: Sequence[Any]) -> None:
    """Refuses what is no handle; a coroutine among them is the commonest slip."""
    if all(issubclass(kind, (AsyncResult, ResultSet)) for kind in set(map(type, handles))):
        return
    wrong = [handle for handle in handles if not isinstance(handle, (AsyncResult, ResultSet))]
    for one in wrong:
        if inspect.iscoroutine(one):
            one.close()  # it will not be awaited, and the error says so
    raise TypeError(
        f"a ResultSet is made of handles, not of {brief(wrong[0])}: `await task.delay(...)` gives one"
    )
