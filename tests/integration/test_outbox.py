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


class ShardSteps(Steps):
    """Steps with several shards. Only the test delivers the entries of the outboxes."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.forwarder = self.broker.commands.forwarder

    def flow(self, *members: tuple[str, int, str], **options: Any) -> list[tuple[wire.Job, bytes]]:
        """Makes jobs from names, shards, and the names of their parents.
        Parents come before their children.
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

    async def deliver_all(self) -> None:
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
async def steps(make_app: Any, raw: Any, monkeypatch: Any) -> AsyncIterator[ShardSteps]:
    async with make_app(shards=COUNT) as app:
        broker = app.sessions.current().broker
        forwards_nothing(monkeypatch, broker.commands.forwarder)
        async with ShardSteps(broker, raw) as steps:
            yield steps


DIAMOND = (("top", 0, ""), ("left", 1, "top"), ("right", 2, "top"), ("bottom", 0, "left right"))


async def test_a_diamond_across_all_shards_runs_in_order_and_passes_its_values(steps):
    await steps.broker.intake.submit(steps.flow(*DIAMOND))
    await steps.end((await steps.claim_all())["top"], "t")
    assert await steps.claim() is None
    await steps.deliver_all()
    sides = await steps.claim_all()
    assert {name: await steps.values(side) for name, side in sides.items()} == {"left": ["t"], "right": ["t"]}
    await steps.end(sides["right"], "r")
    await steps.deliver_all()
    assert await steps.claim() is None
    await steps.end(sides["left"], "l")
    await steps.deliver_all()
    bottom = await steps.claim()
    assert await steps.values(bottom) == ["l", "r"]
    await steps.end(bottom)


async def test_a_value_for_many_jobs_is_sent_to_each_shard_once_and_stored_there_once(steps):
    below = [(f"{name}{shard}", shard, "top") for shard in range(COUNT) for name in "abc"]
    await steps.broker.intake.submit(steps.flow(("top", 0, ""), *below, ("last", 1, "a1 b2")))
    await steps.deliver_all()
    await steps.end((await steps.claim_all())["top"], "v" * 2_000)
    assert await steps.raw.xlen(steps.broker.shards[0].outbox) == COUNT - 1
    with dies_before_it_deletes(steps.forwarder):
        await steps.forwarder.deliver(await steps.read(0))
    await steps.deliver_all()
    for shard in steps.broker.shards:
        kept = [key async for key in steps.raw.scan_iter(match=f"{shard.kept}*")]
        assert [await steps.raw.hget(key, "n") for key in kept] == [b"3"]
    for delivery in (await steps.claim_all()).values():
        assert await steps.values(delivery) == ["v" * 2_000]
        await steps.end(delivery, "w" * 2_000)
    await steps.deliver_all()
    last = await steps.claim()
    assert await steps.values(last) == ["w" * 2_000] * 2
    await steps.end(last)
    for shard in steps.broker.shards:
        for kept in (shard.kept, shard.needs):
            assert [key async for key in steps.raw.scan_iter(match=f"{kept}*")] == []


async def test_a_forwarder_may_die_at_any_point_and_others_forward_its_entry_again(steps):
    """Each part of a reading is delivered and not deleted. Then another forwarder delivers all of it."""
    await steps.broker.intake.submit(steps.flow(*DIAMOND))
    with dies_before_it_deletes(steps.forwarder):
        for count in (1, 2):
            reading = await steps.read(0)
            await steps.forwarder.deliver(reading._replace(entries=reading.entries[:count]))
    await steps.deliver_all()
    await steps.end((await steps.claim_all())["top"], "t")
    with dies_before_it_deletes(steps.forwarder):
        await steps.forwarder.deliver(await steps.read(0))
    await steps.deliver_all()
    sides = await steps.claim_all()
    assert sorted(sides) == ["left", "right"]
    for side in sides.values():
        await steps.end(side, "x")
    with dies_before_it_deletes(steps.forwarder):
        for shard in (1, 2):
            await steps.forwarder.deliver(await steps.read(shard))
    await steps.deliver_all()
    assert [*await steps.claim_all()] == ["bottom"]


async def test_an_entry_that_was_read_long_ago_is_not_applied_again_though_its_jobs_are_forgotten(steps):
    """A member without a result leaves nothing after a minute. The forwarder stood still for two minutes."""
    jobs = steps.flow(("top", 0, ""), ("far", 1, "top"), ("root", 1, ""), root={"ignore_result": True})
    jobs += [steps.job(named("home", 0))]
    await steps.broker.intake.submit(jobs)
    late = await steps.read(0)
    assert len(late.entries) == 1
    await steps.deliver_all()
    root = (await steps.claim_all())["root"]
    await steps.end(root)
    await steps.raw.delete(steps.broker.shards[1].records + root.job.id)  # its tombstone has expired
    await steps.forwarder.deliver(late)
    assert await steps.claim() is None, "it runs again"
    await steps.broker.revoke(named("top", 0), signal="c", outcome=b"")


async def test_a_batch_that_was_accepted_long_ago_and_never_deleted_is_not_accepted_again(steps):
    """The forwarder died before it deleted the batch, and no other one came for more than a minute."""
    await steps.broker.intake.submit(
        [
            *steps.flow(("root", 1, ""), root={"ignore_result": True}),
            *steps.flow(("one", 0, ""), ("two", 0, "one")),
        ]
    )
    with dies_before_it_deletes(steps.forwarder):
        await steps.forwarder.deliver(await steps.read(0))
    root = (await steps.claim_all())["root"]
    await steps.end(root)
    await steps.raw.delete(steps.broker.shards[1].records + root.job.id)
    await steps.deliver_all()
    assert await steps.claim() is None, "it runs again"
    await steps.broker.revoke(named("one", 0), signal="c", outcome=b"")


async def test_members_that_are_in_their_shard_stay_as_they_are_when_their_workflow_comes_once_more(steps):
    """A failover has lost the workflow in the shard that accepted it, and the client has sent it again."""
    jobs = steps.flow(("first", 0, ""), ("root", 1, ""), ("near", 1, "root"), ("last", 0, "near"))
    await steps.broker.intake.submit(jobs)
    outbox = steps.broker.shards[0].outbox
    batches = [fields for _, fields in await steps.raw.xrange(outbox)]
    await steps.deliver_all()
    for fields in batches:
        await steps.raw.xadd(outbox, fields)
    await steps.deliver_all()
    order = []
    while claimed := await steps.claim_all():
        order.append(sorted(claimed))
        for delivery in claimed.values():
            await steps.end(delivery, "x")
        await steps.deliver_all()
    assert order == [["first", "root"], ["near"], ["last"]]


@pytest.mark.parametrize("taker", ["live", "ended"])
async def test_a_dependent_of_a_member_whose_id_is_in_use_fails_in_every_shard(steps, taker):
    jobs = steps.flow(
        ("home", 0, ""), ("also", 0, "home"), ("taken", 1, ""), ("near", 1, "taken"), ("far", 2, "taken near")
    )
    await steps.broker.intake.submit(jobs)
    other, _ = steps.job(named("taken", 1))
    other.request_id = "other"
    await steps.broker.intake.enqueue_many([(other, wire.encode_job(other))])
    if taker == "ended":
        claimed = await steps.claim_all()
        await steps.end(claimed["taken"], "its own")
    await steps.deliver_all()
    for name, shard in (("near", 1), ("far", 2)):
        ended = await steps.ended(named(name, shard))
        assert (ended.letter, ended.member) == ("F", (named("taken", 1), ""))
    if taker == "live":
        claimed = await steps.claim_all()
        await steps.end(claimed["taken"], "its own")
    assert (await steps.ended(named("taken", 1))).letter == "S", "the other job is untouched"
    await steps.end(claimed["home"])
    await steps.run()
    assert await steps.claim() is None


async def test_a_callback_that_a_refusal_released_and_that_was_replaced_is_not_notified_again(steps):
    error = named("error", 1)
    taken = steps.job(named("taken", 1), dependents=(error,))
    callback = steps.job(error, parents=(taken[0].id,), value_template="e", on_error=True)
    await steps.broker.intake.submit([taken, callback, *steps.flow(("a", 0, ""), ("b", 0, ""), ("c", 0, ""))])
    other, _ = steps.job(taken[0].id)
    other.request_id = "other"
    await steps.broker.intake.enqueue_many([(other, wire.encode_job(other))])
    late = await steps.read(0)
    await steps.deliver_all()
    claimed = await steps.claim_all()
    inner = named("inner", 1)
    instead = [
        steps.job(inner, dependents=(error,)),
        steps.job(error, parents=(inner,), value_template=0),
    ]
    assert await steps.worker.claims.replace(claimed["error"], instead) == 1
    await steps.forwarder.deliver(late)
    assert [*await steps.claim_all()] == ["inner"]
    assert await steps.state(error) is State.PENDING, "it waits for another job now"
    await steps.broker.revoke(error, signal="c", outcome=b"")


async def test_a_member_that_ran_is_not_mistaken_for_refused_after_its_key_was_used_again(steps):
    """A keyed job without a result leaves its id free for the next call at once.
    The forwarder stood still meanwhile.
    """
    keyed, _ = steps.job(named("keyed", 1), ignore_result=True, dependents=(named("child", 1),))
    keyed.request_id = "abc.1"
    child = steps.job(named("child", 1), parents=(keyed.id, named("slow", 0)), value_template=None)
    slow = steps.job(named("slow", 0), dependents=(child[0].id,))
    await steps.broker.intake.submit(
        [(keyed, wire.encode_job(keyed)), slow, child, steps.job(named("x", 0)), steps.job(named("y", 0))]
    )
    late = await steps.read(0)
    await steps.deliver_all()
    claimed = await steps.claim_all()
    await steps.end(claimed["keyed"], "value")
    again, _ = steps.job(keyed.id, ignore_result=True)
    again.request_id = "abc.2"
    assert await steps.broker.intake.enqueue_many([(again, wire.encode_job(again))]) == []
    await steps.forwarder.deliver(late)
    assert await steps.state(child[0].id) is State.PENDING
    await steps.end(claimed["slow"])
    await steps.deliver_all()
    assert sorted(await steps.claim_all()) == ["child", "keyed"]


@pytest.mark.parametrize("shard", range(COUNT))
async def test_a_workflow_that_contains_an_id_twice_is_refused_in_every_shard(steps, shard):
    twice = named("twice", shard)
    one, other = steps.job(twice), steps.job(twice)
    other[0].request_id = "other"
    jobs = [one, other, *steps.flow(("a", 0, ""), ("b", 0, ""), ("c", 0, ""))]
    with pytest.raises(ValueError, match=twice):
        await steps.broker.intake.submit(jobs)
    assert [(await steps.read(each)).entries for each in range(COUNT)] == [[], [], []]
    assert await steps.claim() is None


async def test_a_job_is_not_replaced_by_jobs_of_other_shards_whose_ids_are_in_use(steps):
    await steps.broker.intake.submit([steps.job(named("first", 0))])
    delivery = await steps.claim()
    taken = steps.job(named("taken", 1))
    await steps.broker.intake.enqueue_many([taken])
    other = steps.job(named("taken", 1))
    other[0].request_id = "other"
    assert await steps.worker.claims.replace(delivery, [other, steps.job(delivery.job.id)]) == -1
    await steps.end(delivery)
    assert await steps.run() == taken[0].id


async def test_a_failure_is_forwarded_through_shards_though_no_worker_polls(make_app):
    """The process that delivers an entry to the next shard also delivers the outbox of that shard."""
    async with make_app(shards=COUNT) as app:
        steps = ShardSteps(app.sessions.current().broker, None)
        try:
            jobs = steps.flow(*((f"m{n}", n % COUNT, f"m{n - 1}" if n else "") for n in range(12)))
            await steps.broker.intake.submit(jobs)
            assert await steps.broker.revoke(jobs[0][0].id, signal="c", outcome=b"") == "revoked"

            async def last_is_revoked() -> bool:
                return await steps.state(jobs[-1][0].id) is State.REVOKED

            await until(last_is_revoked, "the last one to be notified")
            assert (await steps.ended(jobs[-1][0].id)).member == (jobs[0][0].id, "")
        finally:
            steps.close()


async def test_a_job_that_nobody_has_delivered_to_its_shard_yet_is_known(steps, monkeypatch):
    jobs = steps.flow(("a", 0, ""), ("b", 0, "a"), ("r", 1, ""), ("s", 1, ""), ("t", 2, "r"), ("u", 0, ""))
    await steps.broker.intake.submit(jobs)
    monkeypatch.undo()  # the client that submitted it is dead, and there is no worker
    assert await steps.broker.revoke(named("r", 1), signal="c", outcome=b"") == "revoked"
    ended, live = await steps.broker.fetch_status([named("t", 2), named("s", 1)])
    assert (ended.letter, live) == ("C", "L---")
    for name, shard in (("a", 0), ("s", 1), ("u", 0)):
        await steps.broker.revoke(named(name, shard), signal="c", outcome=b"")


@pytest.mark.parametrize("verb", ["state", "fetch_status", "forget"])
async def test_a_query_finds_a_job_that_is_still_in_an_outbox(steps, monkeypatch, verb):
    await steps.broker.intake.submit(steps.flow(("a", 0, ""), ("b", 0, ""), ("r", 1, "")))
    monkeypatch.undo()
    id_ = named("r", 1)
    ask = getattr(steps.broker, verb)
    answer = await ask([id_] if verb == "fetch_status" else id_)
    assert answer not in (None, [None], "unknown")
    for name, shard in (("a", 0), ("b", 0), ("r", 1)):
        await steps.broker.revoke(named(name, shard), signal="c", outcome=b"")


async def test_a_submission_does_not_wait_for_entries_that_others_add_to_the_outbox_later(
    make_app, monkeypatch
):
    async with make_app(shards=COUNT) as app:
        steps = ShardSteps(app.sessions.current().broker, None)
        read, outbox = steps.forwarder.read, app.sessions.current().broker.shards[0].outbox
        words = {"to": 1, "c": "nobody 0 n", "p": "p", "n": "n", "h": "S", "w": ""}
        entry = ("XADD", outbox, "*", *(part for pair in words.items() for part in pair))

        async def busy(shard: Any) -> Reading:
            reading = await read(shard)
            await steps.broker.commands.send(steps.broker.shards[0], *entry)
            return reading

        try:
            monkeypatch.setattr(steps.forwarder, "read", busy)
            async with asyncio.timeout(5):
                await steps.broker.intake.submit(steps.flow(("a", 0, ""), ("b", 0, ""), ("r", 1, "")))
            assert await steps.state(named("r", 1)) is State.PENDING
        finally:
            monkeypatch.undo()
            for name, shard in (("a", 0), ("b", 0), ("r", 1)):
                await steps.broker.revoke(named(name, shard), signal="c", outcome=b"")
            await steps.forwarder.delivered(*app.sessions.current().broker.shards)
            steps.close()


async def test_long_values_are_read_a_few_at_a_time(steps):
    names = [f"p{n}" for n in range(30)]
    jobs = steps.flow(*((name, 0, "") for name in names), ("far", 1, " ".join(names)))
    await steps.broker.intake.submit(jobs)
    await steps.deliver_all()
    for _ in range(30):
        await steps.run(b"x" * 200_000)
    assert len((await steps.read(0)).entries) == 6
    await steps.deliver_all()
    far = await steps.claim()
    assert len(await steps.values(far)) == 30
    await steps.end(far)


async def test_many_jobs_of_one_shard_are_sent_in_several_batches(steps, monkeypatch):
    monkeypatch.setattr(submission, "BATCH", 4)
    members = [("a", 0, "")] + [(f"b{n}", 0, "a") for n in range(11)] + [(f"c{n}", 1, "a") for n in range(10)]
    await steps.broker.intake.submit(steps.flow(*members))
    # Of the `b` jobs, in the accepting shard, four were accepted at once, and seven are in two batches.
    # The `c` jobs are in three batches. `a` is the last, because all others wait for it.
    assert len((await steps.read(0)).entries) == 2 + 3 + 1
    await steps.deliver_all()
    await steps.broker.revoke(named("a", 0), signal="c", outcome=b"")
    await steps.deliver_all()
    assert {await steps.state(named(f"c{n}", 1)) for n in range(10)} == {State.REVOKED}


async def test_members_in_another_shard_start_in_order(steps):
    names = [f"m{n}" for n in range(9)]
    await steps.broker.intake.submit(
        steps.flow(*((f"h{n}", 0, "") for n in range(10)), *((n, 1, "") for n in names))
    )
    await steps.deliver_all()
    claimed = await steps.claim_all()
    assert [name for name in claimed if name in names] == names


@pytest.mark.parametrize("letter", [wire.SUCCEEDED, wire.FAILED, wire.REVOKED])
async def test_an_error_callback_in_another_shard_runs_after_a_failure_and_is_else_dropped(steps, letter):
    parent, callback = named("parent", 0), named("callback", 1)
    await steps.broker.intake.submit(
        [
            steps.job(parent, dependents=(callback,), ignore_result=True),
            steps.job(callback, parents=(parent,), value_template="e", on_error=True),
        ]
    )
    await steps.deliver_all()
    await steps.end(await steps.claim(), None if letter == wire.SUCCEEDED else b"", letter)
    late = await steps.read(0)
    await steps.deliver_all()
    await steps.forwarder.deliver(late)
    assert [*await steps.claim_all()] == (["callback"] if letter == wire.FAILED else [])
    assert (await steps.state(callback) is None) == (letter != wire.FAILED)


async def test_a_value_reaches_another_shard_though_an_error_callback_there_waits_for_the_same_job(steps):
    parent, callback, child = named("parent", 0), named("callback", 1), named("child", 1)
    await steps.broker.intake.submit(
        [
            steps.job(parent, dependents=(callback, child)),
            # A plan puts the error callback of a step before the next step.
            steps.job(callback, parents=(parent,), value_template="e", on_error=True),
            steps.job(child, parents=(parent,), value_template=[0]),
        ]
    )
    await steps.deliver_all()
    await steps.end(await steps.claim(), "value")
    await steps.deliver_all()
    claimed = await steps.claim_all()
    assert {name: await steps.values(job) for name, job in claimed.items()} == {"child": ["value"]}


async def test_a_job_is_replaced_by_jobs_of_other_shards_that_are_delivered_twice(steps):
    await steps.broker.intake.submit(steps.flow(("first", 0, ""), ("child", 2, "first"), ("home", 0, "")))
    await steps.deliver_all()
    first = (await steps.claim_all())["first"]
    a, b = named("a", 1), named("b", 2)
    instead = [
        steps.job(a, dependents=(b,)),
        steps.job(b, parents=(a,), value_template=0, dependents=(first.job.id,)),
        steps.job(first.job.id, parents=(b,), value_template=0),
    ]
    assert await steps.worker.claims.replace(first, instead) == 1
    late = await steps.read(0)
    for name, value in (("a", "x"), ("b", "y"), ("first", "z")):
        await steps.deliver_all()
        claimed = await steps.claim_all()
        assert [*claimed] == [name]
        await steps.end(claimed[name], value)
        await steps.forwarder.deliver(late)
    await steps.deliver_all()
    child = await steps.claim()
    assert await steps.values(child) == ["z"]


async def test_a_revoked_job_in_one_shard_is_not_released_by_its_parent_in_another(steps):
    await steps.broker.intake.submit(steps.flow(*DIAMOND))
    await steps.deliver_all()
    await steps.end((await steps.claim_all())["top"], "t")
    word = await steps.read(0)  # about the end of top, not delivered yet
    assert await steps.broker.revoke(named("left", 1), signal="c", outcome=b"") == "revoked"
    await steps.deliver_all()
    await steps.forwarder.deliver(word)
    assert [*await steps.claim_all()] == ["right"]
    assert (await steps.ended(named("bottom", 0))).member == (named("left", 1), "")


async def test_a_failure_to_forward_is_logged_once_until_forwarding_works_again(steps, monkeypatch, caplog):
    deliver = steps.forwarder.deliver
    monkeypatch.undo()
    words = {"to": 1, "c": "nobody 0 n", "p": "p", "n": "n", "h": "S", "w": ""}
    for expected in (1, 2):
        await steps.raw.xadd(steps.broker.shards[0].outbox, words)
        monkeypatch.setattr(steps.forwarder, "deliver", _away)
        for _ in range(3):
            await steps.forwarder.delivered(steps.broker.shards[0])
        assert caplog.text.count("could not be forwarded") == expected
        monkeypatch.setattr(steps.forwarder, "deliver", deliver)
        await steps.forwarder.delivered(steps.broker.shards[0])
    assert (await steps.read(0)).entries == []


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
        ShardSteps(app.sessions.current().broker, raw) as steps,
    ):
        here = _SHARDS.number("parent")
        child, grandchild = named("child", (here + 1) % COUNT), named("grandchild", (here + 2) % COUNT)
        await steps.broker.intake.submit(
            [
                steps.job("parent", dependents=(child,)),
                steps.job(child, parents=("parent",), value_template=0, dependents=(grandchild,)),
                steps.job(grandchild, parents=(child,), value_template=0),
            ]
        )
        await end(steps)
        stopwatch = Stopwatch()
        await until(lambda: _has_ended(steps, grandchild), "the grandchild to end")
        assert stopwatch.took < 2, "at once, and not at the next poll"
        below = await steps.ended(grandchild)
        assert (below.letter, below.member[0]) == (letter, "parent")
        await steps.forwarder.delivered(*app.sessions.current().broker.shards)


async def _has_ended(steps: ShardSteps, id_: str) -> bool:
    return isinstance(await steps.broker.state(id_), wire.Ended)
