"""The two ACL templates of the docs grant all rights that a client and a worker need, and no others."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from helpers.own_server import own_server
from helpers.waiting import until, until_state

from asyncq import AsyncQ, BrokerUnavailable, GroupResult, Retry, TaskExpired, TaskRevoked, Worker, wire
from asyncq.broker.consumer import Consumer
from asyncq.cli import exits
from asyncq.serializers import PLAIN_ARGUMENTS

pytestmark = pytest.mark.anyio

TEMPLATES = Path(__file__).parents[2] / "docs" / "acl"
USERS = ("asyncq-producer", "asyncq-worker")
# It is sent on a subscription that was silent for four seconds. No test waits so long.
KEEPALIVE = {"ping"}


def _template(user: str) -> str:
    (line,) = (TEMPLATES / f"{user.removeprefix('asyncq-')}.acl").read_text().splitlines()
    return line


def _allowed(user: str) -> set[str]:
    return set(re.findall(r" \+(\S+)", _template(user)))


@pytest.fixture
def server(tmp_path):
    """A server that has read the unchanged templates as its `aclfile`."""
    users = tmp_path / "users.acl"
    admin = "user default on nopass ~* &* +@all"
    users.write_text("\n".join([admin, *map(_template, (*USERS, "asyncq-operator")), ""]))
    with own_server(tmp_path, aclfile=users) as running:
        yield running


def _url(server, user):
    return server.url.replace("unix://", f"unix://{user}:PASSWORD@")


def _app(server, user, **settings):
    app = AsyncQ(_url(server, user), **{"lease": 0.6, "operation_timeout": 2, "max_length": 1000, **settings})

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="outer")
    async def outer() -> int:
        return await (await add.delay(1, 1)).get(timeout=30, disable_sync_subtasks=False)

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
    assert not await app.sessions.current().broker.listened_to("default")
    result = await add.delay(1, 2)
    assert await result.refresh() == "PENDING"
    assert await result.revoke()
    with pytest.raises(TaskRevoked):
        await result.get(timeout=30)
    later = await add.options(countdown=60).delay(1, 2)
    assert await later.refresh() == "SCHEDULED"
    assert await later.revoke()
    with pytest.raises(TaskExpired):
        await (await add.options(expires=0.05).delay(1, 2)).get(timeout=30)
    assert await app.control.dead.list() == []


async def _wait_for_each_other(app) -> None:
    """Runs a job that waits for the value of another job."""

    def job(id_: str, *args: int, **options) -> tuple[wire.Job, bytes]:
        body = PLAIN_ARGUMENTS.dumps(args, {})
        made = wire.Job(
            id_, "add", "default", body, f"n-{id_}", app.sessions.channel(), 0, 100_000, **options
        )
        return made, wire.encode_job(made)

    broker = app.sessions.current().broker
    await broker.intake.submit(
        [job("first", 1, 2, dependents=("next",)), job("next", 4, parents=("first",), value_template=0)]
    )
    assert await app.AsyncResult("next").get(timeout=30) == 7


async def _use(app, another) -> None:
    """Makes every call that a client may make while a worker runs, some of them by another client."""
    add, fail, hang = (app.tasks[name] for name in ("add", "fail", "hang"))
    assert await app.sessions.current().broker.listened_to("default")
    assert await add.call(1, 2) == 3
    many = await app.submit([add.s(1, i) for i in range(5)])
    assert await many.get(timeout=30) == [1, 2, 3, 4, 5]
    group = GroupResult("some", list(many), app=app)
    await group.save()
    assert await another.GroupResult.restore("some") == group
    await group.delete()
    await _wait_for_each_other(app)
    seen = await add.options(countdown=0.2).delay(4, 4)
    assert await another.AsyncResult(seen.id).get(timeout=60) == 8  # waits for a live job of another client
    assert await seen.get(timeout=30) == 8
    await seen.forget()
    running = await hang.delay()
    await until_state(running, "STARTED")
    assert await running.revoke(terminate=True)
    with pytest.raises(TaskRevoked):
        await running.get(timeout=30)
    failed = await fail.delay()
    await until_state(failed, "RETRY")
    with pytest.raises(KeyError):
        await failed.get(timeout=30)
    (letter,) = await app.control.dead.list()
    again = await app.control.dead.replay(letter.id)
    await again.revoke()
    assert await app.control.dead.delete([letter.id]) == 0


async def _die_with_a_job(app) -> None:
    """Lets a worker read one job and die."""
    consumer = Consumer(app.sessions.current().broker.commands, "gone", ["default"])
    await consumer.make_groups()
    beating = consumer.beating()
    assert await asyncio.to_thread(beating.beat, 1) == []
    (stream,) = consumer.served.streams
    assert len(await consumer.read([stream], 1, block=True)) == 1
    assert len(await consumer.unknown_entries(stream, [])) == 1
    beating.close()
    consumer.close()


@pytest.mark.one_shard
async def test_the_acl_templates_allow_all_that_asyncq_does_and_nothing_else(server, producer, worker_app):
    await _use_without_a_worker(producer)
    job = await producer.tasks["add"].delay(5, 5)
    await _die_with_a_job(worker_app)

    @worker_app.task(name="alone", concurrency=1, rate_limit=1000)
    async def alone() -> None:
        await asyncio.sleep(0.01)

    server.do("XADD", producer.sessions.shards[0].stream("default"), "*", "not", "a message")
    async with Worker(worker_app):
        assert await job.get(timeout=30) == 10
        outer = await producer.send("outer")
        assert await outer.get(timeout=30) == 2
        (letter,) = await producer.control.dead.list()
        await producer.control.dead.delete([letter.id])
        await _use(producer, worker_app)
        await asyncio.gather(*(alone.call() for _ in range(3)))
        assert await worker_app.sessions.current().broker.server_version()
    held = await producer.tasks["hang"].delay()
    async with Worker(worker_app, grace=0):
        await until_state(held, "STARTED")
    assert await held.refresh() == "PENDING"  # handed back
    refused = {(entry["username"], entry["object"]) for entry in _client(server).acl_log()}
    # CLIENT SETINFO of redis-py, which Redis 7.0 does not know yet, and the check of the configuration.
    assert {command for _, command in refused} <= {"client|setinfo", "config|get"}, refused
    used = {name.removeprefix("cmdstat_") for name in server.do("INFO", "commandstats")}
    allowed = _allowed("asyncq-producer") | _allowed("asyncq-worker")
    assert allowed - used - KEEPALIVE == set(), "the templates allow commands that nobody needs"


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


async def test_an_operator_may_make_every_call_of_control(server, worker_app):
    async with _app(server, "asyncq-operator") as app:
        add, hang = app.tasks["add"], app.tasks["hang"]
        control = app.control
        async with Worker(worker_app, name="w1", concurrency=1):
            running = await hang.delay()
            await until_state(running, "STARTED")
            last = await (add.s(1, 2) | add.s(3)).delay()
            later = await add.options(countdown=60).delay(1, 2)
            assert len(await control.ping(timeout=5)) == 1
            assert [worker.name for worker in await control.workers()] == ["w1"]
            await control.quiet("w1")
            assert running.id in await control.stacks("w1")
            await control.pause("default")
            assert [queue.waiting for queue in await control.queues()] == [1]
            assert (await control.stats()).waiting_for_parents == 1
            assert [job.id for job in await control.active()] == [running.id]
            assert len(await control.jobs()) == 4
            page = await control.jobs(limit=3)
            assert len(await control.jobs(cursor=page.cursor)) == 1
            for result in (running, last, last.parent, later):
                assert (await control.why(result.id)).reasons
            await control.resume("default")
            assert await control.purge("default") == 1
            await control.revoke([running.id, later.id], terminate=True)
            assert await control.dead.list() == []
            await control.stop("w1")


@pytest.mark.parametrize("user", USERS)
def test_each_user_is_refused_foreign_keys_and_commands(server, user):
    with _client(server, user) as client:
        commands = FORBIDDEN + (ONLY_FOR_WORKERS if user == "asyncq-producer" else [])
        for command in commands:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize("user", USERS)
def test_a_script_of_a_user_can_do_no_more_than_the_user_may(server, user):
    with _client(server, user) as client:
        sha = client.script_load(FOREIGN)
        with pytest.raises(redis.exceptions.ResponseError, match=r"ACL failure|can.t access"):
            client.evalsha(sha, 0)
    assert server.do("EXISTS", "elsewhere") == 0


# -- a user who lacks a right ----------------------------------------------------------------------

NICE_TO_HAVE = {"client|setname"}
ASKED_FOR_WHEN_USED = {"xrange", "xrevrange"}  # needed only for dead letters
WORKER_NEEDS = sorted(_allowed("asyncq-worker") - NICE_TO_HAVE - {"xrevrange"})
CLIENT_NEEDS = sorted(_allowed("asyncq-producer") - NICE_TO_HAVE - ASKED_FOR_WHEN_USED)
NARROWED = {
    "off": ["off"],
    "keys of another namespace": ["resetkeys", "~{other:*"],
    "no queue": ["resetkeys", "~{asyncq:0}:r:*", "~{asyncq:0}:[^q]*"],
    "keys for reading only": ["resetkeys", "%R~{asyncq:*"],
    "no channels": ["resetchannels"],
    "only the channel of replies": ["resetchannels", "&{asyncq:0}:c:*"],
}


async def _cli_error_of_a_worker(server) -> exits.CliError:
    with pytest.raises(BrokerUnavailable) as caught:
        await Worker(_app(server, "asyncq-worker")).run()
    refusal = exits.cli_error(caught.value)
    assert refusal is not None
    assert refusal.code == exits.Code.NO_PERMISSION
    assert "PASSWORD" not in str(refusal)
    assert str(refusal).startswith("unix://asyncq-worker:***@")
    assert "\n" not in str(refusal)
    return refusal


@pytest.mark.parametrize("right", WORKER_NEEDS)
async def test_a_worker_whose_user_lacks_one_right_is_refused_at_its_start(server, right):
    server.do("ACL", "SETUSER", "asyncq-worker", f"-{right}")
    refusal = await _cli_error_of_a_worker(server)
    assert right.partition("|")[0] in str(refusal)
    if right not in {"evalsha", "script|load", "subscribe"}:  # without these, the check cannot run
        assert refusal.hint == f"ACL SETUSER asyncq-worker +{right}"
        server.do(*refusal.hint.split())
        async with Worker(_app(server, "asyncq-worker")):
            pass


@pytest.mark.parametrize("rules", NARROWED.values(), ids=NARROWED)
async def test_a_worker_whose_user_may_not_use_its_keys_is_refused_at_its_start(server, rules):
    server.do("ACL", "SETUSER", "asyncq-worker", *rules)
    refusal = await _cli_error_of_a_worker(server)
    assert refusal.hint
    if refusal.hint.startswith("ACL SETUSER"):
        server.do(*refusal.hint.split())
        async with Worker(_app(server, "asyncq-worker")):
            pass


async def test_a_connection_needs_no_client_name(server, caplog):
    for user in USERS:
        server.do("ACL", "SETUSER", user, "-client|setname")
    caplog.set_level("WARNING", "asyncq")
    async with _app(server, "asyncq-producer") as app, Worker(_app(server, "asyncq-worker")):
        assert await app.tasks["add"].call(1, 2) == 3
    assert not caplog.records


@pytest.mark.parametrize("right", CLIENT_NEEDS)
async def test_a_client_whose_user_lacks_one_right_is_refused_when_it_opens(server, right):
    server.do("ACL", "SETUSER", "asyncq-producer", f"-{right}")
    with pytest.raises(BrokerUnavailable, match=f"refuses: NOPERM .*{right.partition('|')[0]}") as caught:
        await _app(server, "asyncq-producer").open()
    assert "PASSWORD" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "password"),
    [
        ("-xreadgroup", "PASSWORD"),
        pytest.param("-evalsha", "PASSWORD", marks=pytest.mark.trial),
        ("on", "wrong"),
    ],
)
def test_a_worker_that_is_refused_ends_with_one_line_a_hint_and_exit_code_77(
    server, tmp_path, rule, password
):
    server.do("ACL", "SETUSER", "asyncq-worker", rule)
    (tmp_path / "shop.py").write_text("from asyncq import AsyncQ\napp = AsyncQ()\n")
    ended = subprocess.run(
        [sys.executable, "-m", "asyncq", "worker", "shop"],
        cwd=tmp_path,
        env={**os.environ, "ASYNCQ_URL": _url(server, "asyncq-worker").replace("PASSWORD", password)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    error, hint = ended.stderr.splitlines()
    assert ended.returncode == 77, ended.stderr
    assert error.startswith("error: unix://asyncq-worker:***@")
    assert hint
    assert password not in ended.stderr.replace("WRONGPASS", "")


@pytest.mark.parametrize("right", ["xreadgroup", "mget", "xack", "evalsha"])
@pytest.mark.one_shard
async def test_a_worker_that_loses_a_right_logs_it_a_few_times_and_works_again_when_it_has_the_right(
    server, producer, caplog, right
):
    caplog.set_level("WARNING", "asyncq")
    add = producer.tasks["add"]
    async with Worker(_app(server, "asyncq-worker"), concurrency=4) as worker:
        assert await add.call(1, 1) == 2
        server.do("ACL", "SETUSER", "asyncq-worker", f"-{right}")
        server.do("CLIENT", "KILL", "USER", "asyncq-worker")
        jobs = [await add.delay(n, n) for n in range(20)]
        await until(lambda: _refusals(caplog), "a log record about it")
        await asyncio.sleep(2 * worker.app.settings.lease)  # long enough to repeat the message
        output = len(_refusals(caplog))
        server.do("ACL", "SETUSER", "asyncq-worker", f"+{right}")
        assert await asyncio.gather(*(job.get(timeout=30) for job in jobs)) == [2 * n for n in range(20)]
    assert output <= 3, _refusals(caplog)  # one record each about reads, outcomes and the lease


def _refusals(caplog) -> list[str]:
    words = ("NOPERM", "ACL failure", "can't run this command")
    return [text for text in caplog.messages if any(word in text for word in words)]


def _client(server, user=None) -> redis.Redis:
    return redis.Redis.from_url(_url(server, user) if user else server.url, decode_responses=True)
