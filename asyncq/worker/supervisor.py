"""Runs several worker processes: starts them, restarts those that end, replaces them, and stops them.

    asyncq worker --workers N
    └─ Supervisor             its loop runs nothing else; it never imports the app
       ├─ _Keeper  <name>-1   keeps one worker process of that name running
       ├─ _Keeper  <name>-2
       └─ one rollover at a time

The worker processes are new interpreters, so each has its own app, loop, threads and connections. The module
`processes.supervised` has the connection to them, and says why the wish to stop is no signal there.

A rollover starts the new worker first, and stops the old one when the new one is ready. So there are never
fewer workers than before, and a version of the app that cannot start replaces nothing. It waits for the end
of the old worker before it goes on, so there is never more than one worker too many. Both have the same name,
but the server knows each by an id of its own.

A worker may also end by itself: because it has run enough jobs, and then a new process takes its place at
once; or because no jobs are left, and then nothing does. When all have ended so, the supervisor ends, too.

With a folder to watch, a change of a Python file in it is a rollover, which hands running jobs back: who has
just changed the code waits for it. A version that cannot start waits for the next change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from asyncq.config import shown
from asyncq.system import service_manager
from asyncq.worker.processes.interpreter import how_it_ended
from asyncq.worker.processes.supervised import DRAIN, HAND_BACK, WorkerChild, WorkerStartError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

log: logging.Logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a worker that has ended is restarted; the pause doubles from one to the other."""
STABLE_AFTER = 30.0
"""Seconds after which a worker that ends is restarted with the first pause again."""
KILL = 3
"""The step of stopping that no worker takes by itself: its process is killed."""


class Supervisor:
    """Keeps one worker process running for each name, until it is stopped.

    Args:
        program: the module that a worker process runs, see `WorkerChild.start`.
        setup: what each worker process gets at its start. Two things are added to it. `is_first` tells the
            very first process from all later ones, which need not repeat its warnings. `is_quiet` says
            whether it is to take no jobs, because all workers are quiet.
        names: of the workers.
        each: by the name of a worker, what its process gets instead of parts of the setup.
        folder: the working directory of the worker processes (default: that of this process).
        watched: a folder; each change of a Python file in it replaces the workers. It needs watchfiles.

    Attributes:
        step: how far it has been asked to stop: 0, `DRAIN`, `HAND_BACK` or `KILL`.
    """

    def __init__(
        self,
        program: str,
        setup: Mapping[str, Any],
        names: Sequence[str],
        folder: str | None = None,
        *,
        each: Mapping[str, Mapping[str, Any]] | None = None,
        watched: str | None = None,
    ) -> None:
        self.step: int = 0
        self._watched = watched
        self._setup: dict[str, Any] = {**setup, "is_quiet": False}
        self._spawn: Callable[[str, Mapping[str, Any]], Awaitable[WorkerChild]] = lambda name, setup: (
            WorkerChild.start(program, name, {**setup, **(each or {}).get(name, {})}, folder)
        )
        self._stopping = asyncio.Event()
        self._keepers = [_Keeper(name, self._start, self._stopping) for name in names]
        self._children: set[WorkerChild] = set()
        self._codes: list[int] = []
        self._failure: WorkerStartError | None = None
        self._rollover_wanted = asyncio.Event()
        self._is_first = True
        self._has_terminal = False

    async def run(self, on_ready: Callable[[list[WorkerChild]], object]) -> int:
        """Runs the workers until `stop` is called and all have ended, and returns the highest of their exit
        codes. For a worker that a signal has ended, that is 128 and the number of the signal.

        If the call is cancelled, the workers are killed.

        Args:
            on_ready: called once, with the workers, when all of them are ready.

        Raises:
            WorkerStartError: a worker could not start the first time. It is the first such error; the other
                workers were stopped.
        """
        watching = None if self._watched is None else asyncio.create_task(self._watch(self._watched))
        try:
            await asyncio.gather(*map(self._start_first, self._keepers))
            if not self.step:
                on_ready([keeper.child for keeper in self._keepers if keeper.child is not None])
            await asyncio.gather(self._roll_over_when_asked(), self._keep_all())
            # A keeper does not wait for a replacement that has become ready after the stop.
            await asyncio.gather(*(child.wait() for child in list(self._children)))
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait({watching})
            await self._kill_all()
        if self._failure is not None:
            raise self._failure
        return max(self._codes, default=0)

    async def _keep_all(self) -> None:
        """Keeps all workers running, until the stop, or until they have ended because no jobs are left."""
        await asyncio.gather(*(keeper.keep() for keeper in self._keepers))
        self._stopping.set()
        self._rollover_wanted.set()  # wakes the task that waits for it, which ends then

    async def check(self, timeout: float) -> list[bool | None]:
        """Asks each worker whether it is ready for jobs: None for one whose loop does not answer in time.

        Args:
            timeout: seconds.
        """
        return await asyncio.gather(*(keeper.check(timeout) for keeper in self._keepers))

    def stop(self) -> None:
        """Asks all workers to stop: they read no more jobs, and running jobs may end within the grace.

        Returns at once. A second call makes them hand running jobs back at once. A third call kills them.
        """
        if self.step >= KILL:
            return
        if self.step == 0:
            self._log_drain()
            service_manager.notify("STOPPING=1")
        elif self.step == DRAIN:
            log.info("handing running jobs back (a third signal kills the workers)")
        elif self.step == HAND_BACK:
            log.error("ended at once; the running jobs run elsewhere when the lease is over")
        self._advance()

    def _advance(self) -> None:
        self.step += 1
        self._stopping.set()
        self._rollover_wanted.set()  # wakes the task that waits for it, which ends then
        for child in self._children:
            self._stop_child(child)

    def _stop_child(self, child: WorkerChild) -> None:
        if self.step >= KILL:
            child.kill()
        else:
            child.stop(self.step)

    def _log_drain(self) -> None:
        graces = [child.grace for child in self._children if child.facts]
        if graces:  # otherwise no job runs
            log.info(
                "draining %d workers: running jobs have %g s to end (a second signal hands them back)",
                *(len(graces), max(graces)),
            )

    async def _kill_all(self) -> None:
        """Kills the processes that are left, because `run` was cancelled or has failed."""
        self._stopping.set()  # a keeper that still runs restarts none of them
        children = list(self._children)
        for child in children:
            child.kill()
        await asyncio.gather(*(child.wait() for child in children))

    def roll_over(self) -> None:
        """Replaces all workers, one after the other, by new ones that import the app anew.

        Returns at once. During a rollover, another one is made after it. Does nothing after `stop`. If a new
        worker cannot start, the rollover ends, the old workers go on, and the log says why.
        """
        if not self.step:
            self._rollover_wanted.set()

    def show_stacks(self) -> None:
        """Makes each worker show in its log what its jobs do. Returns at once."""
        for child in self._children:
            child.show_stacks()

    def toggle_quiet(self) -> None:
        """Makes all workers take no more jobs, also those that are started later; or all take jobs again.

        Returns at once. What they run goes on.
        """
        on = self._setup["is_quiet"] = not self._setup["is_quiet"]
        log.info("all workers are quiet: they take no more jobs" if on else "all workers take jobs again")
        for child in self._children:
            child.quiet(on=on)

    def handle_signals(self) -> None:
        """Makes SIGINT and SIGTERM stop the workers, SIGHUP replace them, SIGUSR1 show what their jobs do,
        and SIGUSR2 make them quiet, or end that.

        The end of the terminal is a SIGHUP, too. Nobody would end the workers after that, so they stop then,
        and hand their jobs back: a job that prints would fail.
        """
        self._has_terminal = _has_terminal()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGUSR1, self.show_stacks)
        loop.add_signal_handler(signal.SIGUSR2, self.toggle_quiet)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        if self._has_terminal and not _has_terminal():
            for _ in range(HAND_BACK - self.step):
                self.stop()
        else:
            self.roll_over()

    async def _start(self, name: str) -> WorkerChild:
        """Starts a worker process, and follows it to its end."""
        setup = {**self._setup, "is_first": self._is_first}
        self._is_first = False
        child = await self._spawn(name, setup)
        self._children.add(child)
        child.on_end(self._note_end)
        if self.step:  # since the start began
            self._stop_child(child)
        if self._setup["is_quiet"] != setup["is_quiet"]:  # likewise
            child.quiet(on=self._setup["is_quiet"])
        return child

    def _note_end(self, child: WorkerChild, code: int) -> None:
        self._children.discard(child)
        if self.step or child.is_done:
            self._codes.append(128 - code if code < 0 else code)

    async def _start_first(self, keeper: _Keeper) -> None:
        """Starts the first worker of a keeper. If it cannot start, all workers stop; where files are watched,
        it is tried again after each change instead.
        """
        while True:
            try:
                await keeper.start()
            except WorkerStartError as error:
                if self.step:
                    return
                if self._watched is None:
                    self._failure = error
                    self._log_drain()
                    self._advance()
                    return
                log.error(
                    "worker %r could not start, and is tried again when a file changes: %s",
                    *(keeper.name, error),
                    extra={"worker": keeper.name},
                )
                await self._rollover_wanted.wait()
                self._rollover_wanted.clear()
                if self._stopping.is_set():
                    return
            else:
                return

    async def _watch(self, folder: str) -> None:
        """Replaces the workers whenever a Python file in a folder has changed."""
        from watchfiles import PythonFilter, awatch  # an extra, which only this needs

        async for changes in awatch(folder, watch_filter=PythonFilter()):
            names = sorted({str(PurePath(path).relative_to(folder)) for _, path in changes})
            log.info("%s changed", names[0] if len(names) == 1 else f"{len(names)} files have")
            self.roll_over()

    async def _roll_over_when_asked(self) -> None:
        while True:
            await self._rollover_wanted.wait()
            if self._stopping.is_set():
                return
            self._rollover_wanted.clear()
            await self._roll_over()

    async def _roll_over(self) -> None:
        log.info("rolling over %d workers", len(self._keepers))
        for keeper in self._keepers:
            try:
                await keeper.replace(DRAIN if self._watched is None else HAND_BACK)
            except WorkerStartError as error:
                if not self.step:
                    log.error(
                        "the rollover ends, and the workers go on as they are, because a new worker %r could "
                        "not start: %s",
                        *(keeper.name, error),
                        extra={"worker": keeper.name},
                    )
                return
            if self.step:
                return
        log.info("rolled over %d workers", len(self._keepers))


class _Keeper:
    """Keeps one worker process running: starts it, restarts it when it has ended, replaces it.

    Args:
        name: of the worker.
        start: starts a process for it.
        stopping: set when the supervisor stops. From then on nothing is started.

    Attributes:
        child: the worker process; None until the first one is ready. It may have ended.
    """

    def __init__(
        self, name: str, start: Callable[[str], Awaitable[WorkerChild]], stopping: asyncio.Event
    ) -> None:
        self.name = name
        self.child: WorkerChild | None = None
        self._start = start
        self._stopping = stopping
        # A worker may end while its replacement starts. Then the restart waits here, and finds that there is
        # another worker already.
        self._starting = asyncio.Lock()
        self._pause = FIRST_PAUSE

    async def start(self) -> None:
        """Starts a worker process, and makes it the one of this keeper when it is ready.

        Raises:
            WorkerStartError: it could not start.
        """
        child = await self._start(self.name)
        await child.until_ready()
        self.child = child

    async def keep(self) -> None:
        """Restarts the worker whenever it has ended, until the supervisor stops and the worker has ended, or
        until the worker has ended because no jobs are left.
        """
        while (child := self.child) is not None:
            code = await child.wait()
            if self._stopping.is_set() or child.is_done:
                if child is self.child:
                    return
            elif child is self.child:
                await self._restart(child, code)

    async def _restart(self, ended: WorkerChild, code: int) -> None:
        """Starts a worker in the place of one that has ended, unless a rollover has done so meanwhile."""
        if ended.ran >= STABLE_AFTER:
            self._pause = FIRST_PAUSE
        if ended.own_end is not None:
            pause = 0.0
            log.info(
                "worker %r (pid %d) has ended after %s; a new process takes its place",
                *(self.name, ended.pid, ended.own_end.why),
                extra={"worker": self.name},
            )
        else:
            why = how_it_ended(code) if ended.failure is None else str(WorkerStartError(*ended.failure))
            pause = self._next_pause()
            log.warning(
                "worker %r (pid %d) has ended: %s; it is restarted in %s",
                *(self.name, ended.pid, why, shown(pause)),
                extra={"worker": self.name},
            )
        while not await self._is_stopped_within(pause):
            async with self._starting:
                if self.child is not ended or self._stopping.is_set():
                    return
                try:
                    await self.start()
                except WorkerStartError as error:
                    pause = self._next_pause()
                    if not self._stopping.is_set():
                        log.error(
                            "worker %r could not be started: %s; trying again in %s",
                            *(self.name, error, shown(pause)),
                            extra={"worker": self.name},
                        )
                else:
                    log.info(
                        "worker %r runs again (pid %d)", self.name, self.pid, extra={"worker": self.name}
                    )
                    return

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

    async def _is_stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def check(self, timeout: float) -> bool | None:
        """Asks the worker whether it is ready for jobs, see `WorkerChild.check`."""
        return False if self.child is None else await self.child.check(timeout)

    async def replace(self, step: int) -> None:
        """Starts a new worker process, stops the old one when the new one is ready, and waits for its end.

        Args:
            step: how the old one stops: `DRAIN` or `HAND_BACK`.

        Raises:
            WorkerStartError: the new one could not start. The old one goes on.
        """
        async with self._starting:
            if self._stopping.is_set():
                return
            old = self.child
            await self.start()
            self._pause = FIRST_PAUSE
        if old is not None:
            log.info(
                "worker %r runs in process %d now; process %d %s",
                *(self.name, self.pid, old.pid, "drains" if step == DRAIN else "hands its jobs back"),
                extra={"worker": self.name},
            )
            old.stop(step)
            await old.wait()

    @property
    def pid(self) -> int:
        """The id of the worker process; 0 if there was none yet."""
        return 0 if self.child is None else self.child.pid


def _has_terminal() -> bool:
    """Whether this process has a terminal that controls it. A process loses it when the terminal ends."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
