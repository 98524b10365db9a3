"""Results without a queue: what `task.apply(...)` gives, which ran the task here and now.

A call goes through the same codecs, the same runner, and the same encoding of failures as on a worker, so
that a test does not pass with what production refuses. Left out are the server, the thread (a plain function
runs on the caller's own: a database connection of a test belongs to it) and the pauses between retries.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from asyncq import wire
from asyncq.errors import ResultNotFound, SyncInAsyncContext
from asyncq.execution import callables, executors, generators
from asyncq.execution.runner import Finish, Replace, Requeue, Runner
from asyncq.execution.slots import Slots
from asyncq.outcome import Outcome
from asyncq.results.events import last_event
from asyncq.results.handle import AsyncResult, line
from asyncq.results.streams import KeptItems
from asyncq.results.view import View
from asyncq.serializers import PLAIN_VALUE
from asyncq.short_repr import brief
from asyncq.states import READY_STATES, State
from asyncq.sync_bridge import INLINE, blocking, driven, refuse_in_loop, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from datetime import timedelta
    from typing import Self

    from asyncq.client.application import App, Returning, Runnable
    from asyncq.execution.executors import Claim
    from asyncq.execution.task_body import TaskBody
    from asyncq.results.events import Event, EventFollower
    from asyncq.results.streams import Readable
    from asyncq.serializers import ValueCodec
    from asyncq.sync_bridge import LoopOwner
    from asyncq.wire import Signal

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_LETTERS = {State.SUCCESS: wire.SUCCEEDED, State.FAILURE: wire.FAILED, State.REVOKED: wire.REVOKED}


class EagerResult(AsyncResult[R_co]):
    """The handle of a call that has ended already, without a server: `task.apply(...)` gives it.

    It has the face of `AsyncResult`: awaiting gives the value or raises, twins such as `get_sync` work, and
    it may stand in a `ResultSet` beside others. Nothing in it waits, so it may be asked inside a task, too.

    Args:
        id: any id.
        value: what the task returned; what it raised, if the state says so.
        state: `SUCCESS`, `FAILURE` or `REVOKED`.
        traceback: where it failed, as text.
        name: the task's name.
        app: the app; by default the only one of this process, if it is asked for.

    Raises:
        ValueError: a state that is not the end, or a failure without an exception.

    Example:
        ```python
        result = add.apply(args=(4, 4))
        print(result.state, result.get_sync())  # SUCCESS 8
        ```
    """

    __slots__ = ("_items", "_kept")
    is_local = True

    def __init__(
        self,
        id: str,
        value: R_co | BaseException | None,
        state: State | str,
        traceback: str | None = None,
        *,
        name: str | None = None,
        app: App | None = None,
    ) -> None:
        super().__init__(id, app)
        if state not in READY_STATES:
            raise ValueError(
                f"state={brief(state)}: an eager result has ended, as SUCCESS, FAILURE or REVOKED"
            )
        if state == State.FAILURE and not isinstance(value, Exception):
            raise ValueError(f"state=FAILURE needs the exception that was raised, not {brief(value)}")
        self._items: Sequence[bytes] = ()  # what a generator yielded
        ended = wire.Ended(_LETTERS[State(state)], name=name or "", attempts=1)
        self._kept: Outcome[R_co] | None = _Given(id, ended, value, traceback)

    @classmethod
    def of_call(
        cls,
        task: Runnable,
        job: wire.Job,
        ended: wire.Ended,
        items: Sequence[bytes],
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None,
    ) -> Self:
        """Makes the handle of a call that ran here. `items` are what it yielded."""
        handle = cls.of_job(task, task.app, job, None, args, kwargs)
        handle._items = items
        handle._kept = Outcome(job.id, ended, task.returns)
        return handle

    def unwrap(self) -> R_co | None:
        """The value; raises what the task raised. None once it is forgotten."""
        return None if self._kept is None else self._kept.unwrap()

    @property
    def loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return INLINE

    def known(self) -> Outcome[R_co] | None:
        """How it ended; None once it is forgotten."""
        return self._kept

    def is_settled(self) -> bool:
        """Whether it has ended: it has."""
        return True

    @property
    def state(self) -> State | str:
        """`SUCCESS`, `FAILURE` or `REVOKED`; `UNKNOWN` once it is forgotten."""
        return State.UNKNOWN if self._kept is None else self._kept.state

    @overload
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: Literal[True] = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co: ...

    @overload
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co | Exception: ...

    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool = True,
        follow_parents: bool = True,  # noqa: ARG002  what did not run has no result of this kind
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,  # noqa: ARG002  nothing waits, so there is nothing to guard
        revoke_on_abandon: bool = False,  # noqa: ARG002  nothing waits, so nothing is abandoned
    ) -> R_co | Exception:
        """Returns the value, or raises what the task raised. At once, so the deadlock guard lets it be.

        Args:
            timeout: for the sake of `AsyncResult.get`; nothing is waited for.
            propagate: False returns the task's exception instead of raising it.
            follow_parents: for the sake of `AsyncResult.get`.
            callback: called as `callback(id, value)` before the value is returned.
            on_event: called with the final `Event`, the only one.
            disable_sync_subtasks: for the sake of `AsyncResult.get`.
            revoke_on_abandon: for the sake of `AsyncResult.get`.

        Raises:
            ResultNotFound: it was forgotten, or the task's result is ignored.
            Exception: whatever the task raised.
        """
        outcome = await self._outcome(timeout)
        if on_event is not None:
            on_event(last_event(outcome))
        value = outcome.unwrap() if propagate or outcome.error is None else outcome.error
        if callback is not None:
            callback(self.id, value)
        return value

    async def outcome(self, timeout: float | timedelta | None = None) -> Outcome[R_co]:
        """How it ended, as a value. Raises `ResultNotFound` as `get`."""
        return await self._outcome(timeout)

    async def _outcome(self, timeout: float | timedelta | None) -> Outcome[R_co]:  # noqa: ARG002  nothing waits
        return self._ended()

    def _ended(self) -> Outcome[R_co]:
        if self._kept is None or self.ignored:
            why = "it was forgotten" if self._kept is None else "its task ignores results"
            raise ResultNotFound(f"no result under the id {self.id!r}: {why}")
        return self._kept

    def events(self, timeout: float | timedelta | None = None) -> AsyncIterator[Event]:
        """Gives the final event, the only one. Raises `ResultNotFound` as `get`, from the loop."""
        return self._events(timeout)

    def _reader(self, after: int) -> Readable:
        return KeptItems(self._items, after, lambda: self._ended().unwrap())

    async def _filled(self, reader: Readable) -> bool:
        return await reader.fill()

    async def _next(self, follower: EventFollower) -> Event | None:
        return follower.only(last_event(await self._outcome(None)))

    async def refresh(self) -> State | str:
        """The state. There is nowhere to look."""
        return self.state

    async def _final(self) -> Outcome[R_co] | None:
        return self._kept

    async def exists(self) -> bool:
        """Whether it has not been forgotten."""
        return self._kept is not None

    async def revoke(
        self,
        *,
        terminate: bool = False,  # noqa: ARG002  the parameters are those of AsyncResult
        signal: Signal = "SIGTERM",  # noqa: ARG002  the same
        wait: bool = False,  # noqa: ARG002  the same
        timeout: float | timedelta | None = None,  # noqa: ARG002  the same
        reason: str | None = None,  # noqa: ARG002  the same
        parents: bool = False,  # noqa: ARG002  the same
    ) -> State | str:
        """Changes nothing, for it has ended. Returns the state."""
        return self.state

    async def forget(self) -> None:
        """Drops the value, and those of the jobs before it: from then on `get` raises `ResultNotFound`."""
        for handle in line(self):
            cast("EagerResult[Any]", handle)._kept = None

    def then(
        self,
        callback: Callable[[AsyncResult[R_co]], object],
        on_error: Callable[[AsyncResult[R_co]], object] | None = None,
    ) -> EagerResult[R_co]:
        """Calls `callback(result)` in the next turn of this thread's loop, or `on_error` after a failure.

        Raises:
            RuntimeError: there is no running event loop to call back in.
        """
        good = self.state is State.SUCCESS
        soon(callback if good or on_error is None else on_error, self)
        return self

    if not TYPE_CHECKING:  # their types are those that AsyncResult gives them
        wait = get

        @blocking(get)
        def get_sync(self) -> None:
            """Blocking twin of `get`."""

        wait_sync = get_sync

        @blocking(outcome)
        def outcome_sync(self) -> None:
            """Blocking twin of `outcome`."""

        @blocking(refresh)
        def refresh_sync(self) -> None:
            """Blocking twin of `refresh`."""

        @blocking(exists)
        def exists_sync(self) -> None:
            """Blocking twin of `exists`."""

        @blocking(revoke)
        def revoke_sync(self) -> None:
            """Blocking twin of `revoke`."""

        @blocking(forget)
        def forget_sync(self) -> None:
            """Blocking twin of `forget`."""

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        for owner in (View, EagerResult):
            for slot in set(owner.__slots__) - {"__weakref__"}:
                setattr(other, slot, getattr(self, slot))
        return other

    def __reduce__(self) -> Any:
        raise TypeError("an EagerResult exists only in this process; send its value instead")


class _Given(Outcome[R_co]):
    """An outcome made of Python objects, which have not been encoded."""

    __slots__ = ("_text", "_value")

    def __init__(self, id: str, ended: wire.Ended, value: Any, traceback: str | None) -> None:
        super().__init__(id, ended, PLAIN_VALUE)
        self._value = value
        self._text = traceback

    def unwrap(self) -> R_co:
        error = self.error
        if error is not None:
            raise error
        return cast("R_co", self._value)

    @property
    def value(self) -> R_co | None:
        return self._value if self.state is State.SUCCESS else None

    @property
    def error(self) -> Exception | None:
        if self.state is State.SUCCESS or isinstance(self._value, Exception):
            return None if self.state is State.SUCCESS else cast("Exception", self._value)
        return super().error

    @property
    def traceback(self) -> str | None:
        return self._text


EndedAs = tuple[str, bytes]
"""How a job ended: the letter of its record, and the encoded outcome."""


def run(task: Returning[R], job: wire.Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> EagerResult[R]:
    """Runs a job here and now, in a context of its own, retries among it.

    A coroutine function gets an event loop for itself; a plain one runs on this thread, without time limits.

    Raises:
        KeyboardInterrupt: Ctrl-C is meant for the caller, not for the job.
    """
    items = generators.CollectedItems()
    ended = wire.decode_ended(*_ended(task, job, b"", items))
    result: EagerResult[R] = EagerResult.of_call(task, job, ended, items, args, kwargs)
    return result


def run_all(
    jobs: Sequence[tuple[wire.Job, bytes]], app: App
) -> tuple[dict[str, EndedAs], dict[str, generators.CollectedItems]]:
    """Runs the jobs of a workflow here and now, one after the other; raises as `run`.

    Args:
        jobs: with their messages, parents before children.
        app: which knows their tasks.

    Returns:
        How each ended, by its id, and what each yielded.
    """
    ended: dict[str, EndedAs] = {}
    yielded: dict[str, generators.CollectedItems] = {}
    failed: set[str] = set()  # by themselves: those that never ran have none of their error callbacks called
    for job, message in jobs:
        values = _values_of_failed(job, ended, failed) if job.on_error else _values(job, ended)
        if isinstance(values, bytes):
            arrived = wire.decode_job(job.id, job.queue, message)
            yielded[job.id] = generators.CollectedItems()
            ended[job.id] = _ended(app.task_named(job.name), arrived, values, yielded[job.id])
            if ended[job.id][0] == wire.FAILED:
                failed.add(job.id)
        else:
            ended[job.id] = values
    return ended, yielded


def _values(job: wire.Job, ended: dict[str, EndedAs]) -> bytes | EndedAs:
    """What the jobs that a job waited for returned; or how it ends because one of them did not."""
    for parent in job.parents:
        letter, outcome = ended[parent]
        if letter != wire.SUCCEEDED:
            return letter, _kept_for_child(parent, outcome)
    return b"".join(wire.frame(parent, *ended[parent]) for parent in job.parents)


def _values_of_failed(job: wire.Job, ended: dict[str, EndedAs], failed: set[str]) -> bytes | EndedAs:
    """How the job failed that an error callback waited for; or how the callback ends because none did."""
    failed_parent = job.parents[-1]
    for parent in job.parents:
        if parent in failed:
            letter, outcome = ended[parent]
            return wire.frame(
                failed_parent,
                letter,
                outcome if parent == failed_parent else _kept_for_child(parent, outcome),
            )
    return wire.REVOKED, b""


def _kept_for_child(parent: str, outcome: bytes) -> bytes:
    return outcome if outcome.startswith(b"^") else b"^%s %s" % (parent.encode(), outcome)


def _ended(task: Runnable, job: wire.Job, values: bytes, items: generators.CollectedItems) -> EndedAs:
    runner = _EagerRunner({job.name: task}, "eager", Slots(1), task.app.settings.max_payload)
    runner.items = items
    run = _until_ended(runner, job, values)
    if task.is_coroutine:
        ended_as = asyncio.run(_unless_cancelled(run))
    else:
        ended_as = contextvars.copy_context().run(driven, run)
    if runner.interrupt is not None:
        raise runner.interrupt
    if isinstance(ended_as, Replace):
        outcomes, yielded = run_all(ended_as.jobs, task.app)
        items[:] = yielded.get(job.id, ())
        return outcomes[job.id]
    return ended_as.letter, ended_as.outcome


class _EagerClaim(executors.Claim):
    """Nobody follows a job that runs here: what it says of itself goes nowhere, what it yields is kept."""

    __slots__ = ("items",)

    def __init__(self, items: generators.CollectedItems) -> None:
        super().__init__()
        self.items = items

    def sink(self, codec: ValueCodec) -> generators.ItemSink:
        """Keeps the items; another attempt yields them again."""
        self.items.clear()
        self.items.codec = codec
        return self.items

    @property
    def loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return INLINE


class _EagerRunner(Runner):
    """Runs plain functions on the caller's thread."""

    interrupt: KeyboardInterrupt | SyncInAsyncContext | None = None
    items: generators.CollectedItems

    async def _body(
        self, task: TaskBody, job: wire.Job, args: list[Any], kwargs: dict[str, Any], claim: Claim
    ) -> Any:
        if task.is_coroutine:
            return await super()._body(task, job, args, kwargs, claim)

        def body() -> Any:
            try:
                if task.is_generator:
                    return generators.run_inline(task.function(*args, **kwargs), claim.sink(task.items))
                value = task.function(*args, **kwargs)
                return self._finished(task, value) if callables.is_unfinished(value) else value
            except KeyboardInterrupt as error:
                self.interrupt = error
                raise

        return executors.unstoppable(body, (), {}, claim)

    def _finished(self, task: TaskBody, value: Any) -> Any:
        """Runs the coroutine that a plain function returned, on an event loop of its own."""
        try:
            refuse_in_loop(f"{task.name}.apply()", "await task(...)")
        except SyncInAsyncContext as error:
            value.close()
            self.interrupt = error
            raise
        return asyncio.run(callables.finished(value))


async def _until_ended(runner: _EagerRunner, job: wire.Job, values: bytes) -> Finish | Replace:
    """Tries again at once as often as the task's policy allows, as if the pauses were over."""
    retries, last = 0, b""
    while True:
        delivery = wire.Delivery("", job.queue, 0, retries, job, values, last=last)
        run_result = await runner.run(delivery, _EagerClaim(runner.items))
        if not isinstance(run_result, Requeue):
            return run_result
        retries, last = run_result.retries, run_result.last


async def _unless_cancelled(run: Coroutine[Any, Any, T]) -> T:
    """Ctrl-C reaches a loop as a cancellation, which the runner takes for the job's own failure."""
    finish = await run
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return finish
