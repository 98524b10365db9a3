"""The harness for plain tests: the worker runs on a loop in a thread, and the test calls `delay_sync`.

    with sync_harness(app) as t:
        signup("ada@example.com")
        t.assert_enqueued(send_mail, "ada@example.com")
        t.drain()

`SyncHarness` makes each call on the loop of the `Harness` that it holds. With `inline=True` there is no
worker, and what the test calls runs on the test's own thread.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncq.sync_bridge import LoopThread, refuse_in_loop
from asyncq.testing.base_harness import BaseHarness
from asyncq.testing.harness import Harness, InlineHarness, harness

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from typing import TypeVar

    from asyncq.app import AsyncQ
    from asyncq.worker import Worker

    T = TypeVar("T")


class SyncHarness(BaseHarness):
    """An app under test, for tests without a loop. `sync_harness` makes it.

    Attributes:
        app: the app.
    """

    def __init__(self, inner: Harness | InlineHarness, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(inner.app, inner.journal)
        self._inner = inner
        self._loop = loop

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        refuse_in_loop("a call of sync_harness", "async with harness(app) as t")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _with_server(self) -> Harness:
        if not isinstance(self._inner, Harness):
            problem = "inline=True has no server and no worker: leave it out for this test"
            raise RuntimeError(problem)  # noqa: TRY004  the caller's fault is the option, not a type
        return self._inner

    @property
    def url(self) -> str:
        """The URL of the private server."""
        return self._with_server().url

    def drain(self, timeout: float | timedelta | None = 5) -> None:
        """Waits until all jobs that are due have ended, see `Harness.drain`."""
        self._run(self._inner.drain(timeout))

    def advance(self, seconds: float | timedelta, *, timeout: float | timedelta | None = 5) -> None:
        """Sets the virtual clock ahead, and returns when what fell due has ended, see `Harness.advance`."""
        self._run(self._inner.advance(seconds, timeout=timeout))

    @contextmanager
    def worker(self, concurrency: int | None = None, **options: Any) -> Iterator[Worker]:
        """Runs another worker as long as the block lasts, see `Harness.worker`."""
        with self._entered(self._with_server().worker(concurrency, **options)) as worker:
            yield worker

    @contextmanager
    def delay_server(self, seconds: float | timedelta) -> Iterator[None]:
        """Makes each answer of the server come late, see `Harness.delay_server`."""
        with self._entered(self._with_server().delay_server(seconds)):
            yield

    def kill_worker(self, worker: Worker | None = None) -> None:
        """Kills a worker, and returns when its jobs were taken back, see `Harness.kill_worker`."""
        inner = self._with_server()

        async def kill() -> None:
            await inner.kill_worker(worker)

        self._run(kill())

    def drop_connections(self) -> None:
        """Closes all connections to the server, see `Harness.drop_connections`."""
        inner = self._with_server()

        async def drop() -> None:
            await inner.drop_connections()

        self._run(drop())

    @contextmanager
    def _entered(self, block: AbstractAsyncContextManager[T]) -> Iterator[T]:
        value = self._run(block.__aenter__())
        try:
            yield value
        finally:
            self._run(block.__aexit__(None, None, None))


@contextmanager
def sync_harness(
    app: AsyncQ, *, inline: bool = False, worker: bool = True, **settings: Any
) -> Iterator[SyncHarness]:
    """Gives an app a private server and a worker, for a block of a test without a loop, see `harness`.

    The worker runs on a loop in a thread. So the code under test may run on any thread or loop: in the test,
    in a framework's test client, in an event loop that the test makes.

    Args:
        app: the app under test.
        inline: as for `harness`. A blocking call then runs on its own thread.
        worker: as for `harness`.
        settings: as for `harness`.

    Raises:
        LeakError: as for `harness`.
        RuntimeError: the app is under test already.
        SyncInAsyncContext: an event loop runs on this thread: `async with harness(app) as t`.

    Example:
        ```python
        def test_signup():
            with sync_harness(app) as t:
                signup("ada@example.com")
                t.assert_enqueued(send_mail, "ada@example.com")
        ```
    """
    refuse_in_loop("sync_harness(app)", "async with harness(app) as t")
    thread = LoopThread()
    block: AbstractAsyncContextManager[Any] = (
        harness(app, inline=True, **settings) if inline else harness(app, worker=worker, **settings)
    )

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, thread.loop).result()

    try:
        inner = run(block.__aenter__())
        try:
            yield SyncHarness(inner, thread.loop)
        except BaseException as error:
            # The block cleans up, and raises the error again.
            run(block.__aexit__(type(error), error, error.__traceback__))
            raise
        else:
            run(block.__aexit__(None, None, None))
    finally:
        thread.stop()
