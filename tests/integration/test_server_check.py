"""Settings of a server that may cost jobs or a password: a warning when an app opens,
an error with `strict`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.own_server import own_server
from helpers.waiting import until

from asyncq import AsyncQ, BrokerNotConfigured
from asyncq.broker.preflight import server_check
from asyncq.broker.transport.connection import parse

pytestmark = pytest.mark.anyio

SAFE = {"maxmemory": "0", "maxmemory-policy": "noeviction", "save": "", "appendonly": "yes"}
UNSAFE = {"appendonly": "no", "maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}
LOCAL = "redis://:secret@localhost/0"


def _problems(url, **options):
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return [finding.problem for finding in server_check.findings(parse(url), {**SAFE, **given})]


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({"appendonly": "no"}, "all jobs are lost"),
        ({"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, "allkeys-lru: a full server throws queues"),
        ({"maxmemory": "1", "maxmemory_policy": "volatile-ttl"}, "volatile-ttl: a full server throws outcom"),
    ],
)
def test_each_server_option_that_may_lose_jobs_is_reported(options, output):
    (problem,) = _problems(LOCAL, **options)
    assert output in problem


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"appendonly": "no", "save": "3600 1"},
        {"maxmemory_policy": "allkeys-lru"},  # without maxmemory, nothing is evicted
        {"maxmemory": "1"},
    ],
)
def test_nothing_is_reported_about_a_server_that_keeps_all_accepted_jobs(options):
    assert _problems(LOCAL, **options) == []


def test_nothing_is_reported_about_options_that_the_server_does_not_show():
    assert server_check.findings(parse("redis://db/0"), {}) == []


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@db:6379/0",
        "valkey://me:secret@10.0.0.7",
        "redis://db/0?password=secret",
        "redis+sentinel://:secret@localhost,db/shop",
        "redis+sentinel://db/shop?sentinel_password=secret",
    ],
)
def test_a_password_in_plain_text_to_another_machine_is_reported(url):
    (problem,) = _problems(url)
    assert "in plain text" in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    "url",
    [
        LOCAL,
        "redis://:secret@127.8.0.1/0",
        "redis://:secret@[::1]:6379/0",
        "rediss://:secret@db:6379/0",
        "valkeys://:secret@db:6379/0",
        "unix://:secret@/run/redis.sock",
        "redis://db:6379/0",
        "redis+sentinel://:secret@localhost,127.0.0.1:5/shop?sentinel_password=secret",
        "rediss+sentinel://:secret@db/shop",
        "redis+sentinel://db/shop",
    ],
)
def test_a_password_that_nobody_on_the_network_can_read_is_no_finding(url):
    assert _problems(url) == []


async def test_an_unsafe_server_causes_one_warning_however_often_an_app_opens(tmp_path, caplog):
    with own_server(tmp_path, **UNSAFE) as server:
        for _ in range(3):
            async with AsyncQ(server.url) as app:
                await until(lambda: len(caplog.records) >= 2, "both warnings")
                await app.control.dead.list()  # a third record would come before this answer
        output = [record.getMessage() for record in caplog.records]
    received = {(record.name, record.levelname) for record in caplog.records}
    assert received == {("asyncq.broker.preflight.server_check", "WARNING")}
    assert ["nothing is kept on disk" in output[0], "allkeys-lru" in output[1], len(output)] == [
        True,
        True,
        2,
    ]
    assert all(server.url in line and "; CONFIG SET " in line for line in output)


async def test_nothing_is_reported_about_a_private_server_even_with_strict(caplog):
    async with AsyncQ("memory://", strict=True) as app:
        await app.control.dead.list()
    assert caplog.records == []


async def test_a_strict_app_refuses_an_unsafe_server_at_each_open_and_leaves_no_connection(tmp_path):
    with own_server(tmp_path, **UNSAFE) as server:
        app = AsyncQ(server.url, strict=True)
        for _ in range(2):
            with pytest.raises(BrokerNotConfigured) as caught:
                await app.open()
            head, disk, memory = str(caught.value).splitlines()
            assert head == f"{server.url} is not fit for jobs (strict):"
            assert "; CONFIG SET appendonly yes" in disk
            assert "; CONFIG SET maxmemory-policy noeviction" in memory
        await until(lambda: "asyncq" not in str(server.do("CLIENT", "LIST")), "its connections to be closed")
        server.do("CONFIG", "SET", "appendonly", "yes")
        server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
        async with app:
            await app.control.dead.list()


@pytest.mark.parametrize("strict", [False, True])
async def test_a_server_that_does_not_show_its_configuration_is_accepted(tmp_path, caplog, strict):
    with own_server(tmp_path, **UNSAFE) as server:
        server.do("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config")
        async with AsyncQ(server.url.replace("unix://", "unix://app:pw@"), strict=strict) as app:
            await app.control.dead.list()
    assert caplog.records == []


@pytest.mark.parametrize("words", [("--strict",), ()])
def test_a_strict_worker_ends_with_exit_code_78_and_a_line_for_each_finding(tmp_path, words):
    (tmp_path / "shop.py").write_text("from asyncq import AsyncQ\napp = AsyncQ()\n")
    with own_server(tmp_path, **UNSAFE) as server:
        environ = {"ASYNCQ_URL": server.url} | ({} if words else {"ASYNCQ_STRICT": "1"})
        ended = subprocess.run(
            [sys.executable, "-m", "asyncq", "worker", "shop", *words],
            cwd=tmp_path,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert ended.returncode == 78, ended.stderr
    head, disk, memory = ended.stderr.splitlines()
    assert head == f"error: {server.url} is not fit for jobs (strict):"
    assert disk.lstrip().startswith("nothing is kept on disk")
    assert memory.lstrip().startswith("maxmemory-policy allkeys-lru")
