"""The worker's end of one process that runs jobs, one at a time. The other end is `child`. Runs on the
worker's loop.

The end of the connection means the end of the process, whatever the process died of: the kernel closes the
sockets of a dead process. If somebody else has a copy of its end, such as a child that it forked in C, then
its exit ends the connection a moment later. A process that was sent a signal is never used again, so a late
signal meets no other job.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncq import failures, wire
from asyncq.broker.transport.background import unexpected
from asyncq.config import shown
from asyncq.errors import WorkerLost
from asyncq.execution.executors import RUNNING, STARTING
from asyncq.execution.run_results import Finish, Replace, Requeue
from asyncq.serializers import PLAIN_VALUE
from asyncq.worker.processes import frames, interpreter

if TYPE_CHECKING:
    from asyncq.execution.executors import JobControl, TimeLimit

log: logging.Logger = logging.getLogger(__name__)

LAST_MESSAGES_TIMEOUT = 1.0
"""Seconds that a body gets to clean up when the worker stops, between SIGTERM and SIGKILL."""
START_TIMEOUT = 60.0
"""Seconds that a process may take to import the app."""
FAREWELL = 3.0
"""Seconds that an idle process gets to end by itself when it is closed."""

_SIGNAL_OF = {letter: signal.Signals[name] for name, letter in wire.SIGNAL_OF.items()}


class Process:
    """One process of a worker. `start` makes it."""

    def __init__(
        self, child: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        self._strength = -1  # of the strongest revocation signal that the job has got
        self._spent = False
        self._out_of_time = False
        self._started = False
        self._answering: set[asyncio.Task[None]] = set()
        self._watch = asyncio.create_task(self._until_ended())

    @classmethod
    async def start(cls, setup: bytes) -> Process:
        """Starts a process, and waits until it has imported the app.

        Raises:
            WorkerLost: the process could not do so; the message says why.
        """
        try:
            connected = await interpreter.start_connected("asyncq.worker.processes.child")
        except OSError as error:
            raise WorkerLost(f"no process could be started for the job: {error}") from error
        process = cls(*connected)
        try:
            process._writer.write(setup)
            async with asyncio.timeout(START_TIMEOUT):
                answer = await frames.read(process._reader)
            if answer == ["ready"]:
                return process
            problem = answer[1] if answer else f"it died at its start: {await process._how_it_died()}"
            raise WorkerLost(f"no process could be started for the job: {problem}")
        except TimeoutError:
            await process.discard()
            raise WorkerLost(
                "no process could be started for the job: the app was not imported within "
                f"{shown(START_TIMEOUT)}"
            ) from None
        except BaseException:
            await process.discard()
            raise

    @property
    def usable(self) -> bool:
        """Whether another job can be given to the process."""
        return not self._spent and not self._reader.at_eof()

    async def run(
        self, job: tuple[Any, ...], control: JobControl, limit: TimeLimit | None, children: list[str]
    ) -> Finish | Requeue | Replace | None:
        """Runs one job and returns its run result, or None if the process had died before it took up the job.

        If the call is cancelled, it asks the body to end by SIGTERM, and kills the process a second later.

        Args:
            job: the fields of the frame, see `child.Child`.
            control: the control object of the job. It learns that the body has begun, and how to end it.
            limit: the time limit; the process is killed when it is over.
            children: gets the id of each job that the body starts.

        Raises:
            TimeLimitExceeded: the process was killed because of the limit.
            WorkerLost: the process died.
        """
        self._strength = -1
        self._started = False
        control.state = RUNNING
        control.interrupt = self._interrupt
        timer = None
        if limit is not None:
            timer = asyncio.get_running_loop().call_later(max(0.0, limit.seconds), self._stop_in_time)
        try:
            self._writer.write(frames.pack(("run", *job)))
            run_result = await self._run_result(children, control)
        except asyncio.CancelledError:
            await self._end_body(control)
            raise
        except Exception:
            # For example, a frame that cannot be read. What else is on the connection belongs to this job, so
            # no other job may use it.
            self._spent = True
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if run_result is not None:
            return run_result
        if not self._started and not self._spent:
            self._spent = True
            # No signal has ended the process, or `_spent` would be set. So the job goes to the next process.
            control.state, control.interrupt = STARTING, None
            return None
        how = await self._how_it_died()
        if self._out_of_time and limit is not None:
            raise limit.exceeded()
        raise WorkerLost(f"the process that ran the job died: {how}")

    async def _run_result(
        self, children: list[str], control: JobControl
    ) -> Finish | Requeue | Replace | None:
        """Reads frames until the run result comes. Returns None if the process died instead."""
        while frame := await frames.read(self._reader):
            match frame:
                case ["started"]:
                    self._started = True
                case ["child", id_]:
                    children.append(id_)
                case ["ask", number, *question]:
                    answering = asyncio.create_task(self._answer_question(control, number, question))
                    self._answering.add(answering)
                    answering.add_done_callback(self._answering.discard)
                case ["finish", *fields]:
                    return Finish(*fields)
                case ["requeue", *fields]:
                    return Requeue(*fields)
                case ["replace", jobs]:
                    return Replace([(wire.Job(**fields), message) for fields, message in jobs])
        return None

    async def _answer_question(self, control: JobControl, number: int, question: list[Any]) -> None:
        """Does what the job asks of its worker, and sends the answer when that is done."""
        failure = None
        try:
            match question:
                case ["report", state, meta]:
                    await control.report(state, PLAIN_VALUE.loads(meta))
                case ["release slot"]:
                    await control.release_slot(None)
                case ["reacquire slot"]:
                    await control.reacquire_slot(None)
        except Exception as error:
            log.log(
                logging.DEBUG if unexpected(error) is None else logging.ERROR,
                "the request %r of a process failed",
                question[0],
                exc_info=unexpected(error),
            )
            failure = failures.encode(error)
        self._writer.write(frames.pack(("answer", number, failure)))

    # -- ending --

    async def _until_ended(self) -> None:
        """Ends the connection when the process has ended, even if others have copies of its other end."""
        await self._child.wait()
        # By then everything that the process had sent is read, and normally the connection has ended by
        # itself.
        await asyncio.sleep(LAST_MESSAGES_TIMEOUT)
        self._writer.transport.abort()

    def _interrupt(self, letter: str) -> None:
        """Applies a revocation signal to the job: most of them send a Unix signal to the process.

        Signals come again with every beat. So only a stronger one than before has an effect.
        """
        strength = wire.SIGNALS.index(letter)
        if strength <= self._strength:
            return
        self._strength = strength
        if letter == wire.NOT_AGAIN:
            self._writer.write(frames.pack(("revoked",)))
            return
        self._spent = True
        if _SIGNAL_OF[letter] is signal.SIGKILL:
            self._kill()
        else:
            self._writer.write(frames.pack(("stop", _SIGNAL_OF[letter])))

    def _stop_in_time(self) -> None:
        """Kills the process at the time limit of its job."""
        self._out_of_time = True
        self._kill()

    def _kill(self) -> None:
        """Kills the process, and the processes that it started."""
        self._spent = True
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    async def _end_body(self, control: JobControl) -> None:
        """Ends the body of a job that the worker hands back, because the worker stops."""
        self._interrupt("t")
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_MESSAGES_TIMEOUT):
                await self._run_result([], control)
        await self.discard()

    async def _how_it_died(self) -> str:
        """Waits for the end of the process, and says how it died."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_MESSAGES_TIMEOUT):
                await self._child.wait()
        self._kill()  # a body may have closed the connection while its process lives on
        return interpreter.how_it_ended(await self._child.wait())

    async def discard(self) -> None:
        """Ends the process at once. A second call has no effect."""
        self._kill()
        for answering in self._answering:
            answering.cancel()
        await self._child.wait()
        self._watch.cancel()
        self._writer.close()

    async def close(self) -> None:
        """Lets an idle process end by itself, and waits for its end."""
        self._spent = True
        self._writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._child.wait()
        await self.discard()
