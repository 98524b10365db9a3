"""Servers that asyncq cannot use: the error says in one line why and in another what to do,
and comes soon.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from helpers.plain_servers import plain_servers

from asyncq import AsyncQ, BrokerNotConfigured, BrokerUnavailable
from asyncq.broker.transport import supported_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def start(tmp_path: Path):
    """Starts real servers, and returns their addresses. All end with the test."""
    with plain_servers(tmp_path) as servers:
        yield lambda *options: f"127.0.0.1:{servers.start(*options)}"


async def refused(url: str) -> list[str]:
    """Opens an app. Returns the lines of the error, which must come well before the app would give up."""
    app = AsyncQ(url, operation_timeout=20)
    start = time.monotonic()
    with pytest.raises(BrokerNotConfigured) as caught:
        await app.open()
    assert time.monotonic() - start < 10
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "***" in lines[0] or ":secret@" not in url
    return lines


@pytest.mark.parametrize("database", ["", "/0", "/3"])
async def test_a_node_of_a_cluster_is_refused(start, database):
    what, mend = await refused(f"redis://{start('--cluster-enabled', 'yes')}{database}")
    assert "this is a node of a Cluster" in what
    assert "redis+cluster://" in mend


@pytest.mark.parametrize("database", ["", "/3"])
async def test_a_sentinel_is_refused(start, database):
    what, mend = await refused(f"redis://{start('--sentinel')}{database}")
    assert "this is a Sentinel and not a server" in what
    assert "redis+sentinel://" in mend


async def test_a_database_number_above_the_last_one_is_refused_and_the_last_one_is_accepted(start):
    address = start("--databases", "4")
    what, mend = await refused(f"redis://{address}/4")
    assert what == f"redis://{address}/4: the server has no database 4"
    assert "lower number" in mend
    async with AsyncQ(f"redis://{address}/3") as app:
        await app.send("x", task_id="kept")
    async with AsyncQ(f"redis://{address}?db=3") as app:
        assert await app.AsyncResult("kept").exists()
    async with AsyncQ(f"redis://{address}") as app:
        assert not await app.AsyncResult("kept").exists()


class Old(asyncio.Protocol):
    """A fake server of an old version: it answers HELLO as that version does, and all else with OK."""

    def __init__(self, hello: bytes) -> None:
        self._hello = hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for command in data.split(b"*")[1:]:
            self._transport.write(self._hello if b"HELLO" in command else b"+OK\r\n")


@asynccontextmanager
async def old(hello: bytes) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Old(hello), "127.0.0.1", 0)
    try:
        yield f"redis://:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


V6_2 = (
    b"%7\r\n+server\r\n+redis\r\n+version\r\n+6.2.14\r\n+proto\r\n:3\r\n+id\r\n:4\r\n"
    b"+mode\r\n+standalone\r\n+role\r\n+master\r\n+modules\r\n*0\r\n"
)


@pytest.mark.parametrize(
    ("hello", "output", "advice"),
    [
        (V6_2, "(redis 6.2.14)", ""),
        (
            b"-ERR unknown command `HELLO`, with args\r\n",
            "(it knows no HELLO)",
            ", and neither rename-command HELLO nor a proxy that knows RESP2 only",
        ),
    ],
)
async def test_a_server_that_is_too_old_is_refused(hello, output, advice):
    async with old(hello) as url:
        what, mend = await refused(url)
    assert what.endswith(f": the server is too old {output}")
    assert mend == f"Use Redis 7.0 or later, or Valkey{advice}"


@pytest.mark.parametrize(
    ("version", "fits"),
    [("5.0.14", False), ("6.2.14", False), ("7.0.0", True), ("7.4.1-rc1", True), ("10.1", True), ("?", True)],
)
def test_which_server_versions_are_accepted(version, fits):
    facts = {b"server": b"redis", b"version": version.encode(), b"mode": b"standalone"}
    assert (supported_servers.problem(facts) is None) == fits
    assert (supported_servers.problem({"version": version, "mode": "standalone"}) is None) == fits


async def is_advised(url: str, advice: str) -> None:
    """Checks what the error for a server that cannot be reached advises. An app tries until its time is over,
    so it gets more time only where a busy machine needs more for a try.
    """
    for timeout in (0.1, 1.0, 10.0):
        with pytest.raises(BrokerUnavailable) as caught:
            await AsyncQ(url, operation_timeout=timeout).open()
        said = str(caught.value).partition("\n")[2]
        if advice in said if advice else not said:
            return
    raise AssertionError(f"{advice!r} is not what it says: {caught.value}")


async def test_a_tls_url_for_a_server_without_tls_is_reported(start):
    await is_advised(f"rediss://{start()}", "write redis:// instead of rediss://")


@pytest.fixture
def certificate(tmp_path):
    """Makes a folder with a `key` and a self-signed `cert` of a host."""
    if shutil.which("openssl") is None:
        pytest.skip("the certificate of this test is made by openssl, which is not here")

    def make(host):
        words = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=x -addext"
        subprocess.run(
            [*words.split(), f"subjectAltName={host}"], cwd=tmp_path, check=True, capture_output=True
        )
        return tmp_path

    return make


async def old_with_tls(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    server = await asyncio.get_running_loop().create_server(lambda: Old(V6_2), "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


async def test_the_certificate_of_a_server_must_be_for_the_name_in_the_url(certificate):
    folder = certificate("DNS:localhost")
    server, port = await old_with_tls(folder)
    try:
        what, _ = await refused(f"rediss://localhost:{port}?ssl_ca_certs={folder}/cert")
        assert "too old" in what
        wrong = f"rediss://127.0.0.1:{port}?ssl_ca_certs={folder}/cert"
        await is_advised(wrong, "?ssl_ca_certs=")
    finally:
        server.close()


async def test_wrong_urls_and_certificates_for_a_server_with_tls_are_reported(certificate):
    """Plain text, an unknown certificate and a missing file are refused; the right certificate works."""
    folder = certificate("IP:127.0.0.1")
    server, port = await old_with_tls(folder)
    address = f"127.0.0.1:{port}"
    try:
        await is_advised(f"redis://{address}", "write rediss:// instead of redis://")
        await is_advised(f"rediss://{address}", "?ssl_ca_certs=")
        what, _ = await refused(f"rediss://{address}?ssl_ca_certs={folder}/cert")
        assert "too old" in what
        what, _ = await refused(f"rediss://{address}?ssl_ca_certs={folder}/nosuch")
        assert "a file that ssl_ca_certs, ssl_certfile or ssl_keyfile names does not exist" in what
    finally:
        server.close()


async def test_an_unreachable_server_is_not_reported_as_one_with_another_protocol():
    for scheme in ("redis", "rediss"):
        await is_advised(f"{scheme}://127.0.0.1:1", "")
