"""`asyncq worker --health-port`: answers at `/livez` and `/readyz` whether the worker is alive and ready.

The process that the user has started serves: the worker, or the supervisor of several. The server
(`health_server`) runs on a thread of its own, so it answers also while a body blocks the event loop: then the
answer of `/livez` is 503.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asyncq.cli.exits import CliError
from asyncq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from asyncq.worker import Worker

T = TypeVar("T")

LIVE_WITHIN = 5.0
"""Seconds in which a loop must answer. A body that holds the loop longer keeps all other jobs waiting."""
READY_WITHIN = 0.8
"""Seconds in which the server must answer: less than the second that a probe of Kubernetes waits."""


class Health(NamedTuple):
    """What the endpoints answer.

    Attributes:
        is_live: whether the event loop runs.
        is_ready: whether jobs can start: the worker has started, is not stopping, and reaches its server.
    """

    is_live: bool
    is_ready: bool


def asked(loop: asyncio.AbstractEventLoop, question: Coroutine[Any, Any, T], timeout: float) -> T | None:
    """Runs a coroutine on the loop of another thread, and returns its answer; None if the loop does not
    answer in time. Blocks.

    Args:
        loop: the loop.
        question: the coroutine. It is cancelled after the time.
        timeout: seconds.
    """
    future = asyncio.run_coroutine_threadsafe(question, loop)
    try:
        return future.result(timeout)
    except TimeoutError:
        future.cancel()
        return None


class WorkerHealth:
    """Answers for one worker, on any thread.

    Args:
        worker: the worker.

    Attributes:
        loop: the worker's event loop; None before it runs.
    """

    def __init__(self, worker: Worker) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._worker = worker

    def check(self) -> Health:
        """Asks the worker. Blocks for at most `LIVE_WITHIN` seconds."""
        if self.loop is None:
            return Health(is_live=True, is_ready=False)
        answer = asked(self.loop, self._is_ready(), LIVE_WITHIN)
        return Health(is_live=answer is not None, is_ready=bool(answer))

    def answer(self, tell: Callable[[bool], None]) -> None:
        """Tells whether the worker is ready; never, if its loop does not run. Returns at once."""
        if self.loop is None:
            tell(False)
            return

        async def tell_it() -> None:
            tell(await self._is_ready())

        asyncio.run_coroutine_threadsafe(tell_it(), self.loop)

    async def _is_ready(self) -> bool:
        session = self._worker.session
        if session is None or not self._worker.started.is_set() or session.held.stop.is_set():
            return False
        if not session.lease.is_fresh():
            return False
        try:
            await session.broker.commands.send(session.broker.shards[0], "PING", timeout=READY_WITHIN)
        except BrokerUnavailable:
            return False
        return True


@contextmanager
def serving(port: int | None, check: Callable[[], Health]) -> Iterator[None]:
    """Serves the endpoints while the block is open; does nothing without a port.

    Args:
        port: the TCP port, on all addresses.
        check: says how the worker is. It is called on threads of the server.

    Raises:
        CliError: another process listens on the port, or this user may not.
    """
    if port is None:
        yield
        return
    from asyncq.cli.health_server import HealthServer  # takes 2 MiB, which other workers do not need

    try:
        server = HealthServer(port, check)
    except OSError as error:
        raise CliError(
            f"--health-port {port}: {os.strerror(error.errno or 0)}",
            "give a port on which no other process listens, and which this user may use",
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="asyncq-health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def row(port: int | None) -> list[tuple[str, str]]:
    """Returns the row of the banner that says where the endpoints are."""
    return [] if port is None else [("health", f"http://0.0.0.0:{port}/livez and /readyz")]
