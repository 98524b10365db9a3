"""Runs one delivered job: a delivery in, a run result out. Every body runs here.

The worker calls `Runner.run` in the asyncio task of the job, on its loop. A child process calls it on its
main thread, and `results.eager` where the call is made. Nothing here knows Redis. The body runs in a context
of its own, in which `current()` is the job and waits for other jobs are denied. Whatever the body raises
becomes an outcome, also `SystemExit` and `KeyboardInterrupt`: a task must not be able to end its worker. Only
a cancellation that the worker itself asked for goes through. What surrounds every body, the middleware of the
app, is in `Runner.hooks`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from asyncq import failures, wire
from asyncq.context import Context, Replaced, current_job, joining
from asyncq.errors import (
    DecodeError,
    NotRegistered,
    PayloadTooLarge,
    RetryLater,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLost,
)
from asyncq.execution import callables, executors, generators, parent_results, retry
from asyncq.execution.executors import RUNNING, STARTING
from asyncq.execution.injected_body import InjectedBody
from asyncq.execution.job_thread import JobThread
from asyncq.execution.process_body import ProcessBody
from asyncq.execution.run_results import Finish, Replace, Requeue, Unknown
from asyncq.middleware import run_chain
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from asyncq.dependencies.injection import Injection
    from asyncq.execution.executors import JobControl
    from asyncq.execution.injector import Injector
    from asyncq.execution.job_thread import PlainCalls
    from asyncq.execution.slots import Slots
    from asyncq.execution.task_body import TaskBody
    from asyncq.middleware.run_chain import RunHook


class Processes(Protocol):
    """Runs jobs in child processes, where another runner makes the run result."""

    async def run(
        self, task: TaskBody, delivery: wire.Delivery, control: JobControl, children: list[str]
    ) -> Finish | Requeue | Replace:
        """Returns the run result of the runner in the process.

        `children` gets the id of each job that the body starts.

        Raises:
            TimeLimitExceeded: the process was killed because of the time limit.
            WorkerLost: the process died, or none could be started.
        """
        ...


RETRIES_USED_UP = "retries used up"
"""Why a job that failed after retries is kept as a dead letter."""


class Runner:
    """Runs jobs for one worker.

    Args:
        tasks: the tasks by name. A task is looked up and never imported.
        worker: the worker's name, as outcomes show it.
        threads: how many plain functions may run at the same time.
        max_payload: the size of the largest encoded result, in bytes.
        processes: runs tasks with `executor="process"`; None runs them here.
        extended: whether outcomes carry the arguments of their calls.

    Attributes:
        hooks: called around each body, the first of them outermost. An empty list costs one truth test. The
            runner of a child process has none: its worker calls them, around the whole run in the process.
        lifespan_state: what the lifespan of the app has yielded in this worker.
        injector: makes the instances of dependencies. Only tasks that have some need it.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskBody],
        worker: str,
        threads: Slots,
        max_payload: int,
        processes: Processes | None = None,
        *,
        extended: bool = False,
    ) -> None:
        self._tasks = tasks
        self._worker = worker
        self._threads = threads
        self._max_payload = max_payload
        self._processes = processes
        self._extended = extended
        self.hooks: list[RunHook] = []
        self.lifespan_state: Any = None
        self.injector: Injector | None = None

    def _derived(self, name: str) -> TaskBody | None:
        """Returns a task that is not registered by itself, see `Registry`, or None."""
        try:
            return self._tasks[name]
        except KeyError:
            return None

    async def run(  # noqa: PLR0911 - one return for each way a job can go, main path last
        self, delivery: wire.Delivery, control: JobControl
    ) -> Finish | Requeue | Replace:
        """Runs the job, and returns what is to become of it.

        Args:
            delivery: the delivery of the job.
            control: says whether the worker still wants the outcome. If not, `CancelledError` goes through.
        """
        job = delivery.job
        started = control.started = _now()
        if (job.expires is not None or job.deadline is not None) and _is_late(job, started):
            return self._too_late(delivery)
        task = self._tasks.get(job.name) or self._derived(job.name)
        if task is None:
            error = NotRegistered(_unknown(job.name, self._tasks))
            return Unknown(wire.FAILED, self._failed(delivery, error, started), "not registered", error)
        if task.executor == "process" and self._processes is not None:
            return await self._in_process(task, delivery, control, self._processes)
        try:
            if job.value_template is None:
                args, kwargs = task.arguments.loads(job.body)
            else:
                args, kwargs = parent_results.arguments(task.arguments, job, delivery.values)
            policy = task.retry if job.retry is None else retry.from_wire(job.retry)
        except Exception as error:  # noqa: BLE001 - anybody may have written the bytes; classes are the user's
            # A worker of another release may be able to read them, so the retry policy covers this failure,
            # too.
            return self._without_body(task, delivery, error, started)
        self._enter(task, delivery, args, kwargs, policy, control)
        try:
            body = self._body(task, job, args, kwargs, control)
            value = await (self._within_hooks(body) if self.hooks else body)
        except asyncio.CancelledError as error:
            if not control.is_wanted:
                raise
            return self._finish_failed(delivery, error, started)
        except BaseException as raised:  # noqa: BLE001 - the task's own, see the module's docstring
            return self._after_error(delivery, policy, raised, started)
        return self._after_success(task, delivery, value, started)

    def _after_error(
        self,
        delivery: wire.Delivery,
        policy: retry.Retry | retry.RemoteRetry | None,
        raised: BaseException,
        started: int,
    ) -> Finish | Requeue | Replace:
        """Returns what becomes of a job whose body has raised something."""
        meant = _control_flow(raised)
        if isinstance(meant, Replaced):
            return Replace(meant.jobs)
        if isinstance(meant, Exception):
            return self._after_failure(delivery, policy, meant, started)
        return self._finish_failed(delivery, meant, started)

    async def _within_hooks(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Runs a body inside of all hooks. If a hook does not call the next one, the body does not run."""
        context = current_job.get()
        assert context is not None, "`_enter` has set it"
        try:
            return await run_chain.run(self.hooks, context, lambda: body)
        finally:
            body.close()

    def _enter(
        self,
        task: TaskBody,
        delivery: wire.Delivery,
        args: list[Any],
        kwargs: dict[str, Any],
        policy: retry.Retry | retry.RemoteRetry | None,
        control: JobControl,
    ) -> None:
        """Makes the current asyncio task the job's: sets `current()`, and denies waits for other jobs."""
        job = delivery.job
        current_job.set(
            Context(
                job.id,
                job.name,
                tuple(args),
                kwargs,
                job.queue,
                delivery.attempt,
                job.parent_id,
                job.root_id or job.id,
                job.headers or _NO_HEADERS,
                self._worker,
                policy.max_retries if policy is not None else 0,
                job.deadline,
                list(job.dependents),
                control,
                task.app,
                job,
                delivery.entry,
            )
        )
        joining.set(False)

    async def _body(
        self, task: TaskBody, job: wire.Job, args: list[Any], kwargs: dict[str, Any], control: JobControl
    ) -> Any:
        """Runs the body, on the loop or in a thread, under its time limits."""
        if task.is_composed:
            if task.injection is not None:
                return await self._injected(task, task.injection, job, args, kwargs, control)
            return await self._yielded(task, job, args, kwargs, control)
        if task.is_coroutine:
            control.state = RUNNING
            body = task.function(*args, **kwargs)
        else:
            # Before the time limit begins: the limit counts from the beginning of the body.
            await executors.until_thread(control, self._threads, job.deadline)
            body = executors.in_thread(task.function, args, kwargs, control)
        if _has_time_limit(task, job):
            return await self._in_time(task, job, callables.awaited(body), control)
        value = await body
        return await callables.finished(value) if callables.is_unfinished(value) else value

    async def _yielded(
        self, task: TaskBody, job: wire.Job, args: list[Any], kwargs: dict[str, Any], control: JobControl
    ) -> None:
        """Runs a generator to its end. The server has all of its items before the job's end is reported."""
        sink = control.sink(task.items)
        try:
            if task.is_coroutine:
                control.state = RUNNING
                body = generators.on_loop(task.function(*args, **kwargs), sink)
            else:
                await executors.until_thread(control, self._threads, job.deadline)
                drive = generators.in_thread(task.function, control, sink)
                body = executors.in_thread(drive, args, kwargs, control)
            if _has_time_limit(task, job):
                await self._in_time(task, job, body, control)
            else:
                await body
        finally:
            try:
                if control.is_wanted:
                    await sink.close()
            finally:
                sink.drop()

    async def _injected(
        self,
        task: TaskBody,
        injection: Injection,
        job: wire.Job,
        args: list[Any],
        kwargs: dict[str, Any],
        control: JobControl,
    ) -> Any:
        """Runs the body with the instances of its dependencies. The time limits are for the set-up and the
        body, and not for the clean-up, which has a limit of its own.
        """
        injector = self.injector
        assert injector is not None, "whoever runs tasks with dependencies sets it"
        if not task.is_coroutine:
            await self._until_thread(control, job)
        if control.move(RUNNING, STARTING) is not STARTING:
            raise asyncio.CancelledError
        calls = self._plain_calls(task, control)
        instances = injector.instances(calls, control)
        body = InjectedBody(task, injection, instances, calls, control)
        error: BaseException | None = None
        value: Any = None
        try:
            run = body.run(args, kwargs)
            value = await (self._in_time(task, job, run, control) if _has_time_limit(task, job) else run)
        except BaseException as raised:  # noqa: BLE001 - raised again when all is cleaned up
            error = raised
        if not control.is_wanted and (error is None or isinstance(error, asyncio.CancelledError)):
            # A thread has ended well, or a wait for it was over. The outcome of the job is stored already.
            error = _end_of_unwanted(control, error)
        control.cleaning_up(True)
        try:
            # A workflow that takes the job's place is no failure: what was written is to stay.
            is_failure = error is not None and not isinstance(_control_flow(error), Replaced)
            raised_instead = await instances.clean_up(error if is_failure else None)
        finally:
            calls.close()
            control.cleaning_up(False)
        error = raised_instead or error
        if error is None:
            return value
        try:
            raise error
        finally:
            del error, raised_instead  # the traceback refers to this frame: this would be a cycle

    async def _until_thread(self, control: JobControl, job: wire.Job) -> None:
        """Waits until a thread is free for the body."""
        await executors.until_thread(control, self._threads, job.deadline)

    def _plain_calls(self, task: TaskBody, control: JobControl) -> PlainCalls:  # noqa: ARG002 - `apply` asks for the task
        """Returns what makes the calls of plain functions around a job."""
        return JobThread(control)

    async def _in_time(
        self, task: TaskBody, job: wire.Job, body: Coroutine[Any, Any, Any], control: JobControl
    ) -> Any:
        """Runs a body under the time limits of its task and its call."""
        return await executors.within(
            body, control, executors.time_limit(task.timeout, job), task.soft_timeout
        )

    async def _in_process(
        self, task: TaskBody, delivery: wire.Delivery, control: JobControl, processes: Processes
    ) -> Finish | Requeue | Replace:
        """Lets a runner in another process run the job, inside of the hooks."""
        run = partial(self._until_process_ends, task, delivery, control, processes)
        if not self.hooks:
            self._enter(task, delivery, [], {}, None, control)
            return await run()
        started = control.started
        assert started is not None
        try:
            args, kwargs = parent_results.arguments(task.arguments, delivery.job, delivery.values)
            given = delivery.job.retry
            policy = task.retry if given is None else retry.from_wire(given)
        except Exception as error:  # noqa: BLE001 - as in `run`
            return self._without_body(task, delivery, error, started)
        self._enter(task, delivery, args, kwargs, policy, control)
        body = ProcessBody(run, task.returns)
        try:
            value = await self._within_hooks(body.run())
        except asyncio.CancelledError as error:
            if not control.is_wanted:
                raise
            return self._finish_failed(delivery, error, started)
        except BaseException as raised:  # noqa: BLE001 - the task's own, see the module's docstring
            if raised is body.error and body.run_result is not None:
                return body.run_result  # it has the traceback of the process
            return self._after_error(delivery, policy, raised, started)
        finally:
            body.error = None  # its traceback refers to the body: this would be a cycle
        return self._after_success(task, delivery, value, started)

    async def _until_process_ends(
        self, task: TaskBody, delivery: wire.Delivery, control: JobControl, processes: Processes
    ) -> Finish | Requeue | Replace:
        """Returns the run result of a process. If that process dies, the run result is made here."""
        started = control.started
        context = current_job.get()
        assert started is not None
        assert context is not None
        try:
            run_result = await processes.run(task, delivery, control, context.children)
            if isinstance(run_result, Finish) and run_result.letter == wire.EXPIRED:
                return self._too_late(delivery)  # it expired while it waited for a process
            return run_result
        except (TimeLimitExceeded, WorkerLost) as error:
            return self._without_body(task, delivery, error, started)

    def after_failure(self, delivery: wire.Delivery, error: Exception, started: int) -> Finish | Requeue:
        """Returns what becomes of a job whose attempt has failed, whatever its body does: its time limit is
        over, or a workflow that was to replace it was refused.
        """
        name = delivery.job.name
        task = self._tasks.get(name) or self._derived(name)
        assert task is not None, "its body has begun"
        return self._without_body(task, delivery, error, started)

    def _without_body(
        self, task: TaskBody, delivery: wire.Delivery, error: Exception, started: int
    ) -> Finish | Requeue:
        """Returns what becomes of a job whose body does not decide it."""
        try:
            given = delivery.job.retry
            policy = task.retry if given is None else retry.from_wire(given)
        except DecodeError as broken:
            return self._finish_failed(delivery, broken, started)
        return self._after_failure(delivery, policy, error, started)

    def _after_success(self, task: TaskBody, delivery: wire.Delivery, value: Any, started: int) -> Finish:
        """Encodes the value of a job. A value that cannot be encoded fails the job."""
        try:
            payload = task.returns.dumps(value, path="result")
            if len(payload) > self._max_payload:
                raise PayloadTooLarge(
                    f"the result of {task.name} takes {len(payload):,} bytes, more than "
                    f"max_payload={self._max_payload:,}"
                )
        except Exception as error:  # noqa: BLE001 - encoding calls code of the value's own
            return self._finish_failed(delivery, error, started)
        ended = self._ended(delivery, wire.SUCCEEDED, payload, started)
        return Finish(wire.SUCCEEDED, wire.encode_ended(ended))

    def _after_failure(
        self,
        delivery: wire.Delivery,
        policy: retry.Retry | retry.RemoteRetry | None,
        error: Exception,
        started: int,
    ) -> Finish | Requeue:
        """Decides whether a failed job is tried again. The cause of a `RetryLater` counts as the failure."""
        wait = retry.delay(policy, delivery.retries, error)
        job = delivery.job
        own = error
        if isinstance(error, RetryLater) and isinstance(error.__cause__, Exception):
            own = error.__cause__
        if wait is not None and not _is_late(job, _now() + wait * 1000):
            last = b"" if job.expires is None else self._failed(delivery, own, started)
            return Requeue(round(wait * 1000), delivery.retries + 1, failures.encode(error), last, error)
        return self._finish_failed(delivery, own, started, RETRIES_USED_UP if delivery.retries else "")

    def _too_late(self, delivery: wire.Delivery) -> Finish:
        """Ends a job whose time to start is over. If it started in time and failed, the failure counts."""
        if delivery.last:
            return Finish(wire.FAILED, delivery.last, RETRIES_USED_UP)
        return Finish(wire.EXPIRED, self._bad_end(delivery, wire.EXPIRED, b"", None, bytes))

    def revoked(self, delivery: wire.Delivery, started: int | None, reason: str = "") -> bytes:
        """Returns the outcome of a job that a revocation has ended, with the reason if one is known."""
        return self._bad_end(
            delivery, wire.REVOKED, reason.encode(), started, partial(failures.short, reason)
        )

    def failed(self, delivery: wire.Delivery, error: BaseException) -> bytes:
        """Returns the outcome of a job that could not be run at all."""
        return self._failed(delivery, error, None)

    def _finish_failed(
        self, delivery: wire.Delivery, error: BaseException, started: int, dead: str = ""
    ) -> Finish:
        return Finish(wire.FAILED, self._failed(delivery, error, started), dead, error)

    def _failed(self, delivery: wire.Delivery, error: BaseException, started: int | None) -> bytes:
        short = partial(failures.encode_short, error)
        return self._bad_end(delivery, wire.FAILED, failures.encode(error), started, short)

    def _bad_end(
        self,
        delivery: wire.Delivery,
        letter: str,
        payload: bytes,
        started: int | None,
        short_payload: Callable[[], bytes],
    ) -> bytes:
        return wire.encode_bad_end(self._ended(delivery, letter, payload, started), short_payload)

    def _ended(self, delivery: wire.Delivery, letter: str, payload: bytes, started: int | None) -> wire.Ended:
        job = delivery.job
        context = current_job.get()
        return wire.Ended(
            letter,
            payload,
            started,
            _now(),
            delivery.attempt,
            self._worker,
            job.name,
            job.queue,
            job.enqueued,
            context.children if context is not None else (),
            parent_results.kept_of(job, delivery.values) if self._extended else b"",
        )


def _control_flow(error: BaseException) -> BaseException:
    """Returns what a body meant by what it raised.

    A task group puts every exception into a group. A group that holds only a `RetryLater`, the soft limit, or
    what `replace` raises means that exception.
    """
    inner = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner if isinstance(inner, (Replaced, RetryLater, SoftTimeLimitExceeded)) else error


def _end_of_unwanted(control: JobControl, error: asyncio.CancelledError | None) -> BaseException:
    """Returns what is raised in the dependencies of a job whose outcome does not count."""
    if control.is_late:
        return TimeLimitExceeded("the time limit of the job is over")
    return error or asyncio.CancelledError()


def _has_time_limit(task: TaskBody, job: wire.Job) -> bool:
    return task.has_time_limit or job.timeout is not None or job.deadline is not None


def _now() -> int:
    return int(clock.now() * 1000)


def _is_late(job: wire.Job, now: float) -> bool:
    return any(timestamp is not None and now >= timestamp for timestamp in (job.expires, job.deadline))


def _unknown(name: str, tasks: Mapping[str, Any]) -> str:
    shown = name.encode("unicode_escape").decode()[:200]
    known = ", ".join(sorted(tasks)[:10]) or "none"
    if len(tasks) > 10:
        known += f" and {len(tasks) - 10} more"
    return (
        f"this worker does not know the task {shown!r}; it knows {known}. Import the task's module "
        "where the app is made."
    )


_NO_HEADERS: dict[str, Any] = {}
