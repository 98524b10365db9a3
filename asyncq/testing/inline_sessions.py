"""Runs each call of an app where it is made, without a server: what `harness(app, inline=True)` puts in place
of the app's sessions.

Arguments, values and failures are encoded and decoded as on their way to a worker and back. A call on a
thread whose event loop runs is served on that loop: coroutines there, plain functions in a thread. A blocking
call is served on its own thread, where the caller's database connection and context variables are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from asyncq.client.sessions import Sessions
from asyncq.middleware import enqueue_chain, headers
from asyncq.middleware.outgoing_call import Call
from asyncq.results import eager_run
from asyncq.sync_bridge import INLINE, keep, running_loop

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Sequence

    from asyncq import wire
    from asyncq.app import AsyncQ
    from asyncq.client.session import Session
    from asyncq.client.sessions import Ended, InlineCalls
    from asyncq.middleware.enqueue_chain import EnqueueHook
    from asyncq.testing.enqueued_jobs import Journal

R = TypeVar("R")


class InlineSessions(Sessions):
    """The sessions of an app whose calls run inline: there are none.

    Args:
        app: the app.
        journal: notes the calls.
        own: the app's own sessions, whose hooks are called.
    """

    def __init__(self, app: AsyncQ, journal: Journal, own: Sessions) -> None:
        super().__init__(app)
        self.inline: InlineCalls | None = self
        self.on_enqueue: list[EnqueueHook] = list(own.on_enqueue)
        self._target = app
        self._journal = journal
        self._requests: dict[str, str] = {}
        self._ended: dict[str, Ended] = {}
        self._items: dict[str, Sequence[bytes]] = {}

    # -- calls that run here, see `InlineCalls` --

    async def run(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> str | None:
        """Runs jobs here. A call with the key of an earlier one gets the outcome of that one."""
        for job, _ in jobs:
            known = self._requests.get(job.id)
            if known is not None:
                return None if _is_same_call(known, job.request_id) else job.id
        if self.on_enqueue and running_loop() is None:
            jobs = asyncio.run(self._after_hooks(jobs))
        elif self.on_enqueue:
            jobs = await self._after_hooks(jobs)
        # Noted before they run: what they enqueue comes after them.
        self._journal.end(self._journal.begin(job for job, _ in jobs), is_accepted=True)
        self._requests.update((job.id, job.request_id) for job, _ in jobs)
        if running_loop() is None:
            ended, yielded = eager_run.run_all(jobs, self._target)
        else:
            ended, yielded = await eager_run.run_all_on_loop(jobs, self._target)
        self._ended.update(ended)
        self._items.update(yielded)
        return None

    async def _after_hooks(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> list[tuple[wire.Job, bytes]]:
        """Runs the hooks around an enqueue. Returns the jobs with the headers that the hooks have left."""
        app = self._target
        calls = [Call(job, lambda name: app.task_named(name).arguments) for job, _ in jobs]
        sent: list[tuple[wire.Job, bytes]] = []

        async def send() -> list[bool | Exception]:
            for (job, message), call in zip(jobs, calls, strict=True):
                sent.append((job, headers.put(job, message, call.headers, app.settings.max_payload)))
            return [True] * len(sent)

        await enqueue_chain.run(self.on_enqueue, calls, send)
        return sent

    def outcome(self, id: str, /) -> Ended | None:
        """Returns how a job ended; None if it is unknown."""
        return self._ended.get(id)

    def items(self, id: str, /) -> Sequence[bytes]:
        """Returns what a job has yielded."""
        return self._items.get(id, ())

    def forget(self, id: str, /) -> None:
        """Forgets a job."""
        self._ended.pop(id, None)
        self._requests.pop(id, None)

    # -- where calls run --

    def here(self) -> None:
        """Returns None: there is no session."""

    def nearest(self) -> None:
        """Returns None: there is no session."""

    def is_on_app_loop(self) -> bool:
        """Whether calls run on this thread: all do."""
        return True

    def current(self) -> NoReturn:
        """Refuses a call that needs a server.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "this call needs a server, and harness(app, inline=True) has none: leave `inline` out for it"
        )

    async def run_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine here."""
        return await coroutine

    def start_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Runs a coroutine on this thread, to its end."""
        return INLINE.start_on_app_loop(coroutine)

    def send_off(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Runs a coroutine beside the caller, if a loop runs here, else now."""
        if running_loop() is None:
            INLINE.start_on_app_loop(make()).result()
        else:
            keep(asyncio.ensure_future(make()))

    # -- blocks: there is nothing to open --

    @property
    def is_any_open(self) -> bool:
        """Whether a session is open: none is."""
        return False

    def all_open(self) -> list[Session]:
        """Returns an empty list."""
        return []

    async def enter(self, *, is_call: bool = False) -> None:
        """Does nothing."""

    async def leave(self) -> None:
        """Does nothing."""

    async def undo_open(self) -> bool:
        """Does nothing."""
        return True

    async def close_background(self) -> None:
        """Does nothing."""

    def close_background_sync(self) -> None:
        """Does nothing."""

    def enter_background(self) -> None:
        """Does nothing."""

    def leave_background(self) -> None:
        """Does nothing."""


def _is_same_call(one: str, other: str) -> bool:
    """Whether two request ids are of equal calls with a key, as the server decides it: the parts before the
    point are equal.
    """
    first, point, _ = one.partition(".")
    return bool(point) and first == other.partition(".")[0] and "." in other
