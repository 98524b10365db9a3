"""Sentinel: the master is found, its role is checked, and after a failover all goes to the new master."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import pytest
from helpers.fake_sentinel import fake_sentinel
from helpers.own_server import OwnServer, free_port
from helpers.sentinel_trio import MASTER, sentinel_trio
from helpers.stopwatch import Stopwatch
from helpers.waiting import until
from helpers.worker_process import worker_process

from asyncq import AsyncQ, BrokerNotConfigured, BrokerUnavailable, ResultNotFound, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

KINDS = ("asyncq:", "asyncq-sub:", "asyncq-read:", "asyncq-beat:")
"""What the names of a worker's connections begin with."""


@pytest.fixture
def trio(tmp_path):
    with sentinel_trio(tmp_path / "trio") as running:
        yield running


@pytest.fixture
def servers(tmp_path) -> Iterator[list[OwnServer]]:
    """Two masters that know nothing of each other."""
    both = [OwnServer(tmp_path / f"server{n}", port=free_port()) for n in range(2)]
    try:
        yield [server.start() for server in both]
    finally:
        for server in both:
            server.kill()


def make_app(url: str, **settings) -> AsyncQ:
    app = AsyncQ(url, **{"namespace": "sentinel", "lease": 2, **settings})

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return app


def connected(names: list[str]) -> set[str]:
    """Returns which kinds of connections are among these names."""
    return {kind for kind in KINDS if any(name.startswith(kind) for name in names)}


def connected_to(server: OwnServer) -> set[str]:
    with contextlib.closing(server.client()) as client:
        return connected([each["name"] for each in client.client_list()])


# -- the master is found --


async def test_every_connection_of_a_worker_leads_to_the_master(trio):
    app = make_app(trio.url)
    async with app, Worker(app):
        assert await app.tasks["double"].options(wait=10).call(4) == 8
        master = trio.named()
        await until(lambda: connected(master.connections()) == set(KINDS), "all connections to be there")
        assert not connected(trio.other(master).connections())


async def test_a_database_is_selected_at_the_master(trio):
    async with make_app(f"{trio.url}/3") as app:
        await app.send("x", task_id="kept")
    async with make_app(f"{trio.url}?db=3") as app:
        assert await app.AsyncResult("kept").exists()
    async with make_app(trio.url) as app:
        assert not await app.AsyncResult("kept").exists()


async def test_a_replica_that_a_sentinel_names_is_refused_and_the_master_is_asked_for_again(trio):
    master = trio.named()
    replica = trio.other(master)
    ports = replica.port, replica.port, master.port
    async with fake_sentinel(*ports) as sentinel, make_app(sentinel.url) as app:
        await app.send("x", task_id="kept")
        assert sentinel.questions >= 3
        assert not connected(replica.connections())
    async with fake_sentinel(replica.port) as sentinel:
        with pytest.raises(BrokerUnavailable, match="is a replica, though a Sentinel has named it") as caught:
            await make_app(sentinel.url, operation_timeout=2).open()
        assert f"127.0.0.1:{replica.port}" in str(caught.value)


async def test_a_sentinel_that_is_down_or_hangs_delays_nothing(trio):
    trio.sentinels[0].kill()
    trio.sentinels[1].send(signal.SIGSTOP)
    stopwatch = Stopwatch()
    async with make_app(trio.url) as app:
        await app.send("x")
    assert stopwatch.took < 2


async def test_a_sentinel_that_has_no_password_answers_in_place_of_one_that_wants_another(servers):
    servers[1].do("CONFIG", "SET", "requirepass", "x")
    async with fake_sentinel(servers[0].port) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{servers[1].port},127.0.0.1:{sentinel.port}/{MASTER}"
        async with make_app(url) as app:
            await app.send("x")


async def test_a_sentinel_whose_answer_cannot_be_read_does_not_keep_the_others_from_being_asked(servers):
    async with fake_sentinel("nowhere") as confused, fake_sentinel(servers[0].port) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{confused.port},127.0.0.1:{sentinel.port}/{MASTER}"
        async with make_app(url) as app:
            await app.send("x")


# -- errors --


async def error_of(url: str, kind: type[Exception], timeout: float = 2.0) -> list[str]:
    """Returns the lines of the error with which an app does not open."""
    with pytest.raises(kind) as caught:
        await make_app(url, operation_timeout=timeout).open()
    return str(caught.value).splitlines()


async def test_sentinels_that_cannot_be_reached_are_named_in_one_line():
    ports = free_port(), free_port()
    (line,) = await error_of(
        f"redis+sentinel://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/shop", BrokerUnavailable
    )
    assert line.startswith("no Sentinel can be reached: ")
    for port in ports:
        assert f"no Sentinel at 127.0.0.1:{port} (" in line


async def test_a_name_that_no_sentinel_knows_is_refused_at_once(trio):
    stopwatch = Stopwatch()
    what, mend = await error_of(f"redis+sentinel://{trio.hosts}/nosuch", BrokerNotConfigured, timeout=20)
    assert "watches no master 'nosuch'" in what
    assert "sentinel monitor" in mend
    assert stopwatch.took < 5


async def test_a_server_is_not_taken_for_a_sentinel(servers):
    what, mend = await error_of(f"redis+sentinel://127.0.0.1:{servers[0].port}/shop", BrokerNotConfigured)
    assert what == f"127.0.0.1:{servers[0].port}: this is a server and not a Sentinel"
    assert "26379" in mend


async def test_the_sentinels_and_the_servers_have_passwords_of_their_own(tmp_path):
    with sentinel_trio(tmp_path / "trio", password="a:b@c/d?e", sentinel_password="#s %") as trio:
        server, own = "a%3Ab%40c%2Fd%3Fe", "%23s%20%25"
        with_both = f"redis+sentinel://:{server}@{trio.hosts}/shop?sentinel_password={own}"
        app = make_app(with_both)
        async with app, Worker(app):
            assert await app.tasks["double"].options(wait=10).call(4) == 8
            master = trio.named()
            await until(lambda: connected(master.connections()) == set(KINDS), "all connections to be there")

        what, mend = await error_of(f"redis+sentinel://:{server}@{trio.hosts}/shop", BrokerUnavailable)
        assert "NOAUTH" in what
        assert "(the Sentinel at 127.0.0.1:" in what
        assert "?sentinel_password=" in mend
        what, mend = await error_of(with_both.replace(own, "secret"), BrokerUnavailable)
        assert "WRONGPASS" in what
        assert "secret" not in what
        assert "***" in what
        what, *_ = await error_of(with_both.replace(server, "secret"), BrokerUnavailable)
        assert "WRONGPASS" in what
        assert "Sentinel at" not in what


# -- the master changes --


async def test_connections_to_the_old_master_are_closed_as_soon_as_a_sentinel_names_another_one(servers):
    """The old master still answers and calls itself a master, as behind a network that is cut in two."""
    old, new = servers
    async with fake_sentinel(old.port) as sentinel:
        app = make_app(sentinel.url)
        async with app, Worker(app):
            assert await app.tasks["double"].options(wait=10).call(4) == 8
            await until(lambda: connected_to(old) == set(KINDS), "all connections to be there")
            await until(lambda: sentinel.listening == 1, "the session to listen")
            sentinel.switch(old.port, new.port)
            stopwatch = Stopwatch()
            await until(lambda: connected_to(new) == set(KINDS), "all connections to be at the new master")
            assert not connected_to(old)
            assert stopwatch.took < 3
            assert await app.tasks["double"].options(wait=10).call(4) == 8


async def test_connections_follow_at_once_a_sentinel_that_named_the_old_master_for_some_seconds(servers):
    """Meanwhile none leads to the old master: a worker that reads at one server and stores at the other loses
    what it stores.
    """
    old, new = servers

    def is_lag_over() -> bool:
        assert not connected_to(old)
        return since_switch.took > 2.5

    async with fake_sentinel(old.port) as sentinel:
        app = make_app(sentinel.url)
        async with app, Worker(app):
            await until(lambda: connected_to(old) == set(KINDS), "all connections to be there")
            await until(lambda: sentinel.listening == 1, "the session to listen")
            sentinel.switch(old.port, new.port)
            sentinel.ports = [old.port]
            since_switch = Stopwatch()
            await until(lambda: not connected_to(old), "all connections to be closed")
            await until(is_lag_over, "the Sentinel to lag for some seconds")
            sentinel.ports = [new.port]
            since_right = Stopwatch()
            await until(lambda: connected_to(new) == set(KINDS), "all connections to be at the new master")
            assert since_right.took < 2
            assert not connected_to(old)


async def test_a_change_of_the_master_that_nobody_reported_is_seen_when_a_sentinel_is_back(servers):
    old, new = servers
    async with fake_sentinel(old.port) as sentinel, make_app(sentinel.url) as app:
        await until(lambda: sentinel.listening == 1, "the session to listen")
        sentinel.ports = [new.port]
        assert connected_to(old)
        sentinel.cut()
        await until(lambda: not connected_to(old), "the connections to be closed")
        await app.send("x", task_id="kept")
        assert connected_to(new)


async def test_a_sentinel_that_names_a_server_which_is_gone_closes_no_connection(servers):
    old, new = servers
    new.kill()
    async with fake_sentinel(old.port) as sentinel, make_app(sentinel.url) as app:
        await until(lambda: sentinel.listening == 1, "the session to listen")
        with contextlib.closing(old.client()) as client:
            before = {each["id"] for each in client.client_list() if each["name"].startswith("asyncq")}
            sentinel.ports = [new.port] * 3 + [old.port]
            asked = sentinel.questions
            sentinel.cut()
            await until(lambda: sentinel.questions >= asked + 4, "the session to have asked")
            await app.send("x")
            assert before <= {each["id"] for each in client.client_list()}


async def test_a_master_that_hangs_does_not_hold_up_the_way_to_the_new_one(servers):
    old, new = servers
    async with fake_sentinel(old.port) as sentinel:
        with old.hanging():
            app = make_app(sentinel.url)
            opening = asyncio.create_task(app.open())
            await until(lambda: sentinel.questions >= 1, "the session to have asked")
            sentinel.ports = [new.port]
            stopwatch = Stopwatch()
            await opening
            assert stopwatch.took < 2
            await app.close()


@pytest.mark.parametrize("way", ["failover", "kill"])
async def test_all_jobs_end_or_are_reported_lost_when_the_master_changes_while_they_run(trio, tmp_path, way):
    """What the new master has ends. What it has not is `ResultNotFound`. Nobody waits for longer than 12 s
    after the new master is there.
    """
    log, gate = str(tmp_path / "log"), tmp_path / "gate"
    with worker_process(trio.url, "sentinel"):
        async with make_app(trio.url) as app:
            old = trio.named()
            running = [
                await app.send("wait_for_file", (log, f"text{n}", str(gate)), task_id=f"job{n}")
                for n in range(20)
            ]
            waits = [asyncio.create_task(outcome(result)) for result in running]
            if way == "kill":
                old.kill()
                new = trio.other(old)
                await asyncio.to_thread(trio.wait_until_named, new)
            else:
                new = await asyncio.to_thread(trio.fail_over)
            since_named = Stopwatch()
            assert await (await app.send("add", (1, 2))).get(timeout=30) == 3
            assert since_named.took < 1.0 + 1.0  # the second one is for the busy machine of a test
            kept = [
                n
                for n in range(20)
                if new.do("EXISTS", app.sessions.shards.of(f"job{n}").records + f"job{n}")
            ]
            gate.touch()
            ends = await asyncio.wait_for(asyncio.gather(*waits), 12 + 5)
            assert [n for n in range(20) if ends[n] != "lost"] == kept
            await until(
                lambda: not connected(old.connections()) if old.process else True, "the old to be left"
            )


async def outcome(result) -> str:
    try:
        return await result.get()
    except ResultNotFound:
        return "lost"


async def test_a_waiter_of_a_job_that_the_new_master_never_received_gets_result_not_found(trio):
    """The replica is cut off and stopped while the job is enqueued. So the master alone has it, and dies."""
    async with make_app(trio.url) as app:
        old = trio.named()
        new = trio.other(old)
        new.send(signal.SIGSTOP)
        old.do("CLIENT", "KILL", "TYPE", "replica")
        result = await app.send("double", (1,))
        wait = asyncio.create_task(outcome(result))
        assert await result.exists()
        old.kill()
        new.send(signal.SIGCONT)
        await asyncio.to_thread(trio.wait_until_named, new)
        stopwatch = Stopwatch()
        assert await asyncio.wait_for(wait, 20) == "lost"
        assert stopwatch.took < 12


async def test_calls_go_on_when_the_master_is_back_as_a_replica(trio):
    """There and back: a master dies and comes back as a replica, twice."""

    def has_replica() -> bool:
        # Not by the server that has died: on a busy machine, the Sentinels may take the new master for dead,
        # too, and name the old one again.
        master = trio.named()
        roles = master.role(), trio.other(master).role()
        return roles == ("master", "slave") and master.do("WAIT", 1, 10) == 1

    app = make_app(trio.url, operation_timeout=30)
    async with app, Worker(app):
        for _ in range(2):
            old = trio.named()
            old.kill()
            assert await app.tasks["double"].options(wait=60).call(4) == 8
            old.start()
            await until(has_replica, "the old master to be a replica", timeout=60, every=0.1)
            await asyncio.to_thread(trio.wait_until_named, trio.named())
