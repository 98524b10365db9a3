"""Calls the outcome hooks of an app when the server has stored how a job ended. Runs on the worker's loop.

`broker.claims` says how each claim ended, and whether that counted. Each hook runs in a background task, so
it holds up no job. The tasks outlive a worker session, and a worker that stops waits for them. While
`MOST_HOOKS` of them run, the worker reads no more jobs: otherwise slow hooks would fill its memory.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from functools import partial
from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.claims import Way
from asyncq.config import shown
from asyncq.middleware.job_event import JobEvent
from asyncq.outcome import Outcome
from asyncq.serializers import PLAIN_VALUE
from asyncq.states import State
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.app import AsyncQ
    from asyncq.broker.claims import ClaimEnd, Claims
    from asyncq.middleware.outcome_hooks import OutcomeHook
    from asyncq.worker.held_jobs import HeldJobs

log: logging.Logger = logging.getLogger(__name__)

HOOK_TIMEOUT = 60.0
"""Seconds that a hook may take."""
LAST_HOOKS = 0.5
"""Seconds, at least, that a worker which stops leaves its hooks."""
MOST_NAMED = 10


class OutcomeEvents:
    """Calls the hooks for the jobs of one worker.

    Args:
        app: the app, which has the hooks.
        worker: the name of the worker.
    """

    def __init__(self, app: AsyncQ, worker: str) -> None:
        self._app = app
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        # Each hook runs in a copy: it belongs to no job, and what it starts is nobody's child.
        self._context = contextvars.copy_context()
        self._running: dict[asyncio.Task[None], str] = {}

    def follow(self, claims: Claims, held: HeldJobs) -> Callable[[], None]:
        """Calls the hooks for the claims of a session from now on, as soon as the app has any. Returns a
        function that ends this.
        """

        def start() -> None:
            claims.hooks.append(partial(self._on_end, held))

        hooks = self._app.outcome_hooks
        hooks.call_when_any(start)
        return partial(hooks.forget, start)

    def _on_end(self, held: HeldJobs, end: ClaimEnd) -> None:
        event = self._event(held, end)
        if event is None:
            return
        for hook in self._app.outcome_hooks.of(event.state):
            task = self._loop.create_task(self._call(hook, event), context=self._context.copy())
            self._running[task] = f"{_name(hook)} of job {event.id!r}"
            held.hooks += 1
            task.add_done_callback(partial(self._ended, held))

    def _ended(self, held: HeldJobs, task: asyncio.Task[None]) -> None:
        del self._running[task]
        held.hooks -= 1
        held.changed.set()

    async def _call(self, hook: OutcomeHook, event: JobEvent) -> None:
        extra = {"job_id": event.id, "task": event.task, "queue": event.queue, "worker": self._worker}
        limit = asyncio.timeout(HOOK_TIMEOUT)
        try:
            async with limit:
                await hook(event)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                log.error(
                    "the hook %s did not end within %s and was cancelled (job %r of task %r)",
                    *(_name(hook), shown(HOOK_TIMEOUT), event.id, event.task),
                    extra=extra,
                )
            else:
                log.exception(
                    "the hook %s failed (job %r of task %r); this changes nothing for the job",
                    *(_name(hook), event.id, event.task),
                    extra=extra,
                )

    async def finish(self, until: float, at_once: asyncio.Event) -> None:
        """Waits for the hooks that run, and cancels those that are late.

        Args:
            until: when the grace of the worker is over, by the clock of the loop.
            at_once: set when the worker must not wait.
        """
        if not self._running:
            return
        timeout = until - self._loop.time()
        ends = asyncio.ensure_future(asyncio.wait(list(self._running)))
        waits = {ends, asyncio.ensure_future(at_once.wait())}
        await asyncio.wait(waits, timeout=max(timeout, LAST_HOOKS), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        late = list(self._running.items())
        if late:
            names = ", ".join(name for _, name in late[:MOST_NAMED])
            more = f" and {len(late) - MOST_NAMED} more" if len(late) > MOST_NAMED else ""
            log.warning(
                "these hooks did not end before their worker did, and were cancelled: %s%s", names, more
            )
            for task, _ in late:
                task.cancel()
            await asyncio.wait([task for task, _ in late], timeout=LAST_HOOKS)

    # -- what ended --

    def _event(self, held: HeldJobs, end: ClaimEnd) -> JobEvent | None:
        """Returns the event of the end of a claim, or None if no hook is to be called for it."""
        if not end.answer:
            return None  # refused: the outcome of another worker counts
        if end.outcome and end.way is not Way.RETRIED:
            ended = wire.decode_ended(end.letter, end.outcome)
            has_started = ended.started is not None
        else:
            job = held.jobs.get((end.entry, end.id))
            has_started = job is not None and job.started is not None
            ended = _ended_now(end, None if job is None else job.started, self._worker)
            if job is not None and end.delivery is None:
                end = end._replace(delivery=job.delivery)
        state = _state(end, ended, has_started=has_started)
        if state is None or not self._app.outcome_hooks.of(state):
            return None
        return self._made(end, ended, state)

    def _made(self, end: ClaimEnd, ended: wire.Ended, state: State) -> JobEvent:
        delivery = end.delivery
        name = end.task if delivery is None else delivery.job.name
        task = self._app.find_task(name)
        codec = PLAIN_VALUE if task is None else task.returns
        duration = None
        if ended.started is not None and ended.finished is not None:
            duration = max(0.0, (ended.finished - ended.started) / 1000)
        return JobEvent(
            end.id,
            name,
            ended.queue if delivery is None else delivery.job.queue,
            ended.attempts if delivery is None else delivery.attempt,
            state,
            duration,
            ended.worker,
            {} if delivery is None else delivery.job.headers or {},
            Outcome(end.id, ended, codec),
        )


def _ended_now(end: ClaimEnd, started: int | None, worker: str) -> wire.Ended:
    """Returns the end of an attempt of which no outcome was made here: it is tried again, or the server has
    ended the job by a revocation signal.
    """
    letter = wire.FAILED if end.way is Way.RETRIED and end.answer == 1 else wire.REVOKED
    payload = end.outcome if letter == wire.FAILED else b""
    return wire.Ended(letter, payload, started, int(clock.now() * 1000), worker=worker)


def _state(end: ClaimEnd, ended: wire.Ended, *, has_started: bool) -> State | None:
    """Returns the state for whose hooks the end of a claim counts, or None."""
    if end.way in _ENDS:
        if ended.letter in {wire.REVOKED, wire.EXPIRED} and not has_started:
            return None
        return ended.state
    if end.way is Way.RETRIED and end.answer == 1:
        return State.RETRY
    # 2: the server has found a revocation signal, and ended the job.
    was_revoked = end.answer == 2 and end.way in {Way.RETRIED, Way.REPLACED, Way.RELEASED}
    return State.REVOKED if was_revoked and has_started else None


_ENDS = {Way.FINISHED, Way.DEAD, Way.LOST}


def _name(hook: OutcomeHook) -> str:
    return getattr(hook, "__qualname__", repr(hook))
