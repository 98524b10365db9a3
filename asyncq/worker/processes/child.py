"""A process that runs jobs for a worker, one at a time. The worker's end of it is `process.Process`.

    python -m asyncq.worker.processes.child 7 312  # started by process 312, which is at the other end of
    descriptor 7

Bodies run on the main thread, because Python runs signal handlers there: what a handler raises comes up in
the body. A second thread reads the connection, so that the process learns at once that its worker has died,
and dies, too. A third thread watches the worker itself: a child that the worker forked in C has a copy of the
connection's other end and keeps it open.

A job ends by SIGINT or SIGTERM only when a `stop` frame of the worker asks for that; then a thread of this
process sends the signal. The same signal from elsewhere is ignored: a service manager that stops a worker
signals all of its processes, and the jobs have the worker's grace.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import importlib
import itertools
import operator
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
import types
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq import AsyncQ, config, failures, logs, sync_bridge, wire
from asyncq.config import shown
from asyncq.context import current_job
from asyncq.errors import SoftTimeLimitExceeded
from asyncq.execution import callables, executors
from asyncq.execution.run_results import Finish, Replace, Requeue
from asyncq.execution.runner import Runner
from asyncq.execution.slots import Slots
from asyncq.serializers import PLAIN_VALUE
from asyncq.system import forks
from asyncq.system.main_module import MAIN_AGAIN
from asyncq.tasks.task import Task
from asyncq.worker.processes import frames, pool
from asyncq.worker.processes.app_source import AppSource
from asyncq.worker.processes.liveness import resume_when_parent_dies, until_parent_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asyncq.client.application import App
    from asyncq.execution.task_body import TaskBody
    from asyncq.sync_bridge import LoopOwner

FAREWELL = 2.0
"""Seconds that the process may take to end by itself when its worker has no more jobs for it."""
AGAIN = 0.05
"""Seconds until a signal is sent again whose handler has not run yet."""


class _Alarm:
    """The soft time limit of a body. It raises `SoftTimeLimitExceeded` in the body when the time is over.

    Attributes:
        limit: the limit in seconds; None if there is none.
    """

    def __init__(self) -> None:
        self.limit: float | None = None
        self._is_set = False

    @contextmanager
    def set(self) -> Iterator[None]:
        """Limits the block. It must run on the main thread."""
        if self.limit is None:
            yield
            return
        self._is_set = True
        signal.signal(signal.SIGALRM, self.ring)
        # The timer repeats until the handler has run. The reason is that of `Child._interrupt`.
        signal.setitimer(signal.ITIMER_REAL, max(self.limit, 1e-6), AGAIN)
        try:
            yield
        finally:
            self._is_set = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def ring(self, _number: int, _frame: types.FrameType | None) -> None:
        """Handles the signal. A signal that comes after the block was left has no effect."""
        if self._is_set and self.limit is not None:
            self._is_set = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            limit = shown(self.limit)
            raise SoftTimeLimitExceeded(f"the task ran longer than its soft_timeout of {limit}")


class Child:
    """The process, from its setup to its end.

    Args:
        connection: the connection to the worker.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._main = threading.get_ident()
        self._busy = False
        self._asked: int | None = None
        self._alarm = _Alarm()
        self._control = _JobControl(self)
        self._numbers = itertools.count()
        self._answers: dict[int, Future[None]] = {}
        self._setup: dict[str, Any] = {}
        self._tasks = _Tasks(self._setup)

    def run(self, worker: int) -> None:
        """Runs jobs until the worker closes the connection or has ended.

        Args:
            worker: the worker's process id.
        """
        forks.reset_in_children(self._on_signal)
        forks.reset_in_children(self._alarm.ring)
        forks.guard_signals()
        threading.Thread(target=self._watch, args=[worker], name="asyncq-watch", daemon=True).start()
        frame = frames.receive(self._connection)
        if not frame:
            return
        self._setup.update(frame[0])
        self._handle_signals()
        pool.importing = True
        config.warn_of_no_variable()
        try:
            self._tasks.prepare()
        except BaseException:  # noqa: BLE001  a module may raise anything, even `SystemExit`
            self._send("broken", traceback.format_exc(limit=-3)[-4000:])
            return
        pool.importing = False
        threading.Thread(target=self._listen, name="asyncq-worker", daemon=True).start()
        self._send("ready")
        while (job := self._jobs.get()) is not None:
            self._run(*job)

    # -- the connection --

    def _listen(self) -> None:
        """Handles the worker's frames, on the reading thread, until the connection ends."""
        while frame := frames.receive(self._connection):
            match frame:
                case ["run", *job]:
                    self._busy = True
                    self._control = _JobControl(self)
                    self._jobs.put(job)
                case ["answer", number, failure]:
                    self._answer(number, failure)
                case ["revoked"]:
                    self._control.revoked = True
                case ["stop", number]:
                    self._control.revoked = True
                    self._control.move(executors.CANCELLING, executors.STARTING, executors.RUNNING)
                    self._asked = number
                    threading.Thread(target=self._interrupt, args=[number], daemon=True).start()
        self._end()

    def _watch(self, worker: int) -> None:
        """Ends this process when the worker has ended, on a thread of its own."""
        until_parent_ends(worker)
        self._end()

    def _end(self) -> None:
        """Ends this process: at once if a job runs, or else after `FAREWELL` seconds at most."""
        if self._busy:
            # The worker is dead, so another worker gets the job. The processes that the body started end,
            # too.
            if os.getpgrp() == os.getpid():
                os.killpg(0, signal.SIGKILL)
            os._exit(1)
        self._jobs.put(None)
        time.sleep(FAREWELL)  # time for `atexit` handlers and for threads that are joined
        os._exit(0)

    def _interrupt(self, number: int) -> None:
        """Sends the body a signal until its handler has run.

        A signal that comes just before a call that blocks is handled only after the call. The next signal
        wakes the call. If the body has set a handler of its own, that one is called once. This runs on a
        thread of its own, because the worker may send more frames meanwhile.
        """
        while True:
            signal.pthread_kill(self._main, number)
            time.sleep(AGAIN)
            if self._asked != number or signal.getsignal(number) != self._on_signal:
                return

    def ask(self, verb: str, *arguments: Any) -> Future[None]:
        """Asks the worker for something on behalf of the job. Returns the future answer."""
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        answer.set_running_or_notify_cancel()  # a caller that was cancelled must not make `set_result` fail
        self._send("ask", number, verb, *arguments)
        return answer

    def _answer(self, number: int, failure: bytes | None) -> None:
        answer = self._answers.pop(number)
        if failure is None:
            answer.set_result(None)
        else:
            answer.set_exception(failures.decode(failure).rebuild())

    def _send(self, *frame: Any) -> None:
        with self._sending:
            self._connection.sendall(frames.pack(frame))

    # -- one job --

    def _run(
        self,
        entry: str,
        stream: str,
        crashes: int,
        retries: int,
        values: bytes,
        id: str,
        queue: str,
        message: bytes,
        module: str,
        name: str,
        soft_timeout: float | None,
        policy: list[Any] | None,
    ) -> None:
        """Runs one job on the main thread, and sends its run result."""
        self._send("started")
        self._alarm.limit = soft_timeout
        job = wire.decode_job(id, queue, message)
        delivery = wire.Delivery(entry, stream, crashes, retries, job, values)
        task = self._tasks.find(job, module, name, policy)
        tasks = {} if task is None else {job.name: task}
        settings = self._setup["settings"]
        limit, extended = settings["max_payload"], settings["result_extended"]
        runner = _Runner(tasks, self._setup["worker"], Slots(1), limit, extended=extended)
        runner.child = self
        self._handle_signals()  # an earlier body may have set handlers of its own
        run = runner.run(delivery, self._control)
        run_result = contextvars.copy_context().run(sync_bridge.driven, run)
        self._busy = False
        match run_result:
            case Finish():
                self._send("finish", run_result.letter, run_result.outcome, run_result.dead)
            case Requeue():
                self._send(
                    "requeue", run_result.wait, run_result.retries, run_result.failure, run_result.last
                )
            case Replace():
                self._send(
                    "replace", [(dataclasses.asdict(job), message) for job, message in run_result.jobs]
                )

    def body(self, task: TaskBody, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Calls the function of a task on this thread, under its soft time limit."""
        job = current_job.get()
        assert job is not None
        job.children = _Reported(self._send, job.children)
        with self._alarm.set():
            return executors.unstoppable(callables.run_here(task.function), args, kwargs, self._control)

    def _handle_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: types.FrameType | None) -> None:
        """Ends the body if the worker has asked for this signal, or else ignores it."""
        if self._asked is None:
            return
        self._asked = None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


class _Tasks:
    """Finds the tasks of a worker's jobs.

    Args:
        setup: the setup that the worker has sent, see `Pool`.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._configured: set[int] = set()
        self._app: AsyncQ | None = None

    def prepare(self) -> None:
        """Imports the app, or the script that makes it. It raises whatever they raise."""
        setup = self._setup
        sys.path[:] = setup["path"]
        sys.argv[:] = setup["argv"]
        handler = logs.configure_child(*setup["logging"])
        if setup["script"] is not None:
            _run_again(setup["script"])
        if setup["target"] is not None:
            self._app = AppSource(setup["target"]).load()
            self._configure(self._app)
        logs.keep(handler, is_chosen=False)

    def _configure(self, app: App) -> None:
        if id(app) not in self._configured:
            self._configured.add(id(app))
            app.reconfigure(**self._setup["settings"])

    def find(self, job: wire.Job, module: str, name: str, policy: list[Any] | None) -> Task[..., Any] | None:
        """Returns the task of a job, or None if there is none.

        Args:
            job: the job. It gets the retry policy of its task, where only the worker knows that policy.
            module: the module of the task's function; empty if the app itself knows its tasks.
            name: the name of the function in the module.
            policy: the task's policy for retries.
        """
        with suppress(KeyError):
            if self._app is not None:
                return self._app.tasks[job.name]
        if not module:
            return None
        task = self._found(job, module, name, policy)
        return task.batch_task() if job.name.endswith("*") else task

    def _found(self, job: wire.Job, module: str, name: str, policy: list[Any] | None) -> Task[..., Any]:
        """Returns the task whose function has that name in that module."""
        found = operator.attrgetter(name)(importlib.import_module(module))
        if isinstance(found, Task):
            self._configure(found.app)
            return found
        # A function makes the app, so importing the module gives no app. Any app with the same settings
        # serves.
        if self._app is None:
            self._app = AsyncQ(**self._setup["settings"])
        if job.retry is None:
            job.retry = policy
        made: Task[..., Any] = self._app.task(name=job.name.removesuffix("*"), executor="process")(found)
        return made


class _JobControl(executors.JobControl):
    """What the job in this process can ask of its worker."""

    __slots__ = ("_child",)

    def __init__(self, child: Child) -> None:
        super().__init__()
        self._child = child

    @property
    def loop_owner(self) -> LoopOwner:
        """The caller's own thread: it talks to the worker over the connection, and needs no loop."""
        return sync_bridge.INLINE

    async def report(self, state: str, meta: Any) -> None:
        """Stores a report of the job about its progress. It works on a loop, and on a thread without one."""
        answer = self._child.ask("report", state, PLAIN_VALUE.dumps(meta, path="meta"))
        if sync_bridge.running_loop() is None:
            answer.result()
        else:
            await asyncio.wrap_future(answer)

    async def release_slot(self, wait: asyncio.Task[Any] | None) -> None:
        """Tells the worker that a wait begins. The worker may run another job in another process meanwhile.

        A cancellation is raised only after the slot was reacquired.
        """
        try:
            await _answered(self._child.ask("release slot"))
        except asyncio.CancelledError:
            await self.reacquire_slot(wait)
            raise

    async def reacquire_slot(self, wait: asyncio.Task[Any] | None) -> None:  # noqa: ARG002  the worker cannot cancel it
        """Tells the worker that a wait is over. Returns when the worker has a slot and a process for the job.

        A cancellation is raised only then.
        """
        await _answered(self._child.ask("reacquire slot"))


async def _answered(question: Future[None]) -> None:
    """Returns when the worker has answered. It raises a cancellation only then, to keep the counts right."""
    answer = asyncio.wrap_future(question)
    cancelled: asyncio.CancelledError | None = None
    while not answer.done():
        try:
            await asyncio.wait({answer})
        except asyncio.CancelledError as error:
            cancelled = error
    answer.result()
    if cancelled is not None:
        raise cancelled


class _Runner(Runner):
    """Runs bodies on the main thread of the process."""

    child: Child

    async def _body(
        self,
        task: TaskBody,
        job: wire.Job,  # noqa: ARG002  the worker keeps all time limits but the soft one
        args: list[Any],
        kwargs: dict[str, Any],
        control: executors.JobControl,  # noqa: ARG002  `Child` has the control
    ) -> Any:
        return self.child.body(task, args, kwargs)


class _Reported(list[str]):
    """Ids of jobs. Each new one is sent to the worker: if this process dies, the outcome still names them."""

    def __init__(self, send: Callable[..., None], known: Iterable[str]) -> None:
        super().__init__(known)
        self._send = send

    def append(self, id: str) -> None:
        """Adds the id of a job that is about to be enqueued."""
        super().append(id)
        self._send("child", id)


def _run_again(script: str) -> None:
    """Runs the file of a script under another module name.

    So its tasks exist, and what stands under `if __name__ == "__main__"` is not run.
    """
    module = types.ModuleType(MAIN_AGAIN)
    module.__file__ = script
    sys.modules["__main__"] = sys.modules[MAIN_AGAIN] = module
    exec(compile(Path(script).read_bytes(), script, "exec"), module.__dict__)  # noqa: S102  it is what ran before


def main(descriptor: int, worker: int) -> None:
    """Runs the process.

    Args:
        descriptor: the descriptor of the connection to the worker.
        worker: the worker's process id.
    """
    os.set_inheritable(descriptor, False)
    resume_when_parent_dies()
    connection = socket.socket(fileno=descriptor)
    # A copy of this process that a body makes must not keep the connection open when this process is dead.
    forks.close_in_children(connection, descriptor)
    Child(connection).run(worker)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
