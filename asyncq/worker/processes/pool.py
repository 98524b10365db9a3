"""The processes of one worker for tasks with `executor="process"`. The pool runs on the worker's loop.

Each running job has a process of its own. A process imports the app once and then runs one job after the
other. A process that had nothing to do for a minute ends. All processes end with the worker, even if the
worker is killed.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker.transport.background import BackgroundTasks
from asyncq.errors import TimeLimitExceeded
from asyncq.execution.executors import time_limit
from asyncq.execution.slots import Slots
from asyncq.system import clock, cores
from asyncq.system.main_module import run_as
from asyncq.worker.processes import frames
from asyncq.worker.processes.app_source import child_setup
from asyncq.worker.processes.process import Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncq.app import AsyncQ
    from asyncq.execution.executors import JobControl
    from asyncq.execution.run_results import Finish, Replace, Requeue
    from asyncq.execution.task_body import TaskBody

log: logging.Logger = logging.getLogger(__name__)

IDLE = 60.0
"""Seconds after which a process without a job is ended."""

importing: bool = False
"""Whether this program is such a process itself and has not imported the app yet."""


class Pool:
    """Runs jobs in processes. A process is started when a job needs one and none is idle.

    Args:
        app: the app whose tasks to run. It must be open before the first job.
        worker: the worker's name, as the jobs see it.
        target: `module:attribute` of the app. Without it, a process finds each task by the module and the
            name of its function.

    Attributes:
        slots: bound how many jobs may have a process.
    """

    def __init__(self, app: AsyncQ, worker: str, target: str | None) -> None:
        self._app = app
        self._worker = worker
        self._target = target
        self.slots: Slots = Slots(size(app))
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Process, asyncio.TimerHandle] = {}
        self._tasks = BackgroundTasks(log)
        self._starting: set[asyncio.Task[Process]] = set()

    def check(self) -> None:
        """Refuses tasks that a process would not find, and a worker that starts inside such a process.

        Raises:
            ValueError: a process would not find a task. The message says which, and what to do.
            RuntimeError: this is a process of a worker, and the import of the app starts another worker,
                whose processes would do the same.
        """
        if importing:
            raise RuntimeError(
                "a process that runs jobs imports the app, and this import must not start a worker: put the "
                'code that starts it, such as asyncio.run(main()), under `if __name__ == "__main__":`'
            )
        for task in self._app.tasks.values():
            if task.executor == "process" and self._target is None:
                import_path_of(task)

    async def run(
        self, task: TaskBody, delivery: wire.Delivery, control: JobControl, children: list[str]
    ) -> Finish | Requeue | Replace:
        """Runs one job in a process. It waits for a process while all are busy. See `runner.Processes`."""
        job = delivery.job
        base = self._app.tasks.get(task.name.removesuffix("*"), task)  # the batch task `name*` calls this one
        import_path = ("", "") if self._target is not None else import_path_of(base)
        policy = None if task.retry is None else task.retry.to_wire()
        fields = (
            *(delivery.entry, delivery.stream, delivery.crashes, delivery.retries, delivery.values),
            *(job.id, job.queue, wire.encode_job(job), *import_path, task.soft_timeout, policy),
        )
        run_result = None
        while run_result is None:  # an idle process may have died, and that may show only now
            async with self._process(control, job.deadline) as process:
                run_result = await process.run(fields, control, time_limit(task.timeout, job), children)
        return run_result

    @asynccontextmanager
    async def _process(self, control: JobControl, deadline: int | None) -> AsyncIterator[Process]:
        """Yields a process for one job."""
        if control.threads is None:  # otherwise the worker has fetched the job for a process that was free
            try:
                async with asyncio.timeout(_left(deadline)):
                    await self.slots.take()
            except TimeoutError:
                raise TimeLimitExceeded("no process was free for the job before its deadline") from None
            control.threads = self.slots  # released while the body waits for another job
        try:
            process = self._take() or await self._start()
            try:
                yield process
            finally:
                self._put(process)
        finally:
            control.release_executor_slot()

    def _take(self) -> Process | None:
        """Returns the idle process that ran last, because it is the most likely one to be in memory."""
        while self._idle:
            process, timer = self._idle.popitem()
            timer.cancel()
            if process.usable:
                return process
            self._tasks.start(process.discard())
        return None

    async def _start(self) -> Process:
        # A cancellation of the job does not cancel the start: the process serves another job then.
        starting = self._tasks.start(Process.start(self._setup()))
        self._starting.add(starting)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._started_in_vain)
            raise
        finally:
            starting.add_done_callback(self._starting.discard)

    def _started_in_vain(self, starting: asyncio.Task[Process]) -> None:
        """Keeps a process whose job was cancelled during its start."""
        if not starting.cancelled() and starting.exception() is None:
            self._put(starting.result())

    def _put(self, process: Process) -> None:
        """Keeps a process for the next job, or discards it if it cannot run another one."""
        if process.usable:
            self._idle[process] = self._loop.call_later(IDLE, self._retire, process)
        else:
            self._tasks.start(process.discard())

    def _retire(self, process: Process) -> None:
        """Ends a process that had nothing to do."""
        del self._idle[process]
        self._tasks.start(process.close())

    async def close(self) -> None:
        """Ends all processes. No job may be running."""
        for starting in self._starting:
            starting.cancel()
        while self._idle or self._tasks:
            for process in list(self._idle):
                self._idle[process].cancel()
                self._retire(process)
            await self._tasks.finish()
            await asyncio.sleep(0)  # lets the callbacks of finished tasks run, which may add idle processes

    def _setup(self) -> bytes:
        """Returns the frame that tells a process how to find the tasks, see `child.Child`."""
        url = self._app.sessions.current().broker.address.url
        setup = {
            **child_setup(self._app, self._target, url),
            "script": _script() if self._target is None else None,
            "worker": self._worker,
        }
        return frames.pack((setup,))


def size(app: AsyncQ) -> int:
    """Returns how many jobs may run in processes at the same time."""
    return app.settings.processes or cores.usable()


def import_path_of(task: TaskBody) -> tuple[str, str]:
    """Returns the module and the qualified name under which another process finds the function of a task.

    Raises:
        ValueError: no other process can find it.
    """
    function: Callable[..., Any] = task.function
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if module == "__main__":
        module = run_as() or module
    why = ""
    if module == "__main__" and _script() is None:
        why = "it was typed in and is not in a file"
    elif not name:
        why = "it is an object, not a function"
    elif "<" in name:
        why = "it is made inside another function"
    else:
        try:
            found = operator.attrgetter(name)(sys.modules[function.__module__])
        except (AttributeError, KeyError):
            found = None
        if getattr(found, "function", found) is not function:
            why = f"it is not found as {module}.{name}"
    if why:
        raise ValueError(
            f'{task.name} has executor="process", and no other process could find its function: {why}. '
            "Put it at the top of a module"
        )
    return module, name


def _script() -> str | None:
    """Returns the file that runs as `__main__`, if there is no name under which it can be imported."""
    if run_as() is not None:
        return None
    file: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(Path(file).absolute()) if file is not None and Path(file).is_file() else None


def _left(deadline: int | None) -> float | None:
    """Returns the seconds until a deadline."""
    return None if deadline is None else deadline / 1000 - clock.now()
