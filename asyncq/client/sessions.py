"""Which session serves a call: every call finds its loop and its connection here.

- On a loop with an open block (`async with app`, a framework's lifespan, a `Worker`): that block's session.
- Inside a job, on whatever thread: the session of its worker, so that its slot and the deadlock guard work.
- Everywhere else, also for blocking calls: the app's background session, on a loop in a daemon thread that
  only the app can stop.

So no call ever runs on a loop of another thread that its user may stop. Tried and given up: one loop for all
callers, the loop that opened the app first. If that loop idles between two `run_until_complete`, or has ended
with `asyncio.run`, the calls of all other threads wait for ever.

All methods may be called on any thread. `_lock` guards `_by_loop`, `_open` and `_thread`. Each call reads
`_open` without the lock, for only code on a running loop adds or removes that loop's session.

The end of a process and `fork` are handled here, too: see `at_exit` and `_after_fork_in_child`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asyncq.broker.schema.shards import Shards
from asyncq.client.session import Session
from asyncq.context import current_job
from asyncq.errors import BrokerUnavailable
from asyncq.sync_bridge import LoopThread, running_loop

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Sequence

    from asyncq import wire
    from asyncq.broker.transport.connection import Address
    from asyncq.client.application import App
    from asyncq.middleware.enqueue_chain import EnqueueHook

    Ended = tuple[str, bytes]
    """How a job ended: the letter of its record, and the encoded outcome."""

R = TypeVar("R")

log: logging.Logger = logging.getLogger(__name__)

_AT_EXIT = 3.0
"""How many seconds the end of the process waits for a background session to close."""


def _address_of(url: str, revive: Callable[[], None] | None) -> Address:
    from asyncq.broker.transport.connection import parse  # imports redis-py

    return parse(url, revive)


class InlineCalls(Protocol):
    """Runs calls where they are made, in place of a server and its workers. The testing kit has one."""

    async def run(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> str | None:
        """Runs jobs, parents before children. Afterwards `outcome` and `items` know of them.

        Returns:
            The id of a job that was refused because another call has it; None if all were accepted.
        """
        ...

    def outcome(self, id: str, /) -> Ended | None:
        """Returns how a job ended; None if it is unknown."""
        ...

    def items(self, id: str, /) -> Sequence[bytes]:
        """Returns what a job has yielded."""
        ...

    def forget(self, id: str, /) -> None:
        """Forgets a job."""
        ...


class Sessions:
    """The sessions of one app.

    Args:
        app: whose sessions they are.

    Attributes:
        shards: the keys of the app's namespace.
        on_enqueue: the hooks around each enqueue of each session, the first of them outermost.
        address_of: makes the address of a server from its URL and from a function that starts it again.
        inline: runs the calls where they are made, if there is no server. Only tests have it.
        session_class: the class of the sessions.
    """

    inline: InlineCalls | None = None
    session_class: type[Session] = Session

    def __init__(self, app: App) -> None:
        self._app = weakref.ref(app)
        self.shards: Shards = Shards(app.settings.namespace, app.settings.shard_count)
        self.on_enqueue: list[EnqueueHook] = []
        self.address_of: Callable[[str, Callable[[], None] | None], Address] = _address_of
        self._reset()
        _everyones.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, Session] = {}
        self._open: dict[asyncio.AbstractEventLoop, Session] = {}
        self._thread: LoopThread | None = None

    @property
    def is_any_open(self) -> bool:
        """Whether any session is open or is being opened."""
        with self._lock:
            self._prune()
            return any(session.is_open_or_opening for session in self._by_loop.values())

    def all_open(self) -> list[Session]:
        """Returns the sessions that are open now, on whatever loop."""
        with self._lock:
            return list(self._open.values())

    def reconfigure(self) -> None:
        """Makes the keys again after the app's settings were changed. No session may be open."""
        app = self._app()
        assert app is not None, "a method of the app is running"
        self.shards = Shards(app.settings.namespace, app.settings.shard_count)

    # -- for calls --

    def channel(self) -> str:
        """Returns the reply channel for jobs made here; empty if no session could receive their outcomes."""
        session = self.nearest()
        return "" if session is None else session.channel

    def is_on_app_loop(self) -> bool:
        """Returns whether this thread's loop has an open session. Calls then run on this loop."""
        return running_loop() in self._open

    def current(self) -> Session:
        """Returns the session of this thread's loop.

        Raises:
            BrokerUnavailable: the loop has no open session (any more).
        """
        session = self._open.get(running_loop())  # type: ignore[arg-type]  # None is in no table
        if session is None:
            raise BrokerUnavailable("the app was closed")
        return session

    def here(self) -> Session | None:
        """Returns the session of this thread's loop, or None. Before Python 3.12, each question for the
        running loop is a system call (for the process id), so frequent calls ask once.
        """
        return self._open.get(running_loop())  # type: ignore[arg-type]  # None is in no table

    def nearest(self) -> Session | None:
        """Returns the session of this thread's loop, else that of the current job's worker, else None."""
        return self._open.get(running_loop()) or self._of_the_job()  # type: ignore[arg-type]

    def _of_the_job(self) -> Session | None:
        job = current_job.get()
        loop = None if job is None or job.link is None else job.link.loop
        return None if loop is None else self._open.get(loop)

    async def run_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine on the loop that serves this call, from any loop. Opens a session there.

        Raises:
            BrokerUnavailable: the session cannot be opened, or was closed meanwhile.
        """
        if self.is_on_app_loop():
            return await coroutine
        thread = self._thread
        if thread is not None and running_loop() is thread.loop:
            return await self._when_open(coroutine)
        future = self.start_on_app_loop(self._when_open(coroutine))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Nobody has cancelled the caller, so the session that served it was closed.
                raise BrokerUnavailable("the app was closed") from None
            raise

    def start_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Starts a coroutine on the loop that serves this call, from a thread without a loop or from another
        loop. It opens no session: `run_on_app_loop` does that, and not every coroutine needs one.
        """
        session = self._of_the_job()
        if session is not None:
            try:
                return session.start_on_app_loop(coroutine)
            except RuntimeError:
                log.debug(
                    "a worker's event loop was closed while one of its jobs ran; the background loop of the "
                    "app serves the job's call"
                )
        # Both under the lock: else `_start_closing` could end the thread between the check and the call, and
        # the coroutine would never run.
        with self._lock:
            if self._thread is None:
                self._prune()
                self._thread = LoopThread()
            return asyncio.run_coroutine_threadsafe(coroutine, self._thread.loop)

    async def _when_open(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine on this loop. Opens a session on this loop first, if there is none."""
        if not self.is_on_app_loop():
            try:
                await self._opened()
            except BaseException:
                coroutine.close()
                raise
        return await coroutine

    def send_off(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Calls a function on the loop of the session that serves this call, and runs the coroutine that it
        returns in that session's background.
        """
        if self.is_on_app_loop():
            self.current().send_off(make())
        else:
            self.start_on_app_loop(self._when_open(self._send_off(make)))

    async def _send_off(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self.current().send_off(make())

    # -- blocks --

    async def enter(self, *, is_call: bool = False) -> None:
        """Begins a block on this loop. A call of `open` counts like a block.

        Raises:
            BrokerUnavailable, BrokerNotConfigured: as `Session.until_open`.
        """
        session = await self._opened()
        if is_call:
            session.opened += 1
        else:
            session.users += 1

    async def leave(self) -> None:
        """Ends a block on this loop. The last one closes this loop's session, and no other session."""
        session = self._by_loop.get(asyncio.get_running_loop())
        if session is not None:
            session.users -= 1
            await self._close_unused(session)

    async def undo_open(self) -> bool:
        """Undoes one call of `open` on this loop. Returns False if there is none to undo."""
        session = self._by_loop.get(asyncio.get_running_loop())
        if session is None or not session.opened:
            return False
        session.opened -= 1
        await self._close_unused(session)
        return True

    async def _close_unused(self, session: Session) -> None:
        if session.users > 0 or session.opened > 0:
            return
        try:
            # Background tasks find the session in the tables, so it stays there until they have ended. A new
            # block may begin to use it meanwhile, so the counts are checked again.
            await session.end_background()
        finally:
            if session.users <= 0 and session.opened <= 0:
                self._forget(session)
                await session.close()

    def _forget(self, session: Session) -> None:
        # Comes before `Session.close`: a block that begins while the session closes gets a new one.
        with self._lock:
            if self._by_loop.get(session.loop) is session:
                del self._by_loop[session.loop]
                self._open.pop(session.loop, None)

    async def _opened(self) -> Session:
        """Opens the session of this loop if it is not open, and returns it."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._prune()
            session = self._by_loop.get(loop)
            if session is None:
                app = self._app()
                assert app is not None, "a method of the app is running"
                session = self._by_loop[loop] = self.session_class(app)
        try:
            await session.until_open()
        except BaseException:
            if not session.is_open_or_opening:
                self._forget(session)
            raise
        with self._lock:
            if self._by_loop.get(loop) is session:
                self._open[loop] = session
        return session

    def _prune(self) -> None:
        """Gives up sessions whose loop was closed while a block was open: an error left `asyncio.run` and no
        `async with` saw it, or a generator fixture was never resumed. The caller holds `_lock`.
        """
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            session = self._by_loop.pop(loop)
            self._open.pop(loop, None)
            session.abandon()
            log.warning("%r was left open when its event loop closed; use `async with app:`", self._app())

    # -- the background session --

    async def close_background(self) -> None:
        """Closes the background session and ends its thread, from any loop. A second call does nothing."""
        closing = self._start_closing()
        if closing is not None:
            thread, future = closing
            await asyncio.wrap_future(future)
            thread.end()

    def close_background_sync(self) -> None:
        """Closes the background session and ends its thread. Blocks. A second call does nothing."""
        closing = self._start_closing()
        if closing is not None:
            thread, future = closing
            future.result()
            thread.stop()

    def _start_closing(self) -> tuple[LoopThread, concurrent.futures.Future[None]] | None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return None
        return thread, asyncio.run_coroutine_threadsafe(self._close_here(), thread.loop)

    async def _close_here(self) -> None:
        session = self._by_loop.get(asyncio.get_running_loop())
        if session is not None:
            await session.end_background()
            self._forget(session)
            await session.close()

    def enter_background(self) -> None:
        """Begins a block of blocking code: blocks until the background session is open. Inside a job it does
        nothing, for the worker's session is open.
        """
        if self._of_the_job() is not None:
            return
        try:
            self.start_on_app_loop(self.enter()).result()
        except BaseException:
            self._end_unused_thread()  # a block that was not entered is not left either
            raise

    def leave_background(self) -> None:
        """Ends a block of blocking code. The last one closes the background session."""
        if self._of_the_job() is not None:
            return
        thread = self._thread
        session = None if thread is None else self._by_loop.get(thread.loop)
        if session is None:
            self._end_unused_thread()
            return
        with self._lock:
            session.users -= 1
            is_last = session.users <= 0
        if is_last:
            self.close_background_sync()

    def _end_unused_thread(self) -> None:
        """Ends the background thread if there is no session on its loop: the session could not be opened."""
        thread = self._thread
        if thread is not None and thread.loop not in self._by_loop:
            self.close_background_sync()

    # -- the ends of processes --

    def forked(self) -> Any:
        """Begins anew in a child after `fork`. Returns the parent's objects, which must be kept alive."""
        remains = (self._by_loop, self._open, self._thread)
        self._reset()
        return remains

    def at_exit(self) -> None:
        """Closes the background session when the process ends, so that an embedded server ends, too. Of a
        block that is still open it warns, and gives up its session.
        """
        closing = self._start_closing()
        if closing is not None:
            try:
                closing[1].result(timeout=_AT_EXIT)
            except (TimeoutError, RuntimeError) as error:
                log.debug("an app could not be closed at exit: %r", error)
        for session in list(self._by_loop.values()):
            if session.is_open_or_opening:
                warnings.warn(
                    f"{self._app()!r} was left open; use `async with app:`", ResourceWarning, stacklevel=1
                )
            session.abandon()


_everyones: weakref.WeakSet[Sessions] = weakref.WeakSet()
"""The sessions of all apps of this process."""
_graveyard: list[Any] = []
"""In a child after `fork`: the parent's objects, see `_after_fork_in_child`."""


def the_only_app() -> App:
    """Returns the app of a process that has exactly one.

    Raises:
        RuntimeError: there is none, or more than one; the message says what to write instead.
    """
    # By identity: an app that is being tested has its own sessions and those of the test.
    apps = list({id(app): app for sessions in _everyones if (app := sessions._app()) is not None}.values())
    if len(apps) == 1:
        return apps[0]
    found = (
        "there is no AsyncQ app in this process"
        if not apps
        else f"there are {len(apps)} AsyncQ apps in this process"
    )
    raise RuntimeError(
        f"{found}, so a handle made from an id alone does not know which app to ask. Use "
        "app.AsyncResult(id), task.AsyncResult(id) or AsyncResult(id, app=app); or first import the module "
        "that makes the app"
    )


def _after_fork_in_child() -> None:
    """Makes every app's sessions begin anew in a child after `fork`.

    The child has no loop thread, and it shares the parent's sockets and epoll descriptor: it must touch none
    of them. The parent's objects are kept alive for ever. Their finalizers would take the sockets out of the
    epoll set that parent and child share, and the parent's loop would learn of no event any more.
    """
    import ctypes

    for sessions in list(_everyones):
        remains = sessions.forked()
        _graveyard.append(remains)
        # A reference that nothing gives back: at its end, the interpreter empties the list above.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(remains))


def _at_exit() -> None:
    for sessions in list(_everyones):
        sessions.at_exit()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
