"""What workers cost the server by looking at each other, and who lists the readers of a stream."""

from __future__ import annotations

import pytest
from helpers.claiming import ClaimingConsumer
from helpers.figures import report

pytestmark = pytest.mark.anyio

WORKERS, QUEUES = 1000, 20


@pytest.fixture
async def consumers(make_app, raw):
    """Two workers' consumers of the same queues."""
    async with make_app(lease=3600) as app:
        commands = app.sessions.here().broker.commands
        queues = [f"q{n}" for n in range(QUEUES)]
        both = [ClaimingConsumer(commands, name, queues) for name in ("first", "second")]
        await both[0].make_groups()
        yield both
        for consumer in both:
            consumer.close()


async def spent(raw, keys, consumer) -> tuple[float, float]:
    """Microseconds of the server for the two questions that every worker asks three times a lease. The least
    of some, for the machine may have others to serve meanwhile.
    """
    looks = []
    for _ in range(20):
        before = await raw.info("commandstats")
        await consumer.census(keys)
        await consumer.beats(keys)
        after = await raw.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_hgetall")
        looks.append([after[name]["usec"] - before.get(name, {"usec": 0})["usec"] for name in names])
    return min(census for census, _ in looks), min(beats for _, beats in looks)


@pytest.mark.usefixtures("leaves_keys")
async def test_what_a_worker_asks_of_all_others_is_one_read_of_their_beats(consumers, raw):
    first, second = consumers
    keys = first.shards[0]
    assert (await first.census(keys)).watched == first.served.streams_in(keys)
    alone, _ = await spent(raw, keys, second)
    async with raw.pipeline(transaction=False) as pipe:
        for n in range(WORKERS):
            pipe.hset(keys.beats, f"worker-{n:016x}", 1)
            for stream in first.served.streams:
                pipe.xgroup_createconsumer(stream, "g", f"worker-{n:016x}")
        await pipe.execute()
    assert (await second.census(keys)).watched == []
    census, beats = await spent(raw, keys, second)
    report(
        f"{WORKERS} workers on {QUEUES} queues: a look takes {census} + {beats} us of the server, and of a "
        f"core {(census + beats) * WORKERS / 5 / 1e4:.1f} %"
    )
    assert census < 3 * alone + 50, "it does not grow with the workers"
    # With one list of consumers for each queue it was some 30,000 us.
    assert beats < 3_000


@pytest.mark.usefixtures("leaves_keys")
async def test_another_watches_a_stream_when_its_watcher_has_not_looked_for_two_thirds_of_a_lease(
    consumers, raw
):
    first, second = consumers
    keys = first.shards[0]
    await first.census(keys)
    assert (await second.census(keys)).watched == []
    stream = first.served.streams_in(keys)[3]
    watcher = keys.watchers + stream.removeprefix(keys.queues)
    assert 0 < await raw.pttl(watcher) <= first.settings.lease * 1000 * 2 / 3
    await raw.delete(watcher)
    assert (await second.census(keys)).watched == [stream]
    assert stream not in (await first.census(keys)).watched
