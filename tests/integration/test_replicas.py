"""The setting `replicas`: an enqueue returns when so many replicas have its jobs, and else raises
`NotReplicated`, with real servers and replicas that are frozen, killed or not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest
from helpers.own_server import own_server
from helpers.replicated_server import replicated_server
from helpers.sentinel_trio import sentinel_trio
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import (
    AsyncQ,
    BrokerNotConfigured,
    BrokerUnavailable,
    NotReplicated,
    QueueFull,
    Worker,
    chain,
    group,
)

pytestmark = pytest.mark.anyio

TIMEOUT = 1.0
"""The operation timeout of most apps here. Replicas that run have a job after a millisecond."""


@pytest.fixture
def server(tmp_path):
    """A primary with one replica."""
    with replicated_server(tmp_path / "servers") as running:
        yield running


def make_app(url: str, **settings) -> AsyncQ:
    app = AsyncQ(url, **{"namespace": "replicas", "replicas": 1, "operation_timeout": TIMEOUT, **settings})

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return app


def has(server, app: AsyncQ, *ids: str) -> bool:
    """Returns whether a server has all of these jobs."""
    records = [app.sessions.shards.of(id_).records + id_ for id_ in ids]
    return server.do("EXISTS", *records) == len(ids)


def waiting(server) -> list[int]:
    """Returns the ids of the connections that wait for replicas."""
    with contextlib.closing(server.client()) as client:
        clients = client.client_list()
    return [
        int(each["id"])
        for each in clients
        if each["name"].startswith("asyncq-wait") and each["cmd"] == "wait"
    ]


async def not_replicated(call) -> NotReplicated:
    """Awaits a call that must fail after the operation timeout, and not much later."""
    stopwatch = Stopwatch()
    with pytest.raises(NotReplicated) as caught:
        await call
    assert stopwatch.took >= TIMEOUT * 0.95
    assert stopwatch.took < TIMEOUT + 1
    return caught.value


# -- replicas that confirm ---------------------------------------------------------------------------


async def test_an_enqueue_returns_only_when_the_replica_has_the_job(server):
    (replica,) = server.replicas
    async with make_app(server.url, operation_timeout=30) as app:
        double = app.tasks["double"]
        first = await double.delay(1)
        assert has(replica, app, first.id)
        replica.freeze()
        waiting = asyncio.create_task(double.options(task_id="late").delay(2))
        await until(lambda: has(server.primary, app, "late"), "the server to have the job")
        assert await app.AsyncResult("late").exists()  # nobody waits behind it
        assert not waiting.done()
        replica.thaw()
        assert (await waiting).id == "late"
        assert has(replica, app, "late")


async def test_a_hundred_callers_share_a_few_waits(server):
    async with make_app(server.url, operation_timeout=30) as app:
        double = app.tasks["double"]
        await double.delay(0)
        before = server.primary.calls("wait")
        results = await asyncio.gather(*(double.delay(n) for n in range(100)))
        assert server.primary.calls("wait") - before <= 5
        assert has(server.replicas[0], app, *(result.id for result in results))


async def test_jobs_with_replicas_run_as_any_other(server):
    app = make_app(server.url, operation_timeout=30)
    async with app, Worker(app):
        double = app.tasks["double"]
        assert await double.options(wait=30).call(4) == 8
        assert [await each.get(timeout=30) for each in await double.map([(1,), (2,)])] == [2, 4]
        assert await (await chain(double.s(1), double.s(), double.s()).delay()).get(timeout=30) == 8
        await double.options(ignore_result=True).delay(1)


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_workflow_returns_only_when_the_replica_has_all_of_its_jobs(server, shards):
    (replica,) = server.replicas
    async with make_app(server.url, operation_timeout=30, shards=shards) as app:
        double = app.tasks["double"]
        replica.freeze()
        parts = [double.options(task_id=f"job{n}").s(n) for n in range(600)]
        waiting = asyncio.create_task(group(parts).delay())
        await until(lambda: has(server.primary, app, "job0", "job599"), "the server to have the jobs")
        assert not waiting.done()
        replica.thaw()
        await waiting
        assert has(replica, app, *(f"job{n}" for n in range(600)))


async def test_no_job_is_missing_at_the_replica_when_the_primary_is_killed_at_any_moment(server):
    (replica,) = server.replicas
    async with make_app(server.url) as app:
        double = app.tasks["double"]
        accepted: list[str] = []

        async def enqueue() -> None:
            with contextlib.suppress(BrokerUnavailable):
                while True:
                    accepted.append((await double.delay(1)).id)

        callers = [asyncio.create_task(enqueue()) for _ in range(20)]
        await until(lambda: len(accepted) > 500, "many jobs to be accepted")
        server.primary.kill()
        known = list(accepted)
        await asyncio.gather(*callers)
        assert known
        assert has(replica, app, *accepted)


# -- replicas that do not ----------------------------------------------------------------------------


async def test_a_frozen_replica_is_reported_after_the_timeout_and_the_job_runs(server):
    (replica,) = server.replicas
    app = make_app(server.url)
    async with app:
        replica.freeze()
        error = await not_replicated(app.tasks["double"].options(task_id="mine").delay(4))
        assert isinstance(error, BrokerUnavailable)
        assert (error.ids, error.wanted, error.replicas) == (("mine",), 1, 0)
        what, mend = str(error).splitlines()
        assert what == "the server has accepted job 'mine', but 0 of 1 replicas had confirmed that within 1 s"
        assert "app.AsyncResult(id)" in mend
        replica.thaw()
        async with Worker(app):
            assert await app.AsyncResult("mine").get(timeout=30) == 8


@pytest.mark.parametrize("how", ["none", "killed", "killed meanwhile"])
async def test_a_replica_that_is_not_there_is_reported(tmp_path, how):
    with replicated_server(tmp_path / "servers", 0 if how == "none" else 1) as server:
        async with make_app(server.url) as app:
            if how == "killed":
                server.replicas[0].kill()
            if how == "killed meanwhile":
                server.replicas[0].freeze()
            call = asyncio.create_task(not_replicated(app.tasks["double"].options(task_id="mine").delay(4)))
            if how == "killed meanwhile":
                await until(lambda: has(server.primary, app, "mine"), "the server to have the job")
                server.replicas[0].kill()
            error = await call
            assert (error.ids, error.replicas) == (("mine",), 0)
            assert await app.AsyncResult("mine").exists()


async def test_the_error_says_how_many_replicas_had_the_job(tmp_path):
    with replicated_server(tmp_path / "servers", 2) as server:
        async with make_app(server.url, replicas=2) as app:
            await app.tasks["double"].delay(1)
            server.replicas[0].freeze()
            error = await not_replicated(app.tasks["double"].delay(4))
            assert (error.wanted, error.replicas) == (2, 1)
            assert "1 of 2 replicas" in str(error)


async def test_each_of_many_callers_gets_an_error_of_its_own(server):
    async with make_app(server.url) as app:
        server.replicas[0].freeze()
        double = app.tasks["double"]
        calls = [double.options(task_id=f"job{n}").delay(n) for n in range(50)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [error.ids for error in errors] == [(f"job{n}",) for n in range(50)]


async def test_calls_that_come_while_others_wait_fail_at_their_own_time(server):
    async with make_app(server.url) as app:
        server.replicas[0].freeze()
        double = app.tasks["double"]
        calls = []
        for n in range(5):
            calls.append(asyncio.create_task(not_replicated(double.options(task_id=f"job{n}").delay(n))))
            await until(lambda n=n: has(server.primary, app, f"job{n}"), "the server to have the job")
            await asyncio.sleep(TIMEOUT / 10)
        assert [(await call).replicas for call in calls] == [0] * 5
        assert server.primary.calls("wait") < 20


async def test_one_error_names_all_jobs_of_a_batch_and_of_a_workflow(server):
    async with make_app(server.url, shards=2) as app:
        server.replicas[0].freeze()
        double = app.tasks["double"]
        parts = [double.options(task_id=f"job{n}").s(n) for n in range(10)]
        error = await not_replicated(app.submit(parts))
        assert sorted(error.ids) == [f"job{n}" for n in range(10)]
        assert "10 jobs ('job" in str(error)
        steps = [double.options(task_id="first").s(1), double.options(task_id="last").s()]
        error = await not_replicated(chain(*steps).delay())
        assert error.ids == ("first", "last")
        assert has(server.primary, app, *(f"job{n}" for n in range(10)), "first", "last")


def test_a_blocking_call_raises_it_too(server):
    app = make_app(server.url)
    server.replicas[0].freeze()
    with app, pytest.raises(NotReplicated) as caught:
        app.tasks["double"].options(task_id="mine").delay_sync(4)
    assert caught.value.ids == ("mine",)


# -- the same call again -----------------------------------------------------------------------------


async def test_the_same_call_with_the_same_id_waits_for_the_replica_again(server):
    (replica,) = server.replicas
    app = make_app(server.url)
    async with app:
        double = app.tasks["double"]
        own = double.options(task_id="mine")
        replica.freeze()
        first = await not_replicated(own.delay(4))
        assert (await not_replicated(own.delay(4))).ids == first.ids
        replica.thaw()
        result = await own.delay(4)
        assert has(replica, app, "mine")
        with pytest.raises(ValueError, match="another call"):
            await own.delay(4)  # its replica has it: this is a call as any other
        async with Worker(app):
            assert await result.get(timeout=30) == 8
        assert server.primary.do("XLEN", app.sessions.shards[0].stream("default")) == 0


async def test_an_id_that_asyncq_made_can_be_used_again_after_the_error(server):
    (replica,) = server.replicas
    app = make_app(server.url)
    async with app, Worker(app):
        double = app.tasks["double"]
        replica.freeze()
        error = await not_replicated(double.delay(4))
        replica.thaw()
        result = await double.options(task_id=error.ids[0]).delay(4)
        assert await result.get(timeout=30) == 8


async def test_another_call_with_the_id_is_refused_as_ever(server):
    (replica,) = server.replicas
    async with make_app(server.url) as app:
        own = app.tasks["double"].options(task_id="mine")
        replica.freeze()
        await not_replicated(own.delay(4))
        with pytest.raises(ValueError, match="another call"):
            await own.delay(5)


async def test_an_equal_call_with_a_key_waits_for_the_replica_of_the_job_that_exists(server):
    (replica,) = server.replicas
    async with make_app(server.url) as app, make_app(server.url) as other:
        keyed = app.tasks["double"].options(key="once")
        replica.freeze()
        error = await not_replicated(keyed.delay(4))
        again = await not_replicated(other.tasks["double"].options(key="once").delay(4))
        assert again.ids == error.ids
        replica.thaw()
        assert (await keyed.delay(4)).id == error.ids[0]
        assert (await other.tasks["double"].options(key="once").delay(4)).id == error.ids[0]


# -- connections, cancellation, the end of the app ---------------------------------------------------


async def test_a_caller_that_is_cancelled_disturbs_no_other(server):
    (replica,) = server.replicas
    async with make_app(server.url, operation_timeout=30) as app:
        double = app.tasks["double"]
        replica.freeze()
        calls = [asyncio.create_task(double.options(task_id=f"job{n}").delay(n)) for n in range(3)]
        await until(lambda: has(server.primary, app, "job0", "job1", "job2"), "the jobs to be there")
        calls[0].cancel()
        replica.thaw()
        assert [result.id for result in await asyncio.gather(*calls[1:])] == ["job1", "job2"]


async def test_a_wait_whose_connection_is_cut_is_made_again(server):
    (replica,) = server.replicas
    async with make_app(server.url, operation_timeout=30) as app:
        replica.freeze()
        call = asyncio.create_task(app.tasks["double"].options(task_id="mine").delay(1))
        (first,) = await until(lambda: waiting(server.primary), "the server to be asked")
        server.primary.cut(first)
        await until(lambda: set(waiting(server.primary)) - {first}, "it to be asked again")
        replica.thaw()
        assert (await call).id == "mine"


async def test_a_server_that_hangs_meanwhile_is_reported_in_time(server):
    async with make_app(server.url) as app:
        server.replicas[0].freeze()
        call = asyncio.create_task(not_replicated(app.tasks["double"].options(task_id="mine").delay(1)))
        await until(lambda: waiting(server.primary), "the server to be asked")
        with server.primary.hanging():
            error = await call
        assert error.replicas is None
        assert "did not say in time what its replicas have" in str(error)


async def test_closing_the_app_ends_the_wait_and_says_that_the_job_exists(server):
    app = make_app(server.url, operation_timeout=30)
    await app.open()
    server.replicas[0].freeze()
    call = asyncio.create_task(app.tasks["double"].options(task_id="mine").delay(1))
    await until(lambda: has(server.primary, app, "mine"), "the server to have the job")
    await app.close()
    with pytest.raises(NotReplicated, match="the app was closed"):
        await call


async def test_a_full_server_refuses_the_job_before_any_replica_is_asked(server):
    async with make_app(server.url, max_length=1) as app:
        await app.tasks["double"].delay(1)
        before = server.primary.calls("wait")
        with pytest.raises(QueueFull):
            await app.tasks["double"].delay(1)
        assert server.primary.calls("wait") == before


# -- the master changes ------------------------------------------------------------------------------


async def test_a_job_that_the_new_master_never_received_is_sent_again_and_waits_for_its_replica(tmp_path):
    """The replica is cut off while the job is enqueued, and becomes the master. The old one comes back as its
    replica.
    """
    with sentinel_trio(tmp_path / "trio") as trio:
        app = make_app(trio.url, operation_timeout=60)
        async with app:
            await app.tasks["double"].delay(0)
            old = trio.named()
            new = trio.other(old)
            new.send(signal.SIGSTOP)
            old.do("CLIENT", "KILL", "TYPE", "replica")
            call = asyncio.create_task(app.tasks["double"].options(task_id="mine").delay(4))
            await until(lambda: has(old, app, "mine"), "the old master to have the job")
            old.kill()
            new.send(signal.SIGCONT)
            await asyncio.to_thread(trio.wait_until_named, new)
            await until(lambda: has(new, app, "mine"), "the job to be sent to the new master")
            assert not call.done()
            with (old.directory / "conf").open("a") as file:  # as a Sentinel would tell it some seconds later
                file.write(f"replicaof 127.0.0.1 {new.port}\n")
            old.start()
            assert (await call).id == "mine"
            assert has(old, app, "mine")
            assert old.role() == "slave"
            async with Worker(app):
                assert await app.AsyncResult("mine").get(timeout=30) == 8


async def test_a_new_master_without_a_replica_is_no_replica_of_the_job(tmp_path):
    """The replica has the job, but not as a replica: it is the master by now, and has none."""
    with sentinel_trio(tmp_path / "trio") as trio:
        async with make_app(trio.url, replicas=2, operation_timeout=6) as app:
            old = trio.named()
            new = trio.other(old)
            call = asyncio.create_task(app.tasks["double"].options(task_id="mine").delay(4))
            await until(lambda: has(new, app, "mine"), "the replica to have the job")
            old.kill()
            with pytest.raises(NotReplicated) as caught:
                await call
            assert caught.value.replicas == 0
            assert has(new, app, "mine")


# -- what it needs -----------------------------------------------------------------------------------


async def test_the_rights_to_wait_are_asked_for_only_with_the_setting(tmp_path):
    with replicated_server(tmp_path / "servers") as server:
        rules = ("~{replicas:*", "&*", "+@all", "-wait", "-exists")
        server.primary.do("ACL", "SETUSER", "app", "on", ">pw", *rules)
        url = server.url.replace("redis://", "redis://app:pw@")
        async with make_app(url, replicas=0) as app:
            await app.tasks["double"].delay(1)
        with pytest.raises(BrokerUnavailable) as caught:
            await make_app(url).open()
        what, mend = str(caught.value).splitlines()
        assert "lacks +exists +wait" in what
        assert mend.endswith(" +exists +wait")
        server.primary.do(*mend.split())
        async with make_app(url) as app:
            await app.tasks["double"].delay(1)


@pytest.mark.parametrize("url", ["memory://", "embedded://"])
async def test_an_embedded_server_has_no_replicas_and_says_so(url, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokerNotConfigured, match="needs a server with replicas"):
        await make_app(url).open()


async def test_without_the_setting_there_is_no_connection_for_it_and_no_key(tmp_path):
    with own_server(tmp_path, save="3600 1") as server, contextlib.closing(server.client()) as client:
        async with make_app(server.url, replicas=0) as app:
            await app.tasks["double"].delay(1)
            assert server.calls("wait") == 0
            assert not [each for each in client.client_list() if each["name"].startswith("asyncq-wait")]
            assert not client.exists(app.sessions.shards[0].replica_mark)
