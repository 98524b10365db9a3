"""A worker whose server is away, and a worker whose user blocks all threads of asyncio's default executor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers.inside import ended, session_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Forwarder:
    """A port that is forwarded to the server. The test can cut it off.

    Attributes:
        url: of the server through this port. Its host is a name, not an address.
        speaks: while it is not set, data is held back.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._streams: list[asyncio.StreamWriter] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://localhost:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        back_reader, back_writer = await asyncio.open_unix_connection(self._socket)
        self._streams += (writer, back_writer)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass_on(reader, back_writer), self._pass_on(back_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.speaks.wait()
            writer.write(data)
        writer.close()

    def refuse(self) -> None:
        """Accepts no new connection. Open connections stay."""
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """Breaks all connections."""
        for stream in self._streams:
            stream.transport.abort()
        self._streams.clear()

    async def close(self) -> None:
        self.speaks.set()
        self.refuse()
        self.cut()
        if self._serving:
            await asyncio.wait(self._serving)


@pytest.fixture
async def forwarder(server_url: str) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(server_url.removeprefix("unix://"))
    await forwarder.open()
    yield forwarder
    await forwarder.close()


async def _lose_the_lease(app, worker, raw) -> None:
    consumer = session_of(worker).consumer
    await raw.hdel(app.sessions.shards[0].beats, consumer.name)


@pytest.mark.one_server("a proxy stands before its socket")
async def test_blocked_threads_of_the_default_executor_delay_nothing(make_app, forwarder, raw):
    gate = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    blocked = asyncio.create_task(asyncio.to_thread(gate.wait, 60))
    try:
        async with make_app(forwarder.url) as app:

            @app.task
            async def double(number: int) -> int:
                return 2 * number

            async with Worker(app) as worker:
                assert await double.options(wait=30).call(1) == 2
                forwarder.cut()
                assert await double.options(wait=30).call(2) == 4, "the connection is made again"
                before = session_of(worker).consumer.name
                await _lose_the_lease(app, worker, raw)
                await until(lambda: session_of(worker).consumer.name != before, "a new session")
                assert await double.options(wait=30).call(3) == 6
                stopwatch = Stopwatch()
        assert stopwatch.took < 3
        assert not blocked.done()
    finally:
        gate.set()
        await blocked


@pytest.mark.parametrize("way", ["gone", "silent"])
@pytest.mark.one_server("a proxy stands before its socket")
async def test_a_worker_whose_server_is_away_ends_within_its_grace_and_three_seconds(
    make_app, forwarder, way
):
    async with make_app(forwarder.url) as app:
        running = asyncio.Event()

        @app.task
        async def nap() -> None:
            running.set()
            await asyncio.sleep(60)

        worker = Worker(app, grace=0.3)
        task = asyncio.create_task(worker.run())
        await worker.started.wait()
        await nap.delay()
        await running.wait()
        if way == "silent":
            forwarder.speaks.clear()
        else:
            forwarder.refuse()
            forwarder.cut()
        stopwatch = Stopwatch()
        worker.stop()
        await task
    assert 0.3 <= stopwatch.took < 3.3
    assert (worker.handed_back, worker.counts.left) == (0, 1)


@pytest.mark.one_server("a proxy stands before its socket")
async def test_a_worker_that_waits_for_its_server_to_start_a_new_session_can_be_stopped(
    make_app, forwarder, raw
):
    async with make_app(forwarder.url) as app, Worker(app) as worker:
        lost = session_of(worker)
        forwarder.refuse()
        # All connections except that of the heartbeats, by which the worker learns that its lease is lost.
        ours = app.sessions.current().broker.commands.client
        for client in await raw.client_list():
            name = client["name"]
            if name in {f"asyncq:{ours}", f"asyncq-sub:{ours}", f"asyncq-read:{lost.consumer.name}"}:
                await raw.client_kill_filter(_id=client["id"])
        await _lose_the_lease(app, worker, raw)
        await until(lambda: session_of(worker) is not lost, "the next session, which cannot start")
        stopwatch = Stopwatch()
        worker.stop()
        await ended(worker)
        assert stopwatch.took < 3
