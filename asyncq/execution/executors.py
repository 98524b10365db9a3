"""Where a task's body runs: on the worker's loop, or in a thread. And what stops it in time.

A coroutine is stopped by cancelling it, and may let that go by. A thread cannot be stopped. Whoever waits for
a job is told in time all the same, see `Claim.overdue`; but the attempt has not ended before its body has,
and until then no other attempt begins. A process can be stopped: see `worker/processes/pool.py`, which is
above this floor.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import math
import threading
import time
import types
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from asyncq.config import shown
from asyncq.errors import AsyncQError, SoftTimeLimitExceeded, TimeLimitExceeded
from asyncq.serializers import PLAIN_VALUE
from asyncq.sync_bridge import running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from asyncq import wire
    from asyncq.execution.generators import ItemSink
    from asyncq.execution.slots import Slots
    from asyncq.serializers import ValueCodec
    from asyncq.sync_bridge import LoopOwner


class AttemptState(enum.Enum):
    """How far one attempt of a job is. What may follow a state stands in `NEXT_STATES`.

    In the first three its outcome is wanted. `CANCELLING` says that the attempt is to end now and that nobody
    wants its outcome, which is stored already or is another worker's to find.
    """

    FETCHED = "fetched"
    """Its asyncio task is made and has not had its first step."""
    STARTING = "starting"
    """Waits for what it needs: a slot, the lease, a permit, a thread or a process."""
    RUNNING = "running"
    """The body runs, or a process was given the job."""
    ENDED = "ended"
    """Its task has left the slot, and said what becomes of the job."""
    DROPPED = "dropped"
    """Cancelled while it was `FETCHED`. Its task sees that for itself: an asyncio task that is cancelled
    before its first step never comes to its `finally`, and the slot would be taken for ever."""
    CANCELLING = "cancelling"
    """Cancelled while it was `STARTING` or `RUNNING`. A thread goes on, for nothing can stop it."""
    CANCELLED = "cancelled"
    """Its task has left the slot after that."""


CLEAN_UP = 0.5
"""Seconds that a body gets to end after it was cancelled at its time limit, before whoever waits is told."""

FETCHED, STARTING, RUNNING = AttemptState.FETCHED, AttemptState.STARTING, AttemptState.RUNNING
ENDED, DROPPED = AttemptState.ENDED, AttemptState.DROPPED
CANCELLING, CANCELLED = AttemptState.CANCELLING, AttemptState.CANCELLED

NEXT_STATES: dict[AttemptState, tuple[AttemptState, ...]] = {
    FETCHED: (STARTING, DROPPED),
    # It ends without having run when it has expired, is put aside, or cannot be run.
    STARTING: (RUNNING, ENDED, CANCELLING),
    # Back to the start: the process that was given the job turns out to have been dead.
    RUNNING: (STARTING, ENDED, CANCELLING),
    ENDED: (),
    DROPPED: (CANCELLED,),
    CANCELLING: (CANCELLED,),
    CANCELLED: (),
}

_UNWANTED = (CANCELLING, CANCELLED, DROPPED)

_first_step_of_body = threading.Lock()
"""Held while an attempt leaves `STARTING`, if its body may begin in a thread: that thread writes `RUNNING`
while the loop writes `CANCELLING` or `ENDED`. There is one lock for all attempts, for it is held for no
longer than it takes to write."""


class Claim:
    """What the worker and the runner tell each other about one job: how far it is, and how to end it.

    On the loop, except for `begin`, which a body in a thread calls on its own thread.
    """

    __slots__ = ("in_thread", "interrupt", "is_late", "revoked", "started", "state", "threads")

    def __init__(self) -> None:
        self.state: AttemptState = STARTING
        self.revoked: bool = False
        self.started: int | None = None
        self.interrupt: Callable[[str], None] | None = None
        """Tells the process in which it runs of the mark of a revocation; None if it runs here."""
        self.threads: Slots | None = None  # where the body's thread or process is counted, while it is
        self.in_thread: bool = False
        """Whether its body is in a thread now, or about to be."""
        self.is_late: bool = False
        """Whether its time limit is over."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The worker's; without one, that of whoever asks, if there is one."""
        return running_loop()

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """The body begins to wait for another job. Outside a worker it holds no slot."""

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """That wait is over."""

    def release_executor_slot(self) -> None:
        """Gives back the thread or process that is counted for it, if one is."""
        threads, self.threads = self.threads, None
        if threads is not None:
            threads.give()

    def skip_reacquire(self) -> None:
        """The body is about to be cancelled: its waits must not reacquire a slot."""

    def overdue(self, error: TimeLimitExceeded) -> None:
        """The body goes on after its time limit: it has let the cancellation go by, or it is in a thread.
        Nobody waits for a job that runs here and now but its own caller.
        """

    @property
    def wanted(self) -> bool:
        """False once it is to end now: it was terminated, or its worker stops or has lost it."""
        return self.state not in _UNWANTED

    def begin(self) -> bool:
        """A body in a thread is about to begin; False if it must not."""
        # A revocation may come at this moment, on the loop. Whichever of the two is first decides: the body
        # begins and the revocation meets a running job, or the body does not begin.
        with _first_step_of_body:
            if self.state is not STARTING:
                return False
            self.state = RUNNING
            return True

    def move(self, state: AttemptState, *origins: AttemptState) -> AttemptState:
        """Moves to a state if it is in one of the origins now, and gives the state before. What `begin` is on
        the body's thread, this is on the loop.
        """
        with _first_step_of_body:
            before = self.state
            if before in origins:
                self.state = state
            return before

    def sink(self, codec: ValueCodec) -> ItemSink:
        """Where the items of a generator go; who makes claims says where."""
        raise NotImplementedError

    @property
    def loop_owner(self) -> LoopOwner:
        """The app that runs it; who makes claims says which."""
        raise NotImplementedError

    async def report(self, state: str, meta: Any) -> None:  # noqa: ARG002  nobody follows a job that runs here
        """The job says of itself what it is at; see `Context.update_state`."""
        PLAIN_VALUE.dumps(meta, path="meta")  # what could not travel from a worker is refused here, too


class Stopped(AsyncQError):
    """A task called `sys.exit()` or raised `KeyboardInterrupt` in its thread."""


async def until_thread(claim: Claim, threads: Slots, deadline: int | None) -> None:
    """Waits until there is a thread for a body, and takes it. `in_thread` gives it back.

    This is not a part of `in_thread`, because the time limit of a body counts from its beginning.

    Args:
        claim: of the job.
        threads: from which it takes.
        deadline: of the job, in ms since the epoch.

    Raises:
        TimeLimitExceeded: the deadline passed first.
    """
    if claim.threads is not None:
        return  # its worker has fetched the job for a thread that was free
    if deadline is None:
        await threads.take()
    else:
        try:
            async with asyncio.timeout(deadline / 1000 - time.time()):
                await threads.take()
        except TimeoutError:
            raise TimeLimitExceeded("no thread was free for the job before its deadline") from None
    claim.threads = threads


async def in_thread(function: Callable[..., Any], args: Any, kwargs: dict[str, Any], claim: Claim) -> Any:
    """Runs a plain function in a thread, which the job has taken, in the context of the job. Cancelled, it
    leaves the thread to itself.
    """
    call = partial(unstoppable, function, args, kwargs, claim)
    claim.in_thread = True
    try:
        return await anyio.to_thread.run_sync(call, limiter=_unlimited(), abandon_on_cancel=True)
    except asyncio.CancelledError as error:
        raise error.with_traceback(None) from None  # where anyio waits for a thread is no news to anybody
    except Exception as error:
        # Not by assignment, which a frozen dataclass refuses.
        BaseException.with_traceback(error, _of_function(error.__traceback__))
        raise
    finally:
        claim.in_thread = False
        claim.release_executor_slot()


@functools.cache
def _unlimited() -> anyio.CapacityLimiter:
    """The count is ours and not anyio's, for a body that waits for another job gives its place back."""
    return anyio.CapacityLimiter(math.inf)


def _of_function(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The part of a traceback that is the task's own: how its thread was come by is no news to its author."""
    below = trace
    while below is not None and below.tb_frame.f_code is not unstoppable.__code__:
        below = below.tb_next
    return trace if below is None or below.tb_next is None else below.tb_next


def unstoppable(function: Callable[..., Any], args: Any, kwargs: dict[str, Any], claim: Claim) -> Any:
    """Calls the function on its thread. A `SystemExit` there would end the thread and release_slot the job
    hanging.
    """
    if not claim.begin():
        return None  # revoked while it waited for a thread; the outcome stands already
    try:
        return function(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise Stopped(f"the task raised {type(error).__name__}({error})") from error
    except StopIteration as error:
        # A StopIteration cannot be set on a future; asyncio would raise a TypeError instead.
        raise RuntimeError(f"the task raised StopIteration({error})") from error


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long an attempt may still take.

    Attributes:
        seconds: from now on.
        timeout: of the task or the call; None where it is the deadline that is nearer.
    """

    seconds: float
    timeout: float | None

    def exceeded(self) -> TimeLimitExceeded:
        """What is raised when the time is over."""
        if self.timeout is None:
            return TimeLimitExceeded("the task did not end before its deadline")
        return TimeLimitExceeded(f"the task ran longer than its timeout of {shown(self.timeout)}")


def time_limit(timeout: float | None, job: wire.Job) -> TimeLimit | None:
    """The limit of a job whose task has that timeout; None if there is none."""
    if job.timeout is not None:
        timeout = job.timeout / 1000
    left = None if job.deadline is None else job.deadline / 1000 - time.time()
    if left is not None and (timeout is None or left < timeout):
        return TimeLimit(left, None)
    return None if timeout is None else TimeLimit(timeout, timeout)


async def within(
    body: Coroutine[Any, Any, Any], claim: Claim, limit: TimeLimit | None, soft_timeout: float | None
) -> Any:
    """Runs a body under time limits, in the task of its job.

    Args:
        body: what to run.
        claim: a cancellation that the worker asked for is told from one that the limit caused.
        limit: after which it is cancelled.
        soft_timeout: seconds after which `SoftTimeLimitExceeded` is raised inside it, at the place where it
            waits.

    Raises:
        TimeLimitExceeded: it ran longer than the limit, whatever it made of the cancellation. Raised when it
            has ended; `claim.overdue` is called before, if that takes its time.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    limits = _Limits(task, claim, limit)
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
        if not limits.stopped or not claim.wanted:
            raise
        error = raised
    finally:
        for timer in (*timers, limits.timer):
            if timer is not None:
                timer.cancel()
    if limits.stopped and claim.wanted:
        task.uncancel()
        assert limit is not None
        if isinstance(error, asyncio.CancelledError):
            # The cancellation is our own doing and no news; where it reached the body is.
            raise limit.exceeded().with_traceback(error.__traceback__) from None
        raise limit.exceeded() from error
    return value


class _SoftCancellation(SoftTimeLimitExceeded, asyncio.CancelledError):
    """What a body gets where it waits, at its soft limit: the error that it may catch, and for everything
    between the body and its wait the cancellation that it is. A task group ends its children by it,
    `wait_for` its task, and a lock gives its turn to the next; an error of any other class leaves all of them
    as they are. It is raised inside the body only.
    """

    __module__ = SoftTimeLimitExceeded.__module__
    __qualname__ = SoftTimeLimitExceeded.__qualname__

    def plain(self) -> SoftTimeLimitExceeded:
        """Makes what whoever waits for the job gets: nothing of ours that travels is a cancellation."""
        error = SoftTimeLimitExceeded(*self.args).with_traceback(self.__traceback__)
        error.__dict__.update(self.__dict__)  # its notes
        error.__cause__, error.__context__ = self.__cause__, self.__context__
        error.__suppress_context__ = self.__suppress_context__
        return error


_SoftCancellation.__name__ = SoftTimeLimitExceeded.__name__


class _Limits:
    """The time limits of one running body."""

    def __init__(self, task: asyncio.Task[Any], claim: Claim, limit: TimeLimit | None) -> None:
        self._task = task
        self._claim = claim
        self._limit = limit
        self.timer: asyncio.TimerHandle | None = None
        self._injected: Exception | None = None
        self.stopped = False

    def stop(self) -> None:
        """The hard limit: cancels, or waits for the end of a thread."""
        claim = self._claim
        self.stopped = claim.is_late = True
        claim.skip_reacquire()
        # A thread that is about to begin must not, if the job is told to have ended. The move decides.
        if claim.in_thread and claim.move(ENDED, STARTING) is not STARTING:
            self._overdue()
            return
        self._task.cancel()
        self.timer = asyncio.get_running_loop().call_later(CLEAN_UP, self._overdue)

    def _overdue(self) -> None:
        assert self._limit is not None
        self._claim.overdue(self._limit.exceeded())

    def soften(self, limit: float) -> None:
        """The soft limit: cancels, too, but what reaches the body is `SoftTimeLimitExceeded`."""
        self._injected = _SoftCancellation(f"the task ran longer than its soft_timeout of {shown(limit)}")
        self._task.cancel()

    @types.coroutine
    def driven(self, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Runs the body step by step, as `await` would, so that an exception of our own can be thrown into
        it.
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
            except BaseException as error:  # noqa: BLE001 - it is the body's to handle
                step = partial(body.throw, error)
        raise plain  # out here, where the cancellation is not its context
