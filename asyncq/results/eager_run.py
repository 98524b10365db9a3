"""Runs tasks here and now, without a queue or a server: what `task.apply(...)` does.

A call goes through the same codecs, the same runner, and the same encoding of failures as on a worker, so
that a test does not pass with what production refuses. Three things are left out: the server, the thread (a
plain function runs on the caller's own, for a test's database connection belongs to that thread), and the
pauses between retries.

A coroutine function runs on an event loop of its own, so the caller's thread must have none that runs. If the
app has middleware, the loop of a plain function's call runs on another thread, see `caller_thread`.
`run_all_on_loop` is for a thread whose loop runs: coroutines run on that loop, and plain functions in
threads, as in a worker.
"""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq import wire
from asyncq.errors import SyncInAsyncContext
from asyncq.execution import callables, executors, generators
from asyncq.execution.injector import Injector
from asyncq.execution.run_results import Finish, Replace, Requeue
from asyncq.execution.runner import Runner
from asyncq.execution.slots import Slots
from asyncq.results.caller_thread import CallerThread
from asyncq.results.eager import EagerResult, eager_result
from asyncq.sync_bridge import INLINE, driven, refuse_in_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from asyncq.client.application import App, Returning, Runnable
    from asyncq.execution.executors import JobControl
    from asyncq.execution.job_thread import PlainCalls
    from asyncq.execution.task_body import TaskBody
    from asyncq.serializers import ValueCodec
    from asyncq.sync_bridge import LoopOwner

R = TypeVar("R")
T = TypeVar("T")

EndedAs = tuple[str, bytes]
"""How a job ended: the letter of its record, and the encoded outcome."""


def run(task: Returning[R], job: wire.Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> EagerResult[R]:
    """Runs a job here and now, with its retries, in a context of its own.

    A coroutine function gets an event loop of its own. A plain function runs on this thread, without time
    limits.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C, which is meant for the caller and not for the job.
    """
    items = generators.CollectedItems()
    ended = wire.decode_ended(*_ended(task, job, b"", items))
    return eager_result(task, job, ended, items, args, kwargs)


def run_all(
    jobs: Sequence[tuple[wire.Job, bytes]], app: App
) -> tuple[dict[str, EndedAs], dict[str, generators.CollectedItems]]:
    """Runs the jobs of a workflow here and now, one after the other; raises as `run`.

    Args:
        jobs: the jobs with their messages, parents before children.
        app: the app that knows their tasks.

    Returns:
        How each job ended, by its id, and what each yielded.
    """
    run = _LocalRun()
    for job, message in jobs:
        values = run.values(job)
        if values is not None:
            task, arrived = app.task_named(job.name), wire.decode_job(job.id, job.queue, message)
            run.add(job, _ended(task, arrived, values, run.items(job)))
    return run.ended, run.yielded


async def run_all_on_loop(
    jobs: Sequence[tuple[wire.Job, bytes]], app: App
) -> tuple[dict[str, EndedAs], dict[str, generators.CollectedItems]]:
    """Runs jobs as `run_all` does, on the event loop that runs on this thread. Each job has an asyncio task
    of its own, with a copy of the caller's context variables. Time limits hold.

    If the call is cancelled, so is the body that runs.
    """
    run = _LocalRun()
    for job, message in jobs:
        values = run.values(job)
        if values is not None:
            task, arrived = app.task_named(job.name), wire.decode_job(job.id, job.queue, message)
            run.add(job, await _ended_on_loop(task, arrived, values, run.items(job)))
    return run.ended, run.yielded


class _LocalRun:
    """What became of the jobs of a workflow so far."""

    def __init__(self) -> None:
        self.ended: dict[str, EndedAs] = {}
        self.yielded: dict[str, generators.CollectedItems] = {}
        self._failed: set[str] = set()  # the jobs that ran: error callbacks of others are not called

    def values(self, job: wire.Job) -> bytes | None:
        """Returns the values that a job waited for; None if it has ended now, because one is missing."""
        found = _values_of_failed(job, self.ended, self._failed) if job.on_error else _values(job, self.ended)
        if isinstance(found, bytes):
            return found
        self.ended[job.id] = found
        return None

    def items(self, job: wire.Job) -> generators.CollectedItems:
        """Returns the list for what a job yields."""
        return self.yielded.setdefault(job.id, generators.CollectedItems())

    def add(self, job: wire.Job, ended_as: EndedAs) -> None:
        """Notes how a job ended that ran."""
        self.ended[job.id] = ended_as
        if ended_as[0] == wire.FAILED:
            self._failed.add(job.id)


def _values(job: wire.Job, ended: dict[str, EndedAs]) -> bytes | EndedAs:
    """Returns what the parents of a job returned; or how the job ends because one of them returned
    nothing.
    """
    for parent in job.parents:
        letter, outcome = ended[parent]
        if letter != wire.SUCCEEDED:
            return letter, _kept_for_child(parent, outcome)
    return b"".join(wire.frame(parent, *ended[parent]) for parent in job.parents)


def _values_of_failed(job: wire.Job, ended: dict[str, EndedAs], failed: set[str]) -> bytes | EndedAs:
    """Returns how the job failed that an error callback waited for; or how the callback ends because none
    did.
    """
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
    runner.hooks = task.app.run_hooks
    run = _until_ended(runner, job, values, items)
    if task.injection is not None:
        runner.injector = Injector(task.app.overrides, contextvars.copy_context())
        run = _until_closed(run, runner.injector)
    if task.is_coroutine:
        ended_as = asyncio.run(_unless_cancelled(run))
    elif runner.hooks or task.injection is not None:
        runner.caller = CallerThread()
        ended_as = runner.caller.run(run)
    else:
        ended_as = contextvars.copy_context().run(driven, run)
    if runner.interrupt is not None:
        raise runner.interrupt
    if isinstance(ended_as, Replace):
        outcomes, yielded = run_all(ended_as.jobs, task.app)
        items[:] = yielded.get(job.id, ())
        return outcomes[job.id]
    return ended_as.letter, ended_as.outcome


async def _ended_on_loop(
    task: Runnable, job: wire.Job, values: bytes, items: generators.CollectedItems
) -> EndedAs:
    # Not `_EagerRunner`: a plain function must not block this loop, nor find it running on its thread.
    runner = Runner({job.name: task}, "eager", Slots(1), task.app.settings.max_payload)
    runner.hooks = task.app.run_hooks
    run = _until_ended(runner, job, values, items)
    if task.injection is not None:
        runner.injector = Injector(task.app.overrides, contextvars.copy_context())
        run = _until_closed(run, runner.injector)
    ended_as = await _unless_cancelled(asyncio.create_task(run))
    if isinstance(ended_as, Replace):
        outcomes, yielded = await run_all_on_loop(ended_as.jobs, task.app)
        items[:] = yielded.get(job.id, ())
        return outcomes[job.id]
    return ended_as.letter, ended_as.outcome


class _EagerControl(executors.JobControl):
    """Drops what the job reports, for nobody follows a job that runs here, and keeps what it yields."""

    __slots__ = ("items",)

    def __init__(self, items: generators.CollectedItems) -> None:
        super().__init__()
        self.items = items

    def sink(self, codec: ValueCodec) -> generators.ItemSink:
        """Keeps the items. Another attempt yields them again, so the list begins anew."""
        self.items.clear()
        self.items.codec = codec
        return self.items

    @property
    def loop_owner(self) -> LoopOwner:
        """Runs coroutines where they are: none of them waits."""
        return INLINE


class _EagerRunner(Runner):
    """Runs plain functions on the caller's thread."""

    interrupt: KeyboardInterrupt | SyncInAsyncContext | None = None
    caller: CallerThread | None = None
    """The caller's thread, if the runner itself runs on another one."""

    async def _body(
        self, task: TaskBody, job: wire.Job, args: list[Any], kwargs: dict[str, Any], control: JobControl
    ) -> Any:
        if task.is_coroutine or task.injection is not None:
            return await super()._body(task, job, args, kwargs, control)

        def body() -> Any:
            try:
                if task.is_generator:
                    return generators.run_inline(task.function(*args, **kwargs), control.sink(task.items))
                value = task.function(*args, **kwargs)
                return self._finished(task, value) if callables.is_unfinished(value) else value
            except KeyboardInterrupt as error:
                self.interrupt = error
                raise

        if self.caller is not None:
            return await self.caller.call(partial(executors.unstoppable, body, (), {}, control))
        return executors.unstoppable(body, (), {}, control)

    async def _until_thread(self, control: JobControl, job: wire.Job) -> None:
        """Returns at once: the caller's thread is free."""

    async def _in_time(
        self, task: TaskBody, job: wire.Job, body: Coroutine[Any, Any, Any], control: JobControl
    ) -> Any:
        """Runs a body under its time limits. A plain function has none here."""
        return await (super()._in_time(task, job, body, control) if task.is_coroutine else body)

    def _plain_calls(self, task: TaskBody, control: JobControl) -> PlainCalls:
        if task.is_coroutine:
            return super()._plain_calls(task, control)
        assert self.caller is not None, (
            "a plain function has dependencies, so a loop of another thread runs this"
        )
        return _CallerCalls(self, self.caller)

    def _finished(self, task: TaskBody, value: Any) -> Any:
        """Runs the coroutine that a plain function returned, on an event loop of its own."""
        try:
            refuse_in_loop(f"{task.name}.apply()", "await task(...)")
        except SyncInAsyncContext as error:
            value.close()
            self.interrupt = error
            raise
        return asyncio.run(callables.finished(value))


class _CallerCalls:
    """Makes the calls of plain functions on the caller's thread."""

    def __init__(self, runner: _EagerRunner, caller: CallerThread) -> None:
        self._runner = runner
        self._caller = caller

    async def call(self, function: Callable[[], T]) -> T:
        """Calls a function. Ctrl-C in it is meant for the caller."""

        def here() -> T:
            try:
                return function()
            except KeyboardInterrupt as error:
                self._runner.interrupt = error
                raise

        value: T = await self._caller.call(partial(executors.guarded, here, (), {}))
        return value

    def close(self) -> None:
        """Does nothing: the thread is the caller's."""


async def _until_ended(
    runner: Runner, job: wire.Job, values: bytes, items: generators.CollectedItems
) -> Finish | Replace:
    """Runs the job, and again at once as often as its retry policy allows, without the pauses."""
    retries, last = 0, b""
    while True:
        delivery = wire.Delivery("", job.queue, 0, retries, job, values, last=last)
        control = _EagerControl(items)
        try:
            run_result = await runner.run(delivery, control)
        finally:
            control.release_executor_slot()  # else the next attempt would wait for it for ever
        if not isinstance(run_result, Requeue):
            return run_result
        retries, last = run_result.retries, run_result.last


async def _until_closed(run: Coroutine[Any, Any, T], injector: Injector) -> T:
    """Runs a job, and cleans up what would be shared by the jobs of a worker."""
    try:
        return await run
    finally:
        await injector.close()


async def _unless_cancelled(run: Awaitable[T]) -> T:
    """Raises the cancellation that Ctrl-C is for a loop: the runner takes it for a failure of the job."""
    finish = await run
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return finish
