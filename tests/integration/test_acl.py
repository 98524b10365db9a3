"""The two ACL templates of the docs: enough for all that a client and a worker do, and no more."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from own_server import own_server
from support import until_state

from asyncq import AsyncQ, BrokerUnavailable, Retry, TaskExpired, TaskRevoked, Worker
from asyncq.broker.consumer import Consumer

pytestmark = pytest.mark.anyio

TEMPLATES = Path(__file__).parents[2] / "docs" / "acl"
USERS = ("asyncq-producer", "asyncq-worker")
# Sent on a subscription that was silent for four seconds, which no test waits for.
KEEPALIVE = {"ping"}


def _template(user: str) -> str:
    (line,) = (TEMPLATES / f"{user.removeprefix('asyncq-')}.acl").read_text().splitlines()
    return line


def _allowed(user: str) -> set[str]:
    return set(re.findall(r" \+(\S+)", _template(user)))


@pytest.fixture
def server(tmp_path):
    """A server that has read the templates, as they stand, as its `aclfile`."""
    users = tmp_path / "users.acl"
    admin = "user default on nopass ~* &* +@all"
    users.write_text("\n".join([admin, *map(_template, USERS), ""]))
    with own_server(tmp_path, aclfile=users) as running:
        yield running


def _url(server, user):
    return server.url.replace("unix://", f"unix://{user}:PASSWORD@")


def _app(server, user, **settings):
    app = AsyncQ(_url(server, user), **{"lease": 0.6, "operation_timeout": 2, **settings})

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="outer")
    async def outer() -> int:
        return await (await add.delay(1, 1)).get(timeout=5, disable_sync_subtasks=False)

    @app.task(name="hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    @app.task(name="fail", retry=Retry(max_retries=1, backoff=0.5, jitter=False))
    async def fail() -> None:
        raise KeyError

    return app


@pytest.fixture
async def producer(server):
    async with _app(server, "asyncq-producer") as app:
        yield app


@pytest.fixture
async def worker_app(server):
    async with _app(server, "asyncq-worker") as app:
        yield app


async def _use_without_a_worker(app) -> None:
    add = app.tasks["add"]
    assert not await app._broker_here().listened_to("default")
    result = await add.delay(1, 2)
    assert await result.refresh() == "PENDING"
    assert await result.revoke()
    with pytest.raises(TaskRevoked):
        await result.get(timeout=5)
    later = await add.options(countdown=60).delay(1, 2)
    assert await later.refresh() == "SCHEDULED"
    assert await later.revoke()
    with pytest.raises(TaskExpired):
        await (await add.options(expires=0.05).delay(1, 2)).get(timeout=5)
    assert await app.control.dead.list() == []


async def _use(app, another) -> None:
    """All that a client may ask for while a worker works; another client looks on."""
    add, fail, hang = (app.tasks[name] for name in ("add", "fail", "hang"))
    assert await app._broker_here().listened_to("default")
    assert await add.call(1, 2) == 3
    assert await (await app.submit([add.s(1, i) for i in range(5)])).get(timeout=5) == [1, 2, 3, 4, 5]
    seen = await add.options(countdown=0.2).delay(4, 4)
    assert await another.AsyncResult(seen.id).get(timeout=5) == 8  # joins a live job
    assert await seen.get(timeout=5) == 8
    await seen.forget()
    running = await hang.delay()
    await until_state(running, "STARTED")
    assert await running.revoke(terminate=True)
    with pytest.raises(TaskRevoked):
        await running.get(timeout=5)
    failed = await fail.delay()
    await until_state(failed, "RETRY")
    with pytest.raises(KeyError):
        await failed.get(timeout=5)
    (letter,) = await app.control.dead.list()
    again = await app.control.dead.replay(letter.id)
    await again.revoke()
    assert await app.control.dead.delete([letter.id]) == 0


async def _die_with_a_job(app) -> None:
    """A worker takes one job and is never heard of again."""
    consumer = Consumer(app._broker_here(), "gone", ["default"])
    await consumer.make_groups()
    beating = consumer.beating()
    assert await asyncio.to_thread(beating.beat, 1) == []
    (stream,) = consumer.streams
    assert len(await consumer.read([stream], 1, block=True)) == 1
    assert len(await consumer.ghosts(stream, [])) == 1
    beating.close()
    consumer.close()


async def test_the_templates_allow_all_that_is_done_and_nothing_else(server, producer, worker_app):
    await _use_without_a_worker(producer)
    job = await producer.tasks["add"].delay(5, 5)
    await _die_with_a_job(worker_app)
    server.do("XADD", producer._keys.stream("default"), "*", "not", "a message")
    async with Worker(worker_app):
        assert await job.get(timeout=10) == 10
        outer = await producer.send("outer")
        assert await outer.get(timeout=5) == 2
        (letter,) = await producer.control.dead.list()
        await producer.control.dead.delete([letter.id])
        await _use(producer, worker_app)
        assert await worker_app._broker_here().server_version()
    held = await producer.tasks["hang"].delay()
    async with Worker(worker_app, grace=0):
        await until_state(held, "STARTED")
    assert await held.refresh() == "PENDING"  # handed back
    refused = {(entry["username"], entry["object"]) for entry in _client(server).acl_log()}
    # What redis-py says about itself, which Redis 7.0 does not know yet, and the look at the configuration.
    assert {command for _, command in refused} <= {"client|setinfo", "config|get"}, refused
    used = {name.removeprefix("cmdstat_") for name in server.do("INFO", "commandstats")}
    allowed = _allowed("asyncq-producer") | _allowed("asyncq-worker")
    assert allowed - used - KEEPALIVE == set(), "the templates allow what nobody needs"


FOREIGN = "return redis.call('SET', 'elsewhere', 1)"
FORBIDDEN = [
    ("SET", "elsewhere", "1"),
    ("MGET", "{asyncq2:0}:r:1"),
    ("XADD", "elsewhere", "*", "a", "b"),
    ("PUBLISH", "elsewhere", "x"),
    ("PUBLISH", "{asyncq2:0}:c:1", "x"),
    ("SUBSCRIBE", "elsewhere"),
    ("PSUBSCRIBE", "*"),
    ("EVAL", "return 1", "0"),
    ("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"),
    ("SCRIPT", "FLUSH"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("CONFIG", "GET", "requirepass"),
    ("ACL", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("XGROUP", "DESTROY", "{asyncq:0}:q:default", "g"),
]
ONLY_FOR_WORKERS = [
    ("XREADGROUP", "GROUP", "g", "me", "COUNT", "1", "STREAMS", "{asyncq:0}:q:default", ">"),
    ("XACK", "{asyncq:0}:q:default", "g", "0-1"),
    ("XGROUP", "CREATE", "{asyncq:0}:q:default", "g", "$", "MKSTREAM"),
]


@pytest.mark.parametrize("user", USERS)
def test_what_is_none_of_their_business_is_refused(server, user):
    with _client(server, user) as client:
        commands = FORBIDDEN + (ONLY_FOR_WORKERS if user == "asyncq-producer" else [])
        for command in commands:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize("user", USERS)
def test_a_script_of_their_own_can_do_no_more_than_they_may(server, user):
    with _client(server, user) as client:
        sha = client.script_load(FOREIGN)
        with pytest.raises(redis.exceptions.ResponseError, match=r"ACL failure|can.t access"):
            client.evalsha(sha, 0)
    assert server.do("EXISTS", "elsewhere") == 0


async def test_a_client_whose_user_may_not_load_scripts_is_told_so_at_once(server):
    server.do("ACL", "SETUSER", "asyncq-producer", "-script|load")
    app = _app(server, "asyncq-producer")
    with pytest.raises(BrokerUnavailable, match="refuses: NOPERM") as caught:
        await app.open()
    assert "PASSWORD" not in str(caught.value)


def test_a_worker_whose_user_may_not_load_scripts_ends_with_one_line_and_exit_code_77(server, tmp_path):
    server.do("ACL", "SETUSER", "asyncq-worker", "-script|load")
    (tmp_path / "shop.py").write_text("from asyncq import AsyncQ\napp = AsyncQ()\n")
    ended = subprocess.run(
        [sys.executable, "-m", "asyncq", "worker", "shop"],
        cwd=tmp_path,
        env={**os.environ, "ASYNCQ_URL": _url(server, "asyncq-worker")},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    error, hint = ended.stderr.splitlines()
    assert ended.returncode == 77, ended.stderr
    assert error.startswith("error: unix://asyncq-worker:***@")
    assert "the rights of that user" in hint


def _client(server, user=None) -> redis.Redis:
    return redis.Redis.from_url(_url(server, user) if user else server.url, decode_responses=True)
