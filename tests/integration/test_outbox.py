"""Entries from shard to shard, tested with the scripts: delivered late, twice, or by another process."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from helpers.ends import ENDS
from helpers.inside import dies_before_it_deletes, forwards_nothing
from helpers.steps import Steps
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import BrokerUnavailable, wire
from asyncq.broker.cross_shard import submission
from asyncq.broker.schema.shards import Shards
from asyncq.execution import parent_results
from asyncq.serializers import PLAIN_ARGUMENTS
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq.broker.commands.relay import Reading

pytestmark = pytest.mark.anyio

COUNT = 3
_SHARDS = Shards("any", COUNT)


def named(name: str, shard: int) -> str:
    """Returns an id that begins with a name and lies in a shard."""
    ids = (name if n == 0 else f"{name}.{n}" for n in itertools.count())
    return next(id_ for id_ in ids if _SHARDS.number(id_) == shard)


class Shore(Steps):
    """Steps with several shards. Only the test delivers the entries of the outboxes."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.forwarder = self.broker.commands.forwarder

    def flow(self, *members: tuple[str, int, str], **options: Any) -> list[tuple[wire.Job, bytes]]:
        """Makes jobs from names, shards, and the names of their parents.
        Parents stand before their children.
        """
        ids = {name: named(name, shard) for name, shard, _ in members}
        parents = {name: [ids[above] for above in above.split()] for name, _, above in members}
        return [
            self.job(
                id_,
                parents=tuple(parents[name]),
                value_template=list(range(len(parents[name]))) or None,
                dependents=tuple(ids[other] for other in ids if id_ in parents[other]),
                **options.get(name, {}),
            )
            for name, id_ in ids.items()
        ]

    async def read(self, shard: int) -> Reading:
        """Reads an outbox, as a forwarder does. The reading may be delivered now or much later."""
        return await self.forwarder.read(self.broker.shards[shard])

    async def tell_all(self) -> None:
        """Delivers all entries of all outboxes, also those that a delivery adds."""
        while any(readings := [await self.read(shard) for shard in range(COUNT)]):
            left = [reading for reading in readings if reading.entries]
            if not left:
                return
            await self.forwarder.deliver(left[0])

    async def claim_all(self) -> dict[str, wire.Delivery]:
        """Claims all jobs that can be claimed now. Returns them by name."""
        found = {}
        while delivery := await self.claim():
            found[delivery.job.id.partition(".")[0]] = delivery
        return found

    async def values(self, delivery: wire.Delivery) -> Any:
        """Returns the values that a job gets from its parents."""
        shard = self.broker.shards.of(delivery.job.id)
        values = await self.broker.kept.filled(shard, delivery.values)
        return parent_results.arguments(PLAIN_ARGUMENTS, delivery.job, values)[0][0]


@pytest.fixture
async def shore(make_app: Any, raw: Any, monkeypatch: Any) -> AsyncIterator[Shore]:
    async with make_app(shards=COUNT) as app:
        broker = app.sessions.current().broker
        forwards_nothing(monkeypatch, broker.commands.forwarder)
        async with Shore(broker, raw) as shore:
            yield shore


DIAMOND = (("top", 0, ""), ("left", 1, "top"), ("right", 2, "top"), ("bottom", 0, "left right"))


async def test_a_diamond_across_all_shards_runs_in_order_and_passes_its_values(shore):
    await shore.broker.intake.submit(shore.flow(*DIAMOND))
    await shore.end((await shore.claim_all())["top"], "t")
    assert await shore.claim() is None
    await shore.tell_all()
    sides = await shore.claim_all()
    assert {name: await shore.values(side) for name, side in sides.items()} == {"left": ["t"], "right": ["t"]}
    await shore.end(sides["right"], "r")
    await shore.tell_all()
    assert await shore.claim() is None
    await shore.end(sides["left"], "l")
    await shore.tell_all()
    bottom = await shore.claim()
    assert await shore.values(bottom) == ["l", "r"]
    await shore.end(bottom)


async def test_a_value_for_many_jobs_is_sent_to_each_shard_once_and_stored_there_once(shore):
    below = [(f"{name}{shard}", shard, "top") for shard in range(COUNT) for name in "abc"]
    await shore.broker.intake.submit(shore.flow(("top", 0, ""), *below, ("last", 1, "a1 b2")))
    await shore.tell_all()
    await shore.end((await shore.claim_all())["top"], "v" * 2_000)
    assert await shore.raw.xlen(shore.broker.shards[0].outbox) == COUNT - 1
    with dies_before_it_deletes(shore.forwarder):
        await shore.forwarder.deliver(await shore.read(0))
    await shore.tell_all()
    for shard in shore.broker.shards:
        kept = [key async for key in shore.raw.scan_iter(match=f"{shard.kept}*")]
        assert [await shore.raw.hget(key, "n") for key in kept] == [b"3"]
    for delivery in (await shore.claim_all()).values():
        assert await shore.values(delivery) == ["v" * 2_000]
        await shore.end(delivery, "w" * 2_000)
    await shore.tell_all()
    last = await shore.claim()
    assert await shore.values(last) == ["w" * 2_000] * 2
    await shore.end(last)
    for shard in shore.broker.shards:
        assert [key async for key in shore.raw.scan_iter(match=f"{shard.key_prefix}h*")] == []


async def test_a_forwarder_may_die_at_any_point_and_others_forward_its_entry_again(shore):
    """Each part of a reading is delivered and not deleted. Then another forwarder delivers all of it."""
    await shore.broker.intake.submit(shore.flow(*DIAMOND))
    with dies_before_it_deletes(shore.forwarder):
        for count in (1, 2):
            reading = await shore.read(0)
            await shore.forwarder.deliver(reading._replace(entries=reading.entries[:count]))
    await shore.tell_all()
    await shore.end((await shore.claim_all())["top"], "t")
    with dies_before_it_deletes(shore.forwarder):
        await shore.forwarder.deliver(await shore.read(0))
    await shore.tell_all()
    sides = await shore.claim_all()
    assert sorted(sides) == ["left", "right"]
    for side in sides.values():
        await shore.end(side, "x")
    with dies_before_it_deletes(shore.forwarder):
        for shard in (1, 2):
            await shore.forwarder.deliver(await shore.read(shard))
    await shore.tell_all()
    assert [*await shore.claim_all()] == ["bottom"]


async def test_an_entry_that_was_read_long_ago_is_not_applied_again_though_its_jobs_are_forgotten(shore):
    """A member without a result leaves nothing after a minute. The forwarder stood still for two minutes."""
    jobs = shore.flow(("top", 0, ""), ("far", 1, "top"), ("root", 1, ""), root={"ignore_result": True})
    jobs += [shore.job(named("home", 0))]
    await shore.broker.intake.submit(jobs)
    late = await shore.read(0)
    assert len(late.entries) == 1
    await shore.tell_all()
    root = (await shore.claim_all())["root"]
    await shore.end(root)
    await shore.raw.delete(shore.broker.shards[1].records + root.job.id)  # its tombstone has expired
    await shore.forwarder.deliver(late)
    assert await shore.claim() is None, "it runs again"
    await shore.broker.revoke(named("top", 0), signal="c", outcome=b"")


async def test_a_batch_that_was_accepted_long_ago_and_never_deleted_is_not_accepted_again(shore):
    """The forwarder died before it deleted the batch, and no other one came for more than a minute."""
    await shore.broker.intake.submit(
        [
            *shore.flow(("root", 1, ""), root={"ignore_result": True}),
            *shore.flow(("one", 0, ""), ("two", 0, "one")),
        ]
    )
    with dies_before_it_deletes(shore.forwarder):
        await shore.forwarder.deliver(await shore.read(0))
    root = (await shore.claim_all())["root"]
    await shore.end(root)
    await shore.raw.delete(shore.broker.shards[1].records + root.job.id)
    await shore.tell_all()
    assert await shore.claim() is None, "it runs again"
    await shore.broker.revoke(named("one", 0), signal="c", outcome=b"")


@pytest.mark.parametrize("taker", ["live", "ended"])
async def test_a_dependent_of_a_member_whose_id_is_in_use_fails_in_every_shard(shore, taker):
    jobs = shore.flow(
        ("home", 0, ""), ("also", 0, "home"), ("taken", 1, ""), ("near", 1, "taken"), ("far", 2, "taken near")
    )
    await shore.broker.intake.submit(jobs)
    other, _ = shore.job(named("taken", 1))
    other.request_id = "other"
    await shore.broker.intake.enqueue_many([(other, wire.encode_job(other))])
    if taker == "ended":
        claimed = await shore.claim_all()
        await shore.end(claimed["taken"], "its own")
    await shore.tell_all()
    for name, shard in (("near", 1), ("far", 2)):
        ended = await shore.ended(named(name, shard))
        assert (ended.letter, ended.member) == ("F", (named("taken", 1), ""))
    if taker == "live":
        claimed = await shore.claim_all()
        await shore.end(claimed["taken"], "its own")
    assert (await shore.ended(named("taken", 1))).letter == "S", "the other job is untouched"
    await shore.end(claimed["home"])
    await shore.run()
    assert await shore.claim() is None


async def test_a_callback_that_a_refusal_released_and_that_was_replaced_is_not_notified_again(shore):
    error = named("error", 1)
    taken = shore.job(named("taken", 1), dependents=(error,))
    callback = shore.job(error, parents=(taken[0].id,), value_template="e", on_error=True)
    await shore.broker.intake.submit([taken, callback, *shore.flow(("a", 0, ""), ("b", 0, ""), ("c", 0, ""))])
    other, _ = shore.job(taken[0].id)
    other.request_id = "other"
    await shore.broker.intake.enqueue_many([(other, wire.encode_job(other))])
    late = await shore.read(0)
    await shore.tell_all()
    claimed = await shore.claim_all()
    inner = named("inner", 1)
    instead = [
        shore.job(inner, dependents=(error,)),
        shore.job(error, parents=(inner,), value_template=0),
    ]
    assert await shore.worker.claims.replace(claimed["error"], instead) == 1
    await shore.forwarder.deliver(late)
    assert [*await shore.claim_all()] == ["inner"]
    assert await shore.standing(error) is State.PENDING, "it waits for another job now"
    await shore.broker.revoke(error, signal="c", outcome=b"")


async def test_a_member_that_ran_is_not_mistaken_for_refused_after_its_key_was_used_again(shore):
    """A keyed job without a result makes room for the next call at once.
    The forwarder stood still meanwhile.
    """
    keyed, _ = shore.job(named("keyed", 1), ignore_result=True, dependents=(named("child", 1),))
    keyed.request_id = "abc.1"
    child = shore.job(named("child", 1), parents=(keyed.id, named("slow", 0)), value_template=None)
    slow = shore.job(named("slow", 0), dependents=(child[0].id,))
    await shore.broker.intake.submit(
        [(keyed, wire.encode_job(keyed)), slow, child, shore.job(named("x", 0)), shore.job(named("y", 0))]
    )
    late = await shore.read(0)
    await shore.tell_all()
    claimed = await shore.claim_all()
    await shore.end(claimed["keyed"], "value")
    again, _ = shore.job(keyed.id, ignore_result=True)
    again.request_id = "abc.2"
    assert await shore.broker.intake.enqueue_many([(again, wire.encode_job(again))]) == []
    await shore.forwarder.deliver(late)
    assert await shore.standing(child[0].id) is State.PENDING
    await shore.end(claimed["slow"])
    await shore.tell_all()
    assert sorted(await shore.claim_all()) == ["child", "keyed"]


@pytest.mark.parametrize("shard", range(COUNT))
async def test_a_workflow_that_contains_an_id_twice_is_refused_in_every_shard(shore, shard):
    twice = named("twice", shard)
    one, other = shore.job(twice), shore.job(twice)
    other[0].request_id = "other"
    jobs = [one, other, *shore.flow(("a", 0, ""), ("b", 0, ""), ("c", 0, ""))]
    with pytest.raises(ValueError, match=twice):
        await shore.broker.intake.submit(jobs)
    assert [(await shore.read(each)).entries for each in range(COUNT)] == [[], [], []]
    assert await shore.claim() is None


async def test_a_job_is_not_replaced_by_jobs_of_other_shards_whose_ids_are_in_use(shore):
    await shore.broker.intake.submit([shore.job(named("first", 0))])
    delivery = await shore.claim()
    taken = shore.job(named("taken", 1))
    await shore.broker.intake.enqueue_many([taken])
    other = shore.job(named("taken", 1))
    other[0].request_id = "other"
    assert await shore.worker.claims.replace(delivery, [other, shore.job(delivery.job.id)]) == -1
    await shore.end(delivery)
    assert await shore.run() == taken[0].id


async def test_a_failure_is_forwarded_through_shards_though_no_worker_polls(make_app):
    """The process that delivers an entry to the next shard also delivers the outbox of that shard."""
    async with make_app(shards=COUNT) as app:
        shore = Shore(app.sessions.current().broker, None)
        try:
            jobs = shore.flow(*((f"m{n}", n % COUNT, f"m{n - 1}" if n else "") for n in range(12)))
            await shore.broker.intake.submit(jobs)
            assert await shore.broker.revoke(jobs[0][0].id, signal="c", outcome=b"") == "revoked"

            async def last_is_revoked() -> bool:
                return await shore.standing(jobs[-1][0].id) is State.REVOKED

            await until(last_is_revoked, "the last one to be told")
            assert (await shore.ended(jobs[-1][0].id)).member == (jobs[0][0].id, "")
        finally:
            shore.close()


async def test_a_job_that_nobody_has_delivered_to_its_shard_yet_is_known(shore, monkeypatch):
    jobs = shore.flow(("a", 0, ""), ("b", 0, "a"), ("r", 1, ""), ("s", 1, ""), ("t", 2, "r"), ("u", 0, ""))
    await shore.broker.intake.submit(jobs)
    monkeypatch.undo()  # the client that submitted it is dead, and there is no worker
    assert await shore.broker.revoke(named("r", 1), signal="c", outcome=b"") == "revoked"
    ended, live = await shore.broker.fetch_status([named("t", 2), named("s", 1)])
    assert (ended.letter, live) == ("C", "L---")
    for name, shard in (("a", 0), ("s", 1), ("u", 0)):
        await shore.broker.revoke(named(name, shard), signal="c", outcome=b"")


@pytest.mark.parametrize("verb", ["state", "fetch_status", "forget"])
async def test_a_query_finds_a_job_that_is_still_in_an_outbox(shore, monkeypatch, verb):
    await shore.broker.intake.submit(shore.flow(("a", 0, ""), ("b", 0, ""), ("r", 1, "")))
    monkeypatch.undo()
    id_ = named("r", 1)
    ask = getattr(shore.broker, verb)
    answer = await ask([id_] if verb == "fetch_status" else id_)
    assert answer not in (None, [None], "unknown")
    for name, shard in (("a", 0), ("b", 0), ("r", 1)):
        await shore.broker.revoke(named(name, shard), signal="c", outcome=b"")


async def test_a_submission_does_not_wait_for_entries_that_others_add_to_the_outbox_later(
    make_app, monkeypatch
):
    async with make_app(shards=COUNT) as app:
        shore = Shore(app.sessions.current().broker, None)
        read, outbox = shore.forwarder.read, app.sessions.current().broker.shards[0].outbox
        words = {"to": 1, "c": "nobody 0 n", "p": "p", "n": "n", "h": "S", "w": ""}
        entry = ("XADD", outbox, "*", *(part for pair in words.items() for part in pair))

        async def busy(shard: Any) -> Reading:
            reading = await read(shard)
            await shore.broker.commands.send(shore.broker.shards[0], *entry)
            return reading

        try:
            monkeypatch.setattr(shore.forwarder, "read", busy)
            async with asyncio.timeout(5):
                await shore.broker.intake.submit(shore.flow(("a", 0, ""), ("b", 0, ""), ("r", 1, "")))
            assert await shore.standing(named("r", 1)) is State.PENDING
        finally:
            monkeypatch.undo()
            for name, shard in (("a", 0), ("b", 0), ("r", 1)):
                await shore.broker.revoke(named(name, shard), signal="c", outcome=b"")
            await shore.forwarder.delivered(*app.sessions.current().broker.shards)
            shore.close()


async def test_long_values_are_read_a_few_at_a_time(shore):
    names = [f"p{n}" for n in range(30)]
    jobs = shore.flow(*((name, 0, "") for name in names), ("far", 1, " ".join(names)))
    await shore.broker.intake.submit(jobs)
    await shore.tell_all()
    for _ in range(30):
        await shore.run(b"x" * 200_000)
    assert len((await shore.read(0)).entries) == 6
    await shore.tell_all()
    far = await shore.claim()
    assert len(await shore.values(far)) == 30
    await shore.end(far)


async def test_many_jobs_of_one_shard_are_sent_in_several_batches(shore, monkeypatch):
    monkeypatch.setattr(submission, "BATCH", 4)
    members = [("a", 0, "")] + [(f"b{n}", 0, "a") for n in range(11)] + [(f"c{n}", 1, "a") for n in range(10)]
    await shore.broker.intake.submit(shore.flow(*members))
    # Of the `b` jobs, in the accepting shard, four were accepted at once, and seven are in two batches.
    # The `c` jobs are in three batches. `a` is the last, because all others wait for it.
    assert len((await shore.read(0)).entries) == 2 + 3 + 1
    await shore.tell_all()
    await shore.broker.revoke(named("a", 0), signal="c", outcome=b"")
    await shore.tell_all()
    assert {await shore.standing(named(f"c{n}", 1)) for n in range(10)} == {State.REVOKED}


async def test_members_in_another_shard_start_in_order(shore):
    names = [f"m{n}" for n in range(9)]
    await shore.broker.intake.submit(
        shore.flow(*((f"h{n}", 0, "") for n in range(10)), *((n, 1, "") for n in names))
    )
    await shore.tell_all()
    claimed = await shore.claim_all()
    assert [name for name in claimed if name in names] == names


@pytest.mark.parametrize("letter", [wire.SUCCEEDED, wire.FAILED, wire.REVOKED])
async def test_an_error_callback_in_another_shard_runs_after_a_failure_and_is_else_dropped(shore, letter):
    parent, callback = named("parent", 0), named("callback", 1)
    await shore.broker.intake.submit(
        [
            shore.job(parent, dependents=(callback,), ignore_result=True),
            shore.job(callback, parents=(parent,), value_template="e", on_error=True),
        ]
    )
    await shore.tell_all()
    await shore.end(await shore.claim(), None if letter == wire.SUCCEEDED else b"", letter)
    late = await shore.read(0)
    await shore.tell_all()
    await shore.forwarder.deliver(late)
    assert [*await shore.claim_all()] == (["callback"] if letter == wire.FAILED else [])
    assert (await shore.standing(callback) is None) == (letter != wire.FAILED)


async def test_a_value_reaches_another_shard_though_an_error_callback_there_waits_for_the_same_job(shore):
    parent, callback, child = named("parent", 0), named("callback", 1), named("child", 1)
    await shore.broker.intake.submit(
        [
            shore.job(parent, dependents=(callback, child)),
            # A plan puts the error callback of a step before the next step.
            shore.job(callback, parents=(parent,), value_template="e", on_error=True),
            shore.job(child, parents=(parent,), value_template=[0]),
        ]
    )
    await shore.tell_all()
    await shore.end(await shore.claim(), "value")
    await shore.tell_all()
    claimed = await shore.claim_all()
    assert {name: await shore.values(job) for name, job in claimed.items()} == {"child": ["value"]}


async def test_a_job_is_replaced_by_jobs_of_other_shards_that_are_delivered_twice(shore):
    await shore.broker.intake.submit(shore.flow(("first", 0, ""), ("child", 2, "first"), ("home", 0, "")))
    await shore.tell_all()
    first = (await shore.claim_all())["first"]
    a, b = named("a", 1), named("b", 2)
    instead = [
        shore.job(a, dependents=(b,)),
        shore.job(b, parents=(a,), value_template=0, dependents=(first.job.id,)),
        shore.job(first.job.id, parents=(b,), value_template=0),
    ]
    assert await shore.worker.claims.replace(first, instead) == 1
    late = await shore.read(0)
    for name, value in (("a", "x"), ("b", "y"), ("first", "z")):
        await shore.tell_all()
        claimed = await shore.claim_all()
        assert [*claimed] == [name]
        await shore.end(claimed[name], value)
        await shore.forwarder.deliver(late)
    await shore.tell_all()
    child = await shore.claim()
    assert await shore.values(child) == ["z"]


async def test_a_revoked_job_in_one_shard_is_not_released_by_its_parent_in_another(shore):
    await shore.broker.intake.submit(shore.flow(*DIAMOND))
    await shore.tell_all()
    await shore.end((await shore.claim_all())["top"], "t")
    word = await shore.read(0)  # about the end of top, not delivered yet
    assert await shore.broker.revoke(named("left", 1), signal="c", outcome=b"") == "revoked"
    await shore.tell_all()
    await shore.forwarder.deliver(word)
    assert [*await shore.claim_all()] == ["right"]
    assert (await shore.ended(named("bottom", 0))).member == (named("left", 1), "")


async def test_a_failure_to_forward_is_logged_once_until_forwarding_works_again(shore, monkeypatch, caplog):
    tell = shore.forwarder.deliver
    monkeypatch.undo()
    words = {"to": 1, "c": "nobody 0 n", "p": "p", "n": "n", "h": "S", "w": ""}
    for expected in (1, 2):
        await shore.raw.xadd(shore.broker.shards[0].outbox, words)
        monkeypatch.setattr(shore.forwarder, "deliver", _away)
        for _ in range(3):
            await shore.forwarder.delivered(shore.broker.shards[0])
        assert caplog.text.count("could not be forwarded") == expected
        monkeypatch.setattr(shore.forwarder, "deliver", tell)
        await shore.forwarder.delivered(shore.broker.shards[0])
    assert (await shore.read(0)).entries == []


async def _away(_: object) -> None:
    raise BrokerUnavailable("away")


async def _defer(stage: Steps) -> None:
    delivery = await stage.claim()
    assert await stage.broker.revoke("parent", signal="t", outcome=b"") == "signalled"
    assert await stage.worker.claims.defer(delivery, 60_000, b"1") == 2


AT_ONCE = {
    "defer of a signalled job": (_defer, "C"),
    # A `finish` is sent with others: its caller forwards the outbox after all of them are answered.
    **{way: end for way, end in ENDS.items() if not way.startswith("finish")},
}


@pytest.mark.parametrize("way", AT_ONCE)
async def test_the_end_of_a_job_is_forwarded_to_the_other_shard(make_app, raw, way):
    end, letter = AT_ONCE[way]
    async with (
        make_app(shards=COUNT, max_crashes=1) as app,
        Shore(app.sessions.current().broker, raw) as shore,
    ):
        here = _SHARDS.number("parent")
        child, grandchild = named("child", (here + 1) % COUNT), named("grandchild", (here + 2) % COUNT)
        await shore.broker.intake.submit(
            [
                shore.job("parent", dependents=(child,)),
                shore.job(child, parents=("parent",), value_template=0, dependents=(grandchild,)),
                shore.job(grandchild, parents=(child,), value_template=0),
            ]
        )
        await end(shore)
        begun = Stopwatch()
        await until(lambda: _has_ended(shore, grandchild), "the grandchild to end")
        assert begun.took < 2, "at once, not when somebody looks"
        below = await shore.ended(grandchild)
        assert (below.letter, below.member[0]) == (letter, "parent")
        await shore.forwarder.delivered(*app.sessions.current().broker.shards)


async def _has_ended(shore: Shore, id_: str) -> bool:
    return isinstance(await shore.broker.state(id_), wire.Ended)
