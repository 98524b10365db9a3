"""Servers that lack a command, forbid one, close idle connections, or stand behind a proxy: asyncq works with
them, or an app says at its start in one line what is wrong, and in another what to do.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import redis
from helpers.plain_servers import plain_servers
from helpers.replicated_server import replicated_server
from helpers.stopwatch import Stopwatch

from asyncq import AsyncQ, BrokerNotConfigured, BrokerUnavailable, Worker
from asyncq.broker import commands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def start(tmp_path: Path):
    """Starts real servers with lines in their configuration, and returns their ports; ends all."""
    with plain_servers(tmp_path) as servers:
        yield lambda *lines: servers.start(lines=["save 3600 1", *lines])


def make_app(url: str, **settings) -> AsyncQ:
    app = AsyncQ(url, **{"lease": 2, "operation_timeout": 5, **settings})

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return app


async def works(app: AsyncQ, idle: float = 0) -> None:
    """Runs a job, and another one after a time in which nobody calls."""
    async with app, Worker(app):
        double = app.tasks["double"]
        assert await double.options(wait=30).call(4) == 8
        if idle:
            await asyncio.sleep(idle)
            stopwatch = Stopwatch()
            assert await double.options(wait=30).call(4) == 8
            assert stopwatch.took < 1.5


async def refused(run, kind: type[Exception] = BrokerNotConfigured) -> list[str]:
    """Awaits a start that must be refused. Returns the lines of the error."""
    stopwatch = Stopwatch()
    with pytest.raises(kind) as caught:
        await run
    assert stopwatch.took < 5
    return str(caught.value).splitlines()


# -- commands that are not there ---------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
async def test_a_server_without_config_works(start, strict, caplog):
    port = start('rename-command CONFIG ""')
    await works(make_app(f"redis://127.0.0.1:{port}/0", strict=strict))
    assert not caplog.records


@pytest.mark.parametrize("command", ["CLIENT", "EVAL", "KEYS", "FLUSHALL", "DEBUG", "ACL", "SELECT"])
async def test_a_server_without_a_command_that_asyncq_can_do_without_works(start, command, caplog):
    port = start(f'rename-command {command} ""')
    await works(make_app(f"redis://127.0.0.1:{port}/0"))
    assert not caplog.records


@pytest.mark.parametrize(
    "command", ["SET", "XADD", "PUBLISH", "XINFO", "EVALSHA", "SCRIPT", "SUBSCRIBE", "TIME"]
)
@pytest.mark.parametrize("other_name", ['""', "secret_name"])
async def test_a_server_without_a_command_that_a_client_needs_is_refused(start, command, other_name):
    port = start(f"rename-command {command} {other_name}")
    what, mend = await refused(make_app(f"redis://127.0.0.1:{port}/0").open())
    named = "XINFO CONSUMERS" if command == "XINFO" else command
    assert what == f"redis://127.0.0.1:{port}/0: the server does not know {named}, which asyncq needs"
    assert "rename-command" in mend


@pytest.mark.parametrize("command", ["XREADGROUP", "XGROUP", "INFO"])
async def test_a_server_without_a_command_that_a_worker_needs_is_refused_when_a_worker_starts(start, command):
    port = start(f'rename-command {command} ""')
    async with make_app(f"redis://127.0.0.1:{port}/0") as app:
        await app.tasks["double"].delay(1)
    what, mend = await refused(Worker(make_app(f"redis://127.0.0.1:{port}/0")).run())
    assert f"the server does not know {command}" in what
    assert "rename-command" in mend


async def test_a_server_without_hello_is_refused(start):
    port = start('rename-command HELLO ""')
    what, mend = await refused(make_app(f"redis://127.0.0.1:{port}/0").open())
    assert "it knows no HELLO" in what
    assert "rename-command HELLO" in mend


# -- commands that are forbidden ---------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["-client", "-config", "-hello", "-@admin", "-@dangerous +info"])
async def test_a_user_who_may_not_run_a_command_that_asyncq_can_do_without_works(start, rule, caplog):
    port = start()
    with redis.Redis(port=port) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", *rule.split())
    await works(make_app(f"redis://app:pw@127.0.0.1:{port}/0"))
    assert not caplog.records


@pytest.mark.parametrize("right", ["script|load", "evalsha", "subscribe"])
async def test_a_right_without_which_no_right_can_be_checked_is_named_with_the_line_that_grants_it(
    start, right
):
    port = start()
    with redis.Redis(port=port) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", f"-{right}")
        what, mend = await refused(make_app(f"redis://app:pw@127.0.0.1:{port}/0").open(), BrokerUnavailable)
        assert "NOPERM" in what
        assert mend == f"ACL SETUSER app +{right}"
        client.execute_command(*mend.split())
    async with make_app(f"redis://app:pw@127.0.0.1:{port}/0"):
        pass


# -- proxies and idle connections --------------------------------------------------------------------


@asynccontextmanager
async def proxy(
    port: int, change: Callable[[bytes], bytes] = bytes, idle: float | None = None
) -> AsyncIterator[int]:
    """Gives the port of a proxy in front of a server.

    Args:
        port: of the server.
        change: changes what clients send.
        idle: after so many seconds of silence on a connection, it forgets the connection and tells nobody.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        last, is_forgotten = time.monotonic(), False

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, how) -> None:
            nonlocal last, is_forgotten
            while data := await source.read(65536):
                is_forgotten = is_forgotten or (idle is not None and time.monotonic() - last > idle)
                last = time.monotonic()
                if not is_forgotten:
                    target.write(how(data))

        pair = asyncio.gather(copy(reader, back, change), copy(there, writer, bytes), return_exceptions=True)
        try:
            await pair
        finally:
            writer.transport.abort()
            back.transport.abort()

    def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(on_client, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def without_hello(data: bytes) -> bytes:
    return data.replace(b"HELLO", b"HULLO")


def with_another_protocol(data: bytes) -> bytes:
    return data.replace(b"HELLO\r\n$1\r\n3", b"HELLO\r\n$1\r\n4")


def with_resp2(data: bytes) -> bytes:
    return data.replace(b"HELLO\r\n$1\r\n3", b"HELLO\r\n$1\r\n2")


@pytest.mark.parametrize("password", ["", "app:pw@"])
@pytest.mark.parametrize("change", [without_hello, with_another_protocol, with_resp2])
async def test_a_proxy_that_knows_resp2_only_is_refused(start, change, password):
    port = start("user app on >pw ~* &* +@all")
    async with proxy(port, change) as front:
        what, mend = await refused(make_app(f"redis://{password}127.0.0.1:{front}/0").open())
        assert ("it knows no HELLO" if change is without_hello else "does not speak RESP3") in what
        assert "a proxy that knows RESP2 only" in mend.replace("no proxy", "a proxy")
        assert "pw" not in what


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_server_that_closes_idle_connections_costs_nothing_but_new_ones(tmp_path, replicas, caplog):
    with replicated_server(tmp_path / "servers", replicas, timeout=4) as server:
        await works(make_app(server.url, replicas=replicas), idle=7)
    assert not caplog.records


async def test_a_proxy_that_forgets_idle_connections_is_kept_awake(start, monkeypatch, caplog):
    """It forgets a connection after 2 s of silence here, and after a minute or more elsewhere."""
    monkeypatch.setattr(commands, "KEEPALIVE", 0.5)
    async with proxy(start(), idle=2) as front:
        app = make_app(f"redis://127.0.0.1:{front}/0")
        async with app:
            await app.tasks["double"].delay(1)
            await asyncio.sleep(5)
            stopwatch = Stopwatch()
            await app.tasks["double"].delay(1)
            assert stopwatch.took < 1
    assert not caplog.records
