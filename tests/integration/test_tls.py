"""TLS, a unix socket, users and passwords of any character, with a real server and a real Sentinel that speak
TLS. The certificates are made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from helpers import meter
from helpers.own_server import free_port, own_server
from helpers.sentinel_trio import sentinel_trio
from helpers.server_cluster import server_cluster
from helpers.server_node import Node

from asyncq import AsyncQ, BrokerNotConfigured, BrokerUnavailable, Worker
from asyncq.broker.transport import connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

SERVER = shutil.which("redis-server") or ""
NASTY = "p #/?[]@:%&=+;,'ä$"
"""A password with every character that means something in a URL."""


def speaks_tls() -> bool:
    """Returns whether the server of this system was built with TLS. The embedded one is not."""
    if not SERVER or shutil.which("openssl") is None:
        return False
    words = [SERVER, "--port", "0", "--tls-port", str(free_port()), "--tls-cert-file", "/nosuch"]
    ran = subprocess.run(words, capture_output=True, timeout=10, check=False)
    return b"Failed to configure TLS" in ran.stdout + ran.stderr


with_tls = pytest.mark.skipif(not speaks_tls(), reason="no redis-server that speaks TLS, or no openssl")


class Authority:
    """Signs certificates, each into the directory as NAME.pem with NAME.key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._run(
            "req", "-x509", *self._new_key("ca"), "-days", "2", "-subj", "/CN=authority", "-out", "ca.pem"
        )

    def sign(self, name: str, *, hosts: str = "IP:127.0.0.1,DNS:localhost", days: int = 2) -> None:
        """Makes a key and a certificate. With `days=-1` it has expired."""
        (self.directory / "hosts").write_text(f"subjectAltName={hosts}\n")
        self._run("req", *self._new_key(name), "-subj", f"/CN={name}", "-out", "request")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "hosts"]
        self._run("x509", "-req", "-in", "request", *signed, "-days", str(days), "-out", f"{name}.pem")

    def _new_key(self, name: str) -> list[str]:
        return ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key"]

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    """An authority with a server's certificate, a client's, an expired one and one for another name."""
    authority = Authority(tmp_path_factory.mktemp("tls") / "files")
    authority.sign("server")
    authority.sign("client")
    authority.sign("expired", days=-1)
    authority.sign("elsewhere", hosts="DNS:elsewhere.example")
    return authority


@pytest.fixture
def start(authority, tmp_path) -> Iterator[Callable[..., int]]:
    """Starts a server with a certificate, and returns its port."""
    running: list[Node] = []

    def start(name: str = "server", **options: str) -> int:
        folder = authority.directory
        lines = [
            f"tls-ca-cert-file {folder}/ca.pem",
            f"tls-cert-file {folder}/{name}.pem",
            f"tls-key-file {folder}/{name}.key",
            *(f"{option.replace('_', '-')} {value}" for option, value in options.items()),
        ]
        client = {
            "ssl": True,
            "ssl_cert_reqs": "none",
            "ssl_check_hostname": False,
            "ssl_certfile": f"{folder}/client.pem",
            "ssl_keyfile": f"{folder}/client.key",
        }
        running.append(Node(tmp_path / f"server{len(running)}", lines, [], client, SERVER))
        return running[-1].start().port

    yield start
    for node in running:
        node.kill()


async def works(url: str) -> None:
    """Lets a job go its way: over all kinds of connections of a worker."""
    app = AsyncQ(url, namespace="tls", lease=2)

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    async with app, Worker(app):
        assert await double.options(wait=20).call(4) == 8


async def error_of(url: str, timeout: float = 2.0) -> tuple[str, str]:
    """Returns the first line of the error with which an app does not open, and the rest."""
    with pytest.raises((BrokerUnavailable, BrokerNotConfigured)) as caught:
        await AsyncQ(url, operation_timeout=timeout).open()
    first, _, rest = str(caught.value).partition("\n")
    return first, rest


@with_tls
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_jobs_run_over_tls(start, authority, host):
    port = start(tls_auth_clients="no")
    await works(f"rediss://{host}:{port}/0?ssl_ca_certs={authority.directory}/ca.pem")


@with_tls
async def test_a_server_that_asks_for_a_certificate_of_the_client_gets_it(start, authority):
    port, folder = start(), authority.directory
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.pem"
    await works(f"{url}&ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key")
    line, _ = await error_of(url)
    assert f"no server at rediss://127.0.0.1:{port}" in line


@with_tls
@pytest.mark.parametrize(
    ("name", "problem"), [("expired", "certificate has expired"), ("elsewhere", "IP address mismatch")]
)
async def test_an_expired_certificate_and_one_for_another_name_are_named_in_one_line(
    start, authority, name, problem
):
    port = start(name, tls_auth_clients="no")
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.directory}/ca.pem"
    line, rest = await error_of(url)
    assert problem in line
    assert rest.count("\n") == 0
    if name == "elsewhere":
        await works(f"{url}&ssl_check_hostname=false")


@with_tls
async def test_a_certificate_of_an_unknown_authority_is_named_in_one_line(start, authority, tmp_path):
    Authority(tmp_path / "other")
    port = start(tls_auth_clients="no")
    line, mend = await error_of(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/other/ca.pem")
    assert "certificate verify failed" in line
    assert "ssl_ca_certs=" in mend


@with_tls
async def test_a_connect_that_is_cancelled_at_any_moment_leaves_no_socket_open(start, authority):
    port, folder = start(), authority.directory
    files = f"ssl_ca_certs={folder}/ca.pem&ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key"
    address = connection.parse(f"rediss://127.0.0.1:{port}/0?{files}")
    before = set(meter.descriptors())
    is_done, turns = False, 0
    while not is_done:
        connecting = asyncio.ensure_future(connection.connect(address, "cancelled"))
        for _ in range(turns):
            await asyncio.sleep(0)
        is_done = connecting.done()
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            connection.let_go(connecting.result())
        for _ in range(5):  # no more than the loop does before it is closed
            await asyncio.sleep(0)
        assert not set(meter.descriptors()) - before, turns
        turns += 3


@with_tls
async def test_sentinels_and_the_master_that_they_name_speak_tls(authority, tmp_path):
    folder = authority.directory
    with sentinel_trio(tmp_path / "trio", tls=folder, password="x", binary=SERVER) as trio:
        url = (
            trio.url.replace("redis+sentinel://", "rediss+sentinel://:x@") + f"?ssl_ca_certs={folder}/ca.pem"
        )
        mine = f"&ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key"
        await works(url + mine)
        line, mend = await error_of(f"{trio.url.replace('://', '://:x@')}")
        assert line.startswith("no Sentinel can be reached: ")
        assert "rediss+sentinel://" in mend
        line, mend = await error_of(f"rediss+sentinel://{trio.hosts}/shop")
        assert "certificate verify failed" in line
        assert "ssl_ca_certs=" in mend


@with_tls
async def test_all_nodes_of_a_cluster_speak_tls(authority, tmp_path):
    folder = authority.directory
    with server_cluster(
        tmp_path / "cluster", replicas=0, tls=folder, password=NASTY.replace('"', ""), binary=SERVER
    ) as cluster:
        login = f"rediss+cluster://:{quote(NASTY, safe='')}@{cluster.hosts}"
        files = f"&ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key"
        await works(f"{login}?ssl_ca_certs={folder}/ca.pem{files}")
        line, mend = await error_of(f"redis+cluster://:x@{cluster.hosts}")
        assert "redis+cluster://:***@" in line
        assert "rediss+cluster://" in mend
        line, mend = await error_of(login)
        assert "certificate verify failed" in line
        assert "ssl_ca_certs=" in mend
        wrong = login.replace(quote(NASTY, safe=""), "wrong")
        line, _ = await error_of(f"{wrong}?ssl_ca_certs={folder}/ca.pem{files}")
        assert "WRONGPASS" in line
        assert "wrong@" not in line


@pytest.mark.parametrize("user", ["", "me@home:%"])
async def test_a_user_and_a_password_of_any_characters_log_in_over_a_socket_and_over_tcp(tmp_path, user):
    with own_server(tmp_path / "data", durable=False) as server:
        name = user or "default"
        server.do("ACL", "SETUSER", name, "on", "resetpass", f">{NASTY}", "~*", "&*", "+@all")
        socket = server.url.removeprefix("unix://")
        credentials = f"{quote(user, safe='')}:{quote(NASTY, safe='')}@"
        await works(f"unix://{credentials}{socket}")
        await works(f"unix://{socket}?username={quote(name, safe='')}&password={quote(NASTY, safe='')}")
        with contextlib.closing(server.client(username=name, password=NASTY)) as client:
            port = free_port()
            client.config_set("port", port)
        await works(f"redis://{credentials}127.0.0.1:{port}/0")
        wrong = quote(NASTY + "x", safe="")
        line, _ = await error_of(
            f"redis://{credentials.replace(quote(NASTY, safe=''), wrong)}127.0.0.1:{port}/0"
        )
        assert "WRONGPASS" in line
        assert wrong not in line
