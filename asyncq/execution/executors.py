"""Runs the body of a task on the worker's loop or in a thread, and ends it at its time limit.

It also holds what the worker and the runner share about one attempt: `JobControl`, with its `AttemptState`.
All of it runs on the loop, except for `JobControl.begin`, `unstoppable` and `thread_block`, which run on the
body's thread.

A coroutine is stopped by a cancellation, and may ignore it. A thread cannot be stopped. In both cases whoever
waits for the job is notified in time, see `JobControl.overdue`. But the attempt ends only with its body, and
no other attempt begins before that. A process can be stopped: see `worker/processes/pool.py`, in a layer
above.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import math
import threading
import types
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from asyncq.config import shown
from asyncq.errors import AsyncQError, SoftTimeLimitExceeded, TimeLimitExceeded
from asyncq.serializers import PLAIN_VALUE
from asyncq.sync_bridge import running_loop
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextlib import AbstractContextManager

    from asyncq import wire
    from asyncq.execution.generators import ItemSink
    from asyncq.execution.slots import Slots
    from asyncq.serializers import ValueCodec
    from asyncq.sync_bridge import LoopOwner


T = TypeVar("T")


class AttemptState(enum.Enum):
    """How far one attempt of a job is. `NEXT_STATES` says which state may follow which.

    In the first three states the outcome of the attempt is wanted. `CANCELLING` means that the attempt is to
    end now, and that its own outcome is not wanted: the outcome is stored already, or the job runs elsewhere.
    """

    FETCHED = "fetched"
    """Its asyncio task was created and has not taken its first step."""
    STARTING = "starting"
    """It waits for what it needs: a slot, the lease, a permit, a thread or a process."""
    RUNNING = "running"
    """The body runs, or a process was given the job."""
    ENDED = "ended"
    """Its asyncio task has left the slot, and has said what becomes of the job."""
    DROPPED = "dropped"
    """It was cancelled while it was `FETCHED`. Its asyncio task finds this state and ends by itself. To
    cancel that task would lose the slot for ever: a task that is cancelled before its first step never runs
    its `finally`."""
    CANCELLING = "cancelling"
    """It was cancelled while it was `STARTING` or `RUNNING`. A thread goes on: nothing can stop it."""
    CANCELLED = "cancelled"
    """Its asyncio task has left the slot after `CANCELLING` or `DROPPED`."""


CLEAN_UP = 0.5
"""Seconds that a body gets to end after the cancellation at its time limit. Then the waiters are notified."""

FETCHED, STARTING, RUNNING = AttemptState.FETCHED, AttemptState.STARTING, AttemptState.RUNNING
ENDED, DROPPED = AttemptState.ENDED, AttemptState.DROPPED
CANCELLING, CANCELLED = AttemptState.CANCELLING, AttemptState.CANCELLED

NEXT_STATES: dict[AttemptState, tuple[AttemptState, ...]] = {
    FETCHED: (STARTING, DROPPED),
    # It ends without having run if it has expired, is deferred, or cannot be run.
    STARTING: (RUNNING, ENDED, CANCELLING),
    # Back to the start: the process that was given the job turned out to be dead.
    RUNNING: (STARTING, ENDED, CANCELLING),
    ENDED: (),
    DROPPED: (CANCELLED,),
    CANCELLING: (CANCELLED,),
    CANCELLED: (),
}

_UNWANTED = (CANCELLING, CANCELLED, DROPPED)

_first_step_of_body = threading.Lock()
"""Held while an attempt leaves `STARTING`, if its body may begin in a thread: that thread writes `RUNNING`
while the loop writes `CANCELLING` or `ENDED`. All attempts share one lock: it is held only for the write."""


class JobControl:
    """What the worker and the runner share about one job: how far it is, and how to end it.

    It is used on the loop, except for `begin`, which a body in a thread calls on its own thread.
    """

    __slots__ = ("in_thread", "interrupt", "is_late", "revoked", "started", "state", "thread", "threads")

    def __init__(self) -> None:
        self.state: AttemptState = STARTING
        self.revoked: bool = False
        self.started: int | None = None
        self.interrupt: Callable[[str], None] | None = None
        """Sends a revocation signal to the process of the job; None if the job runs in this process."""
        self.threads: Slots | None = None  # the slots of threads or processes of which the job has one now
        self.in_thread: bool = False
        """Whether its body is in a thread now, or is about to be."""
        self.thread: int | None = None
        """The identifier of the thread in which its body has begun."""
        self.is_late: bool = False
        """Whether its time limit is over."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The worker's loop. Without a worker, the caller's running loop, or None."""
        return running_loop()

    @property
    def lifespan_state(self) -> Any:
        """What the lifespan of the app has yielded. Only in a worker is there one."""
        return None

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Notes that the body begins to wait for another job. Only in a worker is there a slot to release."""

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Notes that the wait is over."""

    def release_executor_slot(self) -> None:
        """Gives back the slot of a thread or process, if the job has one."""
        threads, self.threads = self.threads, None
        if threads is not None:
            threads.give()

    def skip_reacquire(self) -> None:
        """Notes that the body is about to be cancelled, so its waits must not reacquire a slot."""

    def overdue(self, error: TimeLimitExceeded) -> None:
        """Handles a body that goes on after its time limit. It ignores the cancellation, or is in a thread.

        Without a worker there is nothing to do: only the caller waits for such a job.
        """

    @property
    def is_wanted(self) -> bool:
        """False once the attempt is to end now: it was terminated, or its worker stops or has lost it."""
        return self.state not in _UNWANTED

    def begin(self) -> bool:
        """Moves to `RUNNING` on the thread of the body. Returns False if the body must not begin."""
        # A revocation may come on the loop at this moment. Whichever is first decides: either the body begins
        # and the revocation finds a running job, or the body does not begin.
        with _first_step_of_body:
            if self.state is not STARTING:
                return False
            self.state = RUNNING
            self.thread = threading.get_ident()
            return True

    def move(self, state: AttemptState, *origins: AttemptState) -> AttemptState:
        """Moves to a state if the attempt is in one of the origins now, and returns the state before.

        It is called on the loop, as `begin` is on the thread of the body.
        """
        with _first_step_of_body:
            before = self.state
            if before in origins:
                self.state = state
            return before

    def cleaning_up(self, is_cleaning: bool) -> None:
        """Notes that the clean-up of the job's dependencies begins or has ended: nothing may cancel it."""

    def sink(self, codec: ValueCodec) -> ItemSink:
        """Returns the sink for the items of a generator. A subclass says which."""
        raise NotImplementedError

    @property
    def loop_owner(self) -> LoopOwner:
        """The app that runs the job. A subclass says which."""
        raise NotImplementedError

    async def report(self, state: str, meta: Any) -> None:  # noqa: ARG002  nobody follows a job that runs here
        """Checks a report of the job about its progress; see `Context.update_state`."""
        PLAIN_VALUE.dumps(meta, path="meta")  # refuse here, too, what a worker could not send


_thread_block: Callable[[], AbstractContextManager[object]] | None = None


def surround_threads(make: Callable[[], AbstractContextManager[object]] | None) -> None:
    """Surrounds all that a job of this process calls on a thread with a block: its plain function, and those
    of its dependencies. It is for what a framework keeps for each thread, as a connection to a database.

    Args:
        make: makes the block, on the thread of the job. None undoes it. The block itself must not raise.
    """
    global _thread_block  # noqa: PLW0603  threads belong to the process, and so does what is kept for them
    _thread_block = make


def thread_block() -> AbstractContextManager[object]:
    """Returns the block around what a job calls on this thread."""
    return nullcontext() if _thread_block is None else _thread_block()


class Stopped(AsyncQError):
    """A task called `sys.exit()` or raised `KeyboardInterrupt` in its thread."""


async def until_thread(control: JobControl, threads: Slots, deadline: int | None) -> None:
    """Waits until a thread is free for a body, and takes it. `in_thread` gives it back.

    This is not part of `in_thread`, because the time limit of a body counts from the beginning of the body.

    Args:
        control: the control object of the job.
        threads: the slots of the threads.
        deadline: the deadline of the job, in ms since the epoch.

    Raises:
        TimeLimitExceeded: the deadline passed before a thread was free.
    """
    if control.threads is not None:
        return  # the worker has fetched the job for a thread that was free
    if deadline is None:
        await threads.take()
    else:
        try:
            async with asyncio.timeout(deadline / 1000 - clock.now()):
                await threads.take()
        except TimeoutError:
            raise TimeLimitExceeded("no thread was free for the job before its deadline") from None
    control.threads = threads


async def in_thread(
    function: Callable[..., Any], args: Any, kwargs: dict[str, Any], control: JobControl
) -> Any:
    """Runs a plain function in a thread that the job has taken, in the context of the job.

    If the call is cancelled, it leaves the thread running: nothing can stop it.
    """
    call = partial(unstoppable, function, args, kwargs, control)
    control.in_thread = True
    try:
        return await anyio.to_thread.run_sync(call, limiter=_unlimited(), abandon_on_cancel=True)
    except asyncio.CancelledError as error:
        raise error.with_traceback(None) from None  # the frames of anyio mean nothing to the user
    except Exception as error:
        # Not by assignment: a frozen dataclass refuses that.
        BaseException.with_traceback(error, of_function(error.__traceback__))
        raise
    finally:
        control.in_thread = False
        control.release_executor_slot()


async def run_in_thread(call: Callable[[], T]) -> T:
    """Calls a function on a thread. If this is cancelled, it leaves the thread running."""
    return await anyio.to_thread.run_sync(call, limiter=_unlimited(), abandon_on_cancel=True)


@functools.cache
def _unlimited() -> anyio.CapacityLimiter:
    """Returns a limiter without a limit. `Slots` count instead: a body that waits for a job releases its
    thread, which anyio's limiter cannot do.
    """
    return anyio.CapacityLimiter(math.inf)


def of_function(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Returns the part of a traceback that is the task's own, without the frames that started its thread."""
    below = trace
    while below is not None and below.tb_frame.f_code is not guarded.__code__:
        below = below.tb_next
    return trace if below is None or below.tb_next is None else below.tb_next


def unstoppable(function: Callable[..., Any], args: Any, kwargs: dict[str, Any], control: JobControl) -> Any:
    """Calls the function on its thread. It turns what would end the thread, such as `SystemExit`, into an
    error: otherwise the job would hang.
    """
    if not control.begin():
        return None  # it was revoked while it waited for a thread, and the outcome is stored
    if _thread_block is None:
        return guarded(function, args, kwargs)
    with _thread_block():
        return guarded(function, args, kwargs)


def guarded(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Calls a function on its thread, see `unstoppable`."""
    try:
        return function(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise Stopped(f"the task raised {type(error).__name__}({error})") from error
    except StopIteration as error:
        # A future refuses a StopIteration; asyncio would raise a TypeError instead.
        raise RuntimeError(f"the task raised StopIteration({error})") from error


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long an attempt may still take.

    Attributes:
        seconds: the time from now on.
        timeout: the timeout of the task or the call; None if the deadline is nearer.
    """

    seconds: float
    timeout: float | None

    def exceeded(self) -> TimeLimitExceeded:
        """Returns the error for the end of this time."""
        if self.timeout is None:
            return TimeLimitExceeded("the task did not end before its deadline")
        return TimeLimitExceeded(f"the task ran longer than its timeout of {shown(self.timeout)}")


def time_limit(timeout: float | None, job: wire.Job) -> TimeLimit | None:
    """Returns the limit of a job whose task has that timeout, or None if there is none."""
    if job.timeout is not None:
        timeout = job.timeout / 1000
    left = None if job.deadline is None else job.deadline / 1000 - clock.now()
    if left is not None and (timeout is None or left < timeout):
        return TimeLimit(left, None)
    return None if timeout is None else TimeLimit(timeout, timeout)


async def within(
    body: Coroutine[Any, Any, Any], control: JobControl, limit: TimeLimit | None, soft_timeout: float | None
) -> Any:
    """Runs a body under time limits, in the asyncio task of its job.

    Args:
        body: the body.
        control: tells a cancellation that the worker asked for from one that the limit has caused.
        limit: the time after which the body is cancelled.
        soft_timeout: seconds after which `SoftTimeLimitExceeded` is raised inside the body, where it waits.

    Raises:
        TimeLimitExceeded: the body ran longer than the limit, whatever it made of the cancellation. It is
            raised when the body has ended. If that takes long, `control.overdue` is called before.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    limits = _Limits(task, control, limit)
    running: Awaitable[Any] = body
    timers = []
    if soft_timeout is not None:
        running = limits.driven(body)
        timers.append(loop.call_later(soft_timeout, limits.soften, soft_timeout))
    if limit is not None:
        timers.append(loop.call_later(limit.seconds, limits.stop))
    value: Any = None
    error: BaseException | None = None
    try:
        value = await running
    except BaseException as raised:
        if not limits.stopped or not control.is_wanted:
            raise
        error = raised
    finally:
        for timer in (*timers, limits.timer):
            if timer is not None:
                timer.cancel()
    if limits.stopped and control.is_wanted:
        task.uncancel()
        assert limit is not None
        if isinstance(error, asyncio.CancelledError):
            # The cancellation was ours and says nothing. Where it reached the body is worth showing.
            raise limit.exceeded().with_traceback(error.__traceback__) from None
        raise limit.exceeded() from error
    return value


class _SoftCancellation(SoftTimeLimitExceeded, asyncio.CancelledError):
    """What is raised inside a body at its soft time limit, at the place where the body waits.

    For the body it is a `SoftTimeLimitExceeded` that the body may catch. For everything between the body and
    its wait it is a cancellation. So a task group ends its children, `wait_for` ends its task, and a lock
    goes to the next that waits; an error of any other class would leave all of them as they are. It never
    leaves the body.
    """

    __module__ = SoftTimeLimitExceeded.__module__
    __qualname__ = SoftTimeLimitExceeded.__qualname__

    def plain(self) -> SoftTimeLimitExceeded:
        """Returns the error that leaves the body. It is not a cancellation, so that it can be an outcome."""
        error = SoftTimeLimitExceeded(*self.args).with_traceback(self.__traceback__)
        error.__dict__.update(self.__dict__)  # the notes of the exception
        error.__cause__, error.__context__ = self.__cause__, self.__context__
        error.__suppress_context__ = self.__suppress_context__
        return error


_SoftCancellation.__name__ = SoftTimeLimitExceeded.__name__


class _Limits:
    """The time limits of one running body."""

    def __init__(self, task: asyncio.Task[Any], control: JobControl, limit: TimeLimit | None) -> None:
        self._task = task
        self._control = control
        self._limit = limit
        self.timer: asyncio.TimerHandle | None = None
        self._injected: Exception | None = None
        self.stopped = False

    def stop(self) -> None:
        """Applies the hard limit: cancels the body, or reports that its thread goes on."""
        control = self._control
        self.stopped = control.is_late = True
        control.skip_reacquire()
        # A thread that is about to begin must not begin once the job is reported as ended. `move` decides.
        if control.in_thread and control.move(ENDED, STARTING) is not STARTING:
            self._overdue()
            return
        self._task.cancel()
        self.timer = asyncio.get_running_loop().call_later(CLEAN_UP, self._overdue)

    def _overdue(self) -> None:
        assert self._limit is not None
        self._control.overdue(self._limit.exceeded())

    def soften(self, limit: float) -> None:
        """Applies the soft limit: cancels the task, and lets the body get `SoftTimeLimitExceeded` instead."""
        self._injected = _SoftCancellation(f"the task ran longer than its soft_timeout of {shown(limit)}")
        self._task.cancel()

    @types.coroutine
    def driven(self, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Runs the body step by step, as `await` would.

        So an exception of our own can be thrown into it.
        """
        step: Callable[[], Any] = partial(body.send, None)
        while True:
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            except _SoftCancellation as error:
                plain = error.plain()
                break
            try:
                step = partial(body.send, (yield awaited))
            except asyncio.CancelledError as error:
                injected, self._injected = self._injected, None
                if injected is not None:
                    self._task.uncancel()
                step = partial(body.throw, injected or error)
            except BaseException as error:  # noqa: BLE001 - the body handles it
                step = partial(body.throw, error)
        raise plain  # outside of `except`, so that the cancellation is not its `__context__`
