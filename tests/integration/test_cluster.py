"""A Cluster: every node is found, shards are spread over the nodes, and all follow a shard that moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.inside import drop_subscription, keep_from_subscribing, session_of
from helpers.server_cluster import ServerCluster, slot_of
from helpers.waiting import until
from helpers.worker_process import worker_process

from asyncq import (
    AsyncQ,
    BrokerNotConfigured,
    BrokerUnavailable,
    NotReplicated,
    ResultNotFound,
    Worker,
    chain,
    chord,
    group,
)
from asyncq.broker import waiters
from asyncq.broker.schema.keys import Keys
from asyncq.cli.doctor import server_checks
from asyncq.worker import fetcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.server_cluster import ClusterNode

pytestmark = pytest.mark.anyio

NAMESPACE = "many"
KINDS = ("asyncq:", "asyncq-sub:", "asyncq-read:", "asyncq-beat:")
"""What the names of a worker's connections begin with."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[ServerCluster]:
    """Three primaries without replicas, for tests that leave the nodes as they are."""
    with contextlib.closing(
        ServerCluster(tmp_path_factory.mktemp("cluster"), replicas=0, save="3600 1")
    ) as cluster:
        yield cluster.start()


@pytest.fixture
def cluster(shared) -> Iterator[ServerCluster]:
    yield shared
    for node in shared.living():
        node.do("FLUSHALL")


@pytest.fixture
def own(tmp_path) -> Iterator[ServerCluster]:
    """Three primaries with a replica each, that the test may break."""
    with contextlib.closing(ServerCluster(tmp_path / "cluster", node_timeout=500)) as cluster:
        yield cluster.start()


@pytest.fixture
def divisible(tmp_path) -> Iterator[ServerCluster]:
    """The same, with nodes that can be cut off."""
    cluster = ServerCluster(tmp_path / "cluster", node_timeout=500, divisible=True)
    with contextlib.closing(cluster):
        yield cluster.start()


def make_app(url: str, **settings) -> AsyncQ:
    app = AsyncQ(url, **{"namespace": NAMESPACE, "lease": 2, **settings})

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    @app.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    return app


def id_in(app: AsyncQ, shard: int, name: str = "job") -> str:
    """Returns an id of the user's own that lies in a shard."""
    return next(id_ for n in range(10_000) if app.sessions.shards.number(id_ := f"{name}-{n}") == shard)


def connected_to(node: ClusterNode) -> Counter[str]:
    """Returns how many connections of each kind a node has."""
    return Counter(kind for name in node.connections() for kind in KINDS if name.startswith(kind))


def others_than(node: ClusterNode, cluster: ServerCluster) -> list[ClusterNode]:
    return [each for each in cluster.nodes if each is not node]


# -- what a user sees --


async def test_the_url_alone_makes_an_app_use_a_cluster_with_eight_shards(cluster):
    async with make_app(cluster.url) as app, Worker(app):
        assert app.settings.shard_count == 8
        assert await app.tasks["double"].options(wait=20).call(4) == 8
        results = [await app.tasks["double"].delay(n) for n in range(200)]
        assert [await result.get(timeout=20) for result in results] == [2 * n for n in range(200)]


async def test_one_node_in_the_url_is_enough(cluster):
    url = f"redis+cluster://127.0.0.1:{cluster.nodes[1].announced}"
    async with make_app(url) as app, Worker(app):
        assert await app.tasks["double"].options(wait=20).call(4) == 8


async def test_a_node_that_does_not_answer_is_passed_over(cluster):
    url = cluster.url.replace("://", "://127.0.0.1:1,")
    async with make_app(url) as app, Worker(app):
        assert await app.tasks["double"].options(wait=20).call(4) == 8


async def test_workflows_cross_the_shards(cluster):
    async with make_app(cluster.url) as app, Worker(app):
        double, add, total = (app.tasks[name] for name in ("double", "add", "total"))
        assert await (await chain(add.s(1, 2), add.s(3), double.s()).delay()).get(timeout=20) == 12
        numbers = [double.s(n).options(task_id=f"member-{n}") for n in range(30)]
        assert await (await chord(numbers, total.s()).delay()).get(timeout=20) == sum(range(0, 60, 2))
        assert await (await group(add.s(n, 1) for n in range(30)).delay()).get(timeout=20) == [*range(1, 31)]


async def test_jobs_are_spread_evenly_over_the_shards(cluster):
    async with make_app(cluster.url) as app:
        await app.tasks["double"].map([(n,) for n in range(8 * 64 * 3)])
        client = cluster.client(decode_responses=True)
        lengths = [client.xlen(Keys(NAMESPACE, shard).stream("default")) for shard in range(8)]
        client.close()
        assert sum(lengths) == 8 * 64 * 3
        assert max(lengths) <= 1.2 * sum(lengths) / 8


async def test_each_process_has_one_connection_of_each_kind_to_each_node_and_a_reader_for_each_shard(cluster):
    async with make_app(cluster.url) as app, Worker(app):
        assert await app.tasks["double"].options(wait=20).call(4) == 8
        shards = Counter(node.number for node in cluster.shards(NAMESPACE, 8).values())
        for node in cluster.nodes:
            own = {"asyncq:": 1, "asyncq-sub:": 1, "asyncq-beat:": 1, "asyncq-read:": shards[node.number]}

            def is_complete(node: ClusterNode = node, own: dict[str, int] = own) -> bool:
                return connected_to(node) == own

            await until(is_complete, f"node {node.number} to have {own}, not {connected_to(node)}")


async def test_nodes_are_asked_for_their_epoch_over_the_connections_for_commands(cluster):
    # A subscription takes any error for that of a SUBSCRIBE, and is lost then.
    async with make_app(cluster.url):

        def asked() -> list[set[str]]:
            clients = [node.do("CLIENT", "LIST").decode().splitlines() for node in cluster.nodes]
            return [
                {line.partition("name=")[2].partition(":")[0] for line in lines if "cmd=cluster|info" in line}
                for lines in clients
            ]

        await until(lambda: all(asked()), "all nodes to be asked")
        assert asked() == [{"asyncq"}] * 3


async def test_a_message_reaches_no_other_node_than_that_of_its_shard(cluster):
    for node in cluster.nodes:
        node.do("CONFIG", "RESETSTAT")
    async with make_app(cluster.url) as app, Worker(app):
        results = await app.tasks["double"].map([(n,) for n in range(200)])
        assert len(await results.get(timeout=20)) == 200
    sent: set[str] = set()
    for node in cluster.nodes:
        with contextlib.closing(node.client()) as client:
            sent |= client.info("commandstats").keys()
    assert "cmdstat_spublish" in sent
    assert "cmdstat_publish" not in sent, "the other nodes would get each message, too"


async def test_control_sees_all_nodes(cluster):
    async with make_app(cluster.url) as app:
        await app.tasks["double"].map([(n,) for n in range(640)])
        (queue,) = [one for one in await app.control.queues() if one.name == "default"]
        assert queue.waiting == 640
        assert await app.control.purge("default") == 640


async def test_schedules_progress_streams_and_orders_work(cluster):
    app = make_app(cluster.url)

    @app.task(name="count")
    async def count(most: int):
        for n in range(most):
            yield n

    async with app, Worker(app, name="one"):
        items = await app.tasks["count"].delay(50)
        assert [item async for item in items.stream()] == [*range(50)]
        assert list(await app.control.ping()) == ["one"]
        await app.schedules.add("tick", app.tasks["double"].s(3), every=1)
        async with asyncio.timeout(20):
            while not (await app.control.jobs(state="SUCCESS", task="double")).items:  # noqa: ASYNC110  another process notes it
                await asyncio.sleep(0.1)


async def test_a_worker_that_has_waited_in_vain_reads_a_level_that_comes_into_use(cluster, monkeypatch):
    monkeypatch.setattr(fetcher, "BLOCK_MS", 50)
    async with make_app(cluster.url) as app, Worker(app) as worker:
        shares = [each._share for each in session_of(worker).fetchers]
        await until(lambda: all(share.waited_in_vain for share in shares), "all fetchers to have waited")
        double = app.tasks["double"]
        for shard in range(8):
            call = double.options(task_id=id_in(app, shard), priority=5, wait=20)
            assert await call.call(shard) == 2 * shard


async def test_a_node_that_is_away_does_not_keep_the_channels_of_others_from_being_renewed(
    cluster, monkeypatch
):
    async with make_app(cluster.url) as app, Worker(app):
        subscription = app.sessions.current().listener.subscription
        renewed: list[int] = []
        subscription.renewed.add(lambda _: renewed.append(subscription.epoch))
        may_subscribe = keep_from_subscribing(monkeypatch, app, 3)
        drop_subscription(app)
        await until(lambda: renewed == [0] * 7, "the other groups to be renewed, without an epoch")
        job = app.tasks["double"].options(task_id=id_in(app, 4), wait=20)
        assert await job.call(4) == 8
        may_subscribe.set()
        await until(lambda: len(renewed) == 8, "the last group to be renewed")
        assert renewed[-1] == subscription.epoch > 0


async def test_a_waiter_asks_at_once_when_its_own_channel_is_renewed_after_others(cluster, monkeypatch):
    monkeypatch.setattr(waiters, "POLL", 1000)
    monkeypatch.setattr(waiters, "SPREAD", 1000)
    app, may_end = make_app(cluster.url), asyncio.Event()

    @app.task(name="hold")
    async def hold() -> None:
        await may_end.wait()

    async with app, Worker(app), make_app(cluster.url) as other:
        subscription = app.sessions.current().listener.subscription
        renewed: list[int] = []
        subscription.renewed.add(lambda _: renewed.append(subscription.epoch))
        may_subscribe_3, may_subscribe_5 = (keep_from_subscribing(monkeypatch, app, n) for n in (3, 5))
        drop_subscription(app)
        await until(lambda: len(renewed) == 6, "the other channels to be renewed")
        result = await hold.options(task_id=id_in(app, 3)).delay()
        waiting = asyncio.create_task(result.get(timeout=120))
        await until(lambda: result.state == "PENDING", "the first look")
        may_subscribe_5.set()
        await until(lambda: len(renewed) == 7, "the next channel to be renewed")
        may_end.set()
        assert await other.AsyncResult(result.id).get(timeout=20) is None
        assert not waiting.done()
        may_subscribe_3.set()
        async with asyncio.timeout(20):  # when its time is over, the waiter would ask once more
            await waiting


async def test_the_users_of_the_docs_have_all_rights_that_a_cluster_needs(cluster):
    folder = Path(__file__).parents[2] / "docs" / "acl" / "cluster"
    for node in cluster.nodes:
        for file in folder.glob("*.acl"):
            _, name, *rules = file.read_text().replace("asyncq:", f"{NAMESPACE}:").split()
            node.do("ACL", "SETUSER", name, *rules)

    def url(user: str) -> str:
        return cluster.url.replace("://", f"://asyncq-{user}:PASSWORD@")

    worker_app = make_app(url("worker"))
    async with make_app(url("producer")) as app, worker_app, Worker(worker_app):
        double, total = app.tasks["double"], app.tasks["total"]
        assert await double.options(wait=20).call(4) == 8
        members = [double.s(n).options(task_id=f"allowed-{n}") for n in range(16)]
        assert await (await chord(members, total.s()).delay()).get(timeout=20) == sum(range(0, 32, 2))
    async with make_app(url("operator")) as app:
        await app.tasks["double"].delay(1)
        assert (await app.control.queues())[0].waiting == 1
        assert (await app.control.stats()).exact
        assert await app.control.purge("default") == 1
    for node in cluster.nodes:
        node.do("ACL", "SETUSER", "asyncq-worker", "-ssubscribe")
    with pytest.raises(BrokerUnavailable, match=r"\+ssubscribe"):
        await make_app(url("worker")).open()


async def test_each_node_that_may_lose_jobs_is_named(cluster, caplog):
    careless = cluster.nodes[1]
    place = f"127.0.0.1:{careless.announced}"
    careless.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "1gb")
    try:
        with pytest.raises(BrokerNotConfigured, match=f"^{place} is not fit for jobs"):
            await make_app(cluster.url, strict=True).open()
        async with make_app(f"{cluster.url},{place}"):  # a URL not looked at so far
            await until(lambda: "allkeys-lru" in caplog.text, "the warning")
        (line,) = [line for line in caplog.messages if "allkeys-lru" in line]
        assert line.startswith(f"{place}: ")
        app = make_app(cluster.url)
        async with app:
            found = await server_checks.look(app)
        (spread,) = [each.text for each in found if each.check == "cluster"]
        assert spread.startswith("8 shards on 3 primaries: ")
        bad = [each.text for each in found if "allkeys-lru" in each.text]
        assert [text.partition(": ")[0] for text in bad] == [place]
        assert [each.check for each in found].count("clock") == 1, "what is all right is said once"
    finally:
        careless.do("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0")


async def test_an_enqueue_waits_for_the_replicas_of_its_own_shard(own):
    async with make_app(own.url, replicas=1, operation_timeout=3) as app, Worker(app):
        double = app.tasks["double"]
        calls = [double.options(task_id=id_in(app, shard), wait=20).call(shard) for shard in range(8)]
        assert await asyncio.gather(*calls) == [2 * shard for shard in range(8)]
        results = await double.map([(n,) for n in range(200)])
        assert len(await results.get(timeout=20)) == 200
        without = own.shards(NAMESPACE, 8)[0]
        own.replicas(without)[0].kill()
        with pytest.raises(NotReplicated, match="0 of 1 replicas"):
            await double.options(task_id=id_in(app, 0, "lonely")).delay(1)
        other = next(shard for shard, node in own.shards(NAMESPACE, 8).items() if node is not without)
        assert await double.options(task_id=id_in(app, other, "kept"), wait=20).call(2) == 4


# -- what is refused --


async def test_a_cluster_behind_the_url_of_one_server_is_refused_with_the_right_url(cluster):
    with pytest.raises(BrokerNotConfigured, match=r"node of a Cluster\n.*redis\+cluster://"):
        async with make_app(f"redis://127.0.0.1:{cluster.nodes[0].announced}"):
            pass


async def test_one_server_behind_the_url_of_a_cluster_is_refused(server_url, request):
    if not server_url.startswith("redis://"):
        pytest.skip("the server of the tests listens on a socket only")
    host = server_url.removeprefix("redis://").partition("/")[0]
    with pytest.raises(BrokerNotConfigured, match="no node of a Cluster"):
        async with make_app(f"redis+cluster://{host}"):
            pass


async def test_another_number_of_shards_is_refused(cluster):
    async with make_app(cluster.url):
        pass
    with pytest.raises(BrokerNotConfigured, match="shards"):
        async with make_app(cluster.url, shards=4):
            pass


async def test_a_job_is_unknown_only_after_a_node_has_confirmed_the_owners(cluster, monkeypatch):
    async with make_app(cluster.url, operation_timeout=2) as app:
        connections = app.sessions.current().broker.commands.connections
        confirm, refusals = connections.confirm_owners, [1, 1, 1]

        async def confirm_owners() -> None:
            if refusals:
                refusals.pop()
                raise BrokerUnavailable("the Cluster is down")
            await confirm()

        monkeypatch.setattr(connections, "confirm_owners", confirm_owners)
        assert await app.AsyncResult("nobody-knows-it").refresh() == "UNKNOWN"
        assert not refusals
        refusals += [1] * 1000
        with pytest.raises(BrokerUnavailable, match="the Cluster is down"):
            await app.AsyncResult("nobody-knows-it").refresh()
        assert 2 < len(refusals) < 1000


async def test_without_any_node_the_error_names_the_url(tmp_path):
    with pytest.raises(BrokerUnavailable, match=r"redis\+cluster://127.0.0.1:1,127.0.0.1:2"):
        async with make_app("redis+cluster://127.0.0.1:1,127.0.0.1:2", operation_timeout=2):
            pass


# -- shards move --


async def test_calls_and_waits_follow_a_primary_that_changes_by_order(own):
    async with make_app(own.url) as app, Worker(app):
        double = app.tasks["double"]
        for _ in range(2):
            await asyncio.to_thread(own.fail_over, own.primaries()[0])
            results = [await double.delay(n) for n in range(64 * 8)]
            assert [await result.get(timeout=20) for result in results] == [2 * n for n in range(64 * 8)]


async def test_after_kill_9_of_a_primary_waits_under_way_end_and_workers_go_on(own):
    with worker_process(own.url, NAMESPACE, shards=8):
        await _calls_while_a_primary_dies(own)


async def _calls_while_a_primary_dies(own: ServerCluster) -> None:
    async with make_app(own.url) as app:
        assert await (await app.send("add", (1, 1))).get(timeout=20) == 2
        old = own.primaries()[0]
        (new,) = own.replicas(old)
        old.kill()
        calls = [asyncio.create_task(app.send("add", (n, n))) for n in range(64 * 8)]
        await asyncio.to_thread(own.wait_until_primary, new)
        assert [await (await call).get(timeout=30) for call in calls] == [2 * n for n in range(64 * 8)]


async def test_a_job_that_was_lost_with_its_primary_is_not_found(divisible):
    async with make_app(divisible.url) as app:
        shard = 0
        old = divisible.shards(NAMESPACE, 8)[shard]
        (new,) = divisible.replicas(old)
        lost = id_in(app, shard)
        divisible.cut_off(old)  # the replica hears nothing of the job
        result = await app.tasks["double"].options(task_id=lost).delay(1)
        waiting = asyncio.create_task(result.get(timeout=60))
        await asyncio.to_thread(divisible.wait_until_primary, new, others_than(old, divisible))
        async with asyncio.timeout(12):
            with pytest.raises(ResultNotFound):
                await waiting


async def test_while_a_slot_is_moved_its_shard_stands_still_and_loses_nothing(own):
    async with make_app(own.url, operation_timeout=30) as app, Worker(app):
        double, slot = app.tasks["double"], slot_of(NAMESPACE, 3)
        source = own.serving(slot)
        target = next(node for node in own.primaries() if node is not source)
        kept = [await double.options(task_id=f"{id_in(app, 3)}").delay(5)]
        assert await kept[0].get(timeout=20) == 10
        migration = own.migration(slot, target)
        await asyncio.to_thread(migration.begin)
        keys = await asyncio.to_thread(migration.keys)
        await asyncio.to_thread(migration.move_keys, keys[: len(keys) // 2])
        call = asyncio.create_task(double.options(task_id=id_in(app, 3, "during"), wait=60).call(6))
        elsewhere = await double.options(task_id=id_in(app, 4, "during"), wait=20).call(7)
        assert elsewhere == 14, "other shards go on"
        assert not call.done(), "no script may run on half of a shard"
        await asyncio.to_thread(migration.move_keys)
        await asyncio.to_thread(migration.finish)
        assert await call == 12
        assert await app.AsyncResult(kept[0].id).get(timeout=20) == 10, "the result has moved, too"


async def test_a_worker_gives_up_its_idle_read_when_its_shard_moves(own):
    async with make_app(own.url) as app, Worker(app):
        slot = slot_of(NAMESPACE, 3)
        target = next(node for node in own.primaries() if node is not own.serving(slot))
        await asyncio.to_thread(own.move, slot, target)
        assert await app.tasks["double"].options(task_id=id_in(app, 3), wait=20).call(6) == 12


async def test_a_job_whose_parent_was_lost_with_its_primary_fails_as_not_found(divisible):
    app = make_app(divisible.url)
    async with app:
        double, add = app.tasks["double"], app.tasks["add"]
        shards = divisible.shards(NAMESPACE, 8)
        old = shards[0]
        other = next(shard for shard, node in shards.items() if node is not old)
        (new,) = divisible.replicas(old)
        first = double.s(1).options(task_id=id_in(app, 0, "first"))
        last = add.s(1).options(task_id=id_in(app, other, "last"))
        divisible.cut_off(old)
        result = await chain(first, last).delay()
        await asyncio.to_thread(divisible.wait_until_primary, new, others_than(old, divisible))
        async with Worker(app):
            with pytest.raises(ResultNotFound):
                await result.get(timeout=30)
