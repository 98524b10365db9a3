"""A worker process of a supervisor, and the connection between the two: one class for each end of it.

`WorkerChild` is the supervisor's end and runs on the supervisor's loop. `SupervisorLink` is the worker's end.
Two threads of the worker serve it, so that it works while the app is imported, and while a body blocks the
event loop.

The supervisor sends its wishes over this connection and not as signals. A service manager may signal all
processes of a service at once (systemd does). A worker would then count each SIGTERM twice, and hand back its
jobs instead of letting them end. A step of stopping (1: let running jobs end, 2: hand them back) means the
same however often it comes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from asyncq.system import forks
from asyncq.worker.processes import frames, interpreter
from asyncq.worker.processes.liveness import resume_when_parent_dies, until_parent_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log: logging.Logger = logging.getLogger(__name__)

DRAIN, HAND_BACK = 1, 2
"""The steps of stopping."""
ORPHAN_GRACE = 1.0
"""Seconds that running jobs may take when the supervisor has died. Then they are handed back."""
ORPHAN_END = 4.5
"""Seconds after the supervisor's death when the worker's process ends, whatever it still does."""
LAST_FRAMES_TIMEOUT = 1.0
"""Seconds to read what a worker had sent before it ended."""
END_TIMEOUT = 10.0
"""Seconds beyond the grace after which a worker that was asked to stop is killed."""


class WorkerStartError(Exception):
    """A worker process could not start.

    Args:
        message: why, as one line.
        hint: what helps; may be empty.
        code: the exit code that says the same.
    """

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        hint = "; ".join(line.strip() for line in self.hint.splitlines())
        return f"{self.args[0]} ({hint})" if hint else str(self.args[0])


class OwnEnd(NamedTuple):
    """Why a worker ends by itself.

    Attributes:
        why: as a person reads it.
        is_done: whether it ends because there are no jobs left. Otherwise a new process takes its place.
    """

    why: str
    is_done: bool


class WorkerChild:
    """One worker process, as its supervisor sees it. `start` makes it.

    Args:
        name: the worker's name.
        connected: the process, and this end of the connection.

    Attributes:
        name: as given.
        pid: the process id.
        facts: what the worker says about itself; empty until it reads jobs.
        failure: the message, the hint and the exit code with which the worker ends; None if it named none.
        own_end: why it ends by itself; None unless it said so.
    """

    def __init__(self, name: str, connected: interpreter.Connected) -> None:
        self.name = name
        self.pid: int = connected.process.pid
        self.facts: dict[str, Any] = {}
        self.failure: tuple[str, str, int] | None = None
        self.own_end: OwnEnd | None = None
        self._checks: dict[int, asyncio.Future[bool]] = {}
        self._connected = connected
        self._ready = asyncio.Event()
        self._ready_at = 0.0
        self._step = 0
        self._killing: asyncio.TimerHandle | None = None
        self._end = asyncio.create_task(self._until_ended())

    @classmethod
    async def start(
        cls, program: str, name: str, setup: Mapping[str, Any], folder: str | None = None
    ) -> WorkerChild:
        """Starts a worker process. Does not wait until it is ready.

        Args:
            program: the module that the process runs, with a `SupervisorLink`.
            name: the worker's name.
            setup: what `SupervisorLink.setup` returns there, and the name with it.
            folder: its working directory (default: that of this process).

        Raises:
            WorkerStartError: the system could not start a process.
        """
        try:
            connected = await interpreter.start_connected(program, name, folder=folder)
        except OSError as error:
            raise WorkerStartError(f"no process could be started for {name!r}: {error}", "", 1) from error
        connected.writer.write(frames.pack(({**setup, "name": name},)))
        return cls(name, connected)

    async def until_ready(self) -> None:
        """Waits until the worker reads jobs.

        Raises:
            WorkerStartError: it has ended before that.
        """
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._ready.is_set():
            return
        if self.failure is not None:
            raise WorkerStartError(*self.failure)
        code = await self.wait()
        raise WorkerStartError(
            f"worker {self.name!r} ended while it started: {interpreter.how_it_ended(code)}",
            "start it without --workers to see where",
            128 - code if code < 0 else code or 1,
        )

    async def wait(self) -> int:
        """Waits for the end of the process, and returns its exit code: that of a signal is negative."""
        return await asyncio.shield(self._end)

    def on_end(self, call: Callable[[WorkerChild, int], object]) -> None:
        """Makes a call when the process has ended, with this object and the exit code."""
        self._end.add_done_callback(lambda end: call(self, end.result()))

    @property
    def is_done(self) -> bool:
        """Whether it ends, or has ended, because there are no jobs left."""
        return self.own_end is not None and self.own_end.is_done

    @property
    def ran(self) -> float:
        """How many seconds ago the worker became ready; 0 if it is not."""
        return time.monotonic() - self._ready_at if self._ready.is_set() else 0.0

    @property
    def grace(self) -> float:
        """How many seconds its running jobs have when it stops."""
        return float(self.facts.get("grace", 0.0))

    def stop(self, step: int) -> None:
        """Asks the worker to stop. It is killed if it does not end within its grace and `END_TIMEOUT`.

        A step that is not higher than the one before has no effect.

        Args:
            step: `DRAIN` or `HAND_BACK`.
        """
        if step <= self._step or self._end.done():
            return
        self._step = step
        self._connected.writer.write(frames.pack(("stop", step)))
        if self._killing is not None:
            self._killing.cancel()
        timeout = END_TIMEOUT + (self.grace if step == DRAIN else 0.0)
        self._killing = asyncio.get_running_loop().call_later(timeout, self._kill_late)

    def show_stacks(self) -> None:
        """Asks the worker to show in its log what its jobs do."""
        self._order("stacks")

    def quiet(self, *, on: bool) -> None:
        """Asks the worker to take no more jobs, or to take jobs again."""
        self._order("quiet", on)

    def _order(self, *frame: Any) -> None:
        if not self._end.done():
            self._connected.writer.write(frames.pack(frame))

    async def check(self, timeout: float) -> bool | None:
        """Asks the worker whether it is ready for jobs. Returns None if its loop does not answer in time.

        Args:
            timeout: seconds.
        """
        if not self._ready.is_set() or self._end.done():
            return False
        number = max(self._checks, default=0) + 1
        answer = self._checks[number] = asyncio.get_running_loop().create_future()
        self._connected.writer.write(frames.pack(("check", number)))
        try:
            async with asyncio.timeout(timeout):
                return bool(await answer)
        except TimeoutError:
            return None
        finally:
            del self._checks[number]

    def kill(self) -> None:
        """Kills the process. Does nothing if it has ended."""
        # Not `Process.kill`: it may reap the process, and then asyncio does not learn the exit code.
        if self._connected.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _kill_late(self) -> None:
        log.error(
            "worker %r (pid %d) does not end and is killed; its jobs run elsewhere when the lease is over",
            *(self.name, self.pid),
            extra={"worker": self.name},
        )
        self.kill()

    async def _until_ended(self) -> int:
        """Waits for the end of the process, and for all that it has sent."""
        process, _, writer = self._connected
        listening = asyncio.create_task(self._listen())
        code = await process.wait()
        # The connection ends with the process, unless a body has forked in C: such a child has a copy.
        await asyncio.wait({listening}, timeout=LAST_FRAMES_TIMEOUT)
        listening.cancel()
        writer.close()
        with suppress(OSError):  # the other end is gone
            await writer.wait_closed()
        if self._killing is not None:
            self._killing.cancel()
        return code

    async def _listen(self) -> None:
        while frame := await frames.read(self._connected.reader):
            match frame:
                case ["ready", facts]:
                    self.facts = facts
                    self._ready_at = time.monotonic()
                    self._ready.set()
                case ["failed", message, hint, code]:
                    self.failure = message, hint, code
                case ["ending", why, is_done]:
                    self.own_end = OwnEnd(why, is_done)
                case ["checked", number, is_ready]:
                    if (answer := self._checks.get(number)) is not None and not answer.done():
                        answer.set_result(is_ready)


class SupervisorLink:
    """The worker's end of the connection.

    When the supervisor has died, the worker stops as by a signal. After `ORPHAN_GRACE` it hands back its
    running jobs, and after `ORPHAN_END` its process ends in any case: nobody else would end it.

    Args:
        descriptor: the descriptor of the connection.
        supervisor: the supervisor's process id.

    Attributes:
        on_stop: called with each step of stopping, on a thread of this object. It may be replaced at any
            time. At first it ends the process at once, because nothing has begun.
        on_check: called on a thread of this object with a function, which it calls with whether the worker
            is ready. It may be replaced at any time. At first it does nothing.
        on_stacks: called on a thread of this object, to show what the jobs do. At first it does nothing.
        on_quiet: called on a thread of this object when `is_quiet` has changed. At first it does nothing.
        is_quiet: whether the worker is to take no jobs.
    """

    def __init__(self, descriptor: int, supervisor: int) -> None:
        self.on_stop: Callable[[int], object] = _end_at_once
        self.on_check: Callable[[Callable[[bool], None]], object] = lambda _answer: None
        self.on_stacks: Callable[[], object] = lambda: None
        self.on_quiet: Callable[[], object] = lambda: None
        self.is_quiet: bool = False
        self._sending = threading.Lock()
        self._supervisor = supervisor
        os.set_inheritable(descriptor, False)
        resume_when_parent_dies()
        self._connection = socket.socket(fileno=descriptor)
        # A copy of this process that a body makes must not keep the connection open when this one is dead.
        forks.close_in_children(self._connection, descriptor)

    def setup(self) -> dict[str, Any]:
        """Returns what the supervisor has sent for the start, and begins to watch it. To be called once.

        Blocks. If the supervisor has died by now, this ends the process.
        """
        frame = frames.receive(self._connection)
        if not frame:
            _end_at_once(DRAIN)
        setup: dict[str, Any] = frame[0]
        self.is_quiet = setup.get("is_quiet", False)
        threading.Thread(target=self._listen, name="asyncq-supervisor", daemon=True).start()
        threading.Thread(target=self._watch, name="asyncq-watch", daemon=True).start()
        return setup

    def ready(self, facts: Mapping[str, Any]) -> None:
        """Reports that the worker reads jobs, with what the user is shown about it."""
        self._send("ready", facts)

    def failed(self, message: str, hint: str, code: int) -> None:
        """Reports why the worker is about to end with this exit code."""
        self._send("failed", message, hint, code)

    def ending(self, why: str, *, is_done: bool) -> None:
        """Reports that the worker reads no more jobs, see `OwnEnd`."""
        self._send("ending", why, is_done)

    def _send(self, *frame: Any) -> None:
        # Two threads may send, and a frame may need more than one call of the system.
        with self._sending, suppress(OSError):  # the supervisor has died, see `_watch`
            self._connection.sendall(frames.pack(frame))

    def _listen(self) -> None:
        while frame := frames.receive(self._connection):
            match frame:
                case ["stop", step]:
                    self.on_stop(step)
                case ["check", number]:
                    self.on_check(partial(self._send, "checked", number))
                case ["stacks"]:
                    self.on_stacks()
                case ["quiet", on]:
                    self.is_quiet = on
                    self.on_quiet()

    def _watch(self) -> None:
        """Stops this worker when the supervisor has ended, on a thread of its own."""
        until_parent_ends(self._supervisor)
        # On a thread of its own: to log may block for ever, when nobody reads standard error any more.
        end = threading.Timer(ORPHAN_END, os._exit, [1])
        end.daemon = True
        end.start()
        self.on_stop(DRAIN)
        log.error("the supervisor has died; this worker hands back its jobs and ends")
        time.sleep(ORPHAN_GRACE)
        self.on_stop(HAND_BACK)


def _end_at_once(_step: int) -> NoReturn:
    os._exit(0)
