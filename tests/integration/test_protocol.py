"""The scripts, called once and twice in every state: no final state changes, and a repeated call has no
effect.

Also each row of the crash table, on a real server, by calls of the broker and of a worker.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from helpers.claiming import ClaimingConsumer
from helpers.examples import ARE_ALL
from helpers.takeover import take
from helpers.waiting import until

from asyncq import QueueFull, wire
from asyncq.broker.cross_shard.submission import Submission
from asyncq.broker.cross_shard.wait_cycles import find_cycle
from asyncq.broker.limiter import LimiterAnswer, Permits
from asyncq.broker.queue_figures import QueueMeter
from asyncq.broker.schedule_store import Change, Tick
from asyncq.broker.schema import answer_tags
from asyncq.broker.schema.keys import GROUP
from asyncq.limits import Limits
from asyncq.states import READY_STATES, TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncq.broker.broker import Broker

pytestmark = pytest.mark.anyio

QUEUE = "default"
LIMITS = Limits("task", concurrency=2)
STATUS = wire.WorkerStatus("host", 1, 2, [QUEUE], 100, 0, 0, 0, "0.1.0", 15_000, is_quiet=False)
OUTCOME = wire.encode_ended(wire.Ended(wire.SUCCEEDED, b"\x01", 1, 2, 1, "w", "t", QUEUE, 0))


READ: dict[str, Callable[[Any, bytes], Any]] = {
    "stream": lambda pipe, key: (
        pipe.xrange(key).xpending_range(key, GROUP, "-", "+", 100).xinfo_consumers(key, GROUP)
    ),
    "string": lambda pipe, key: pipe.get(key),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1),
    "hash": lambda pipe, key: pipe.hgetall(key),
    "set": lambda pipe, key: pipe.smembers(key),
}
"""How the content of a key is read, for each type."""


def _pending(answer: Any) -> list[tuple[bytes, bytes]] | str:
    if isinstance(answer, Exception):
        return str(answer)  # the stream has no group
    return [(item["message_id"], item["consumer"]) for item in answer]


def _consumers(answer: Any) -> list[bytes] | str:
    if isinstance(answer, Exception):
        return str(answer)
    return sorted(consumer["name"] for consumer in answer)


class Stage:
    """One job on a server, two worker sessions, and a method for each script call."""

    def __init__(self, broker: Broker, raw: Any) -> None:
        self.broker = broker
        self.raw = raw
        self.keys = broker.shards[0]
        self.stream = self.keys.stream(QUEUE)
        self.mine, self.other = (
            ClaimingConsumer(broker.commands, name, [QUEUE], broker.history) for name in ("mine", "other")
        )
        self.permits = Permits(broker.commands, self.mine.name)
        self.job = self.make_job("job", "request")
        self.claimed: wire.Delivery | None = None

    def make_job(self, id_: str, request_id: str, **options: Any) -> wire.Job:
        return wire.Job(
            id_, "task", QUEUE, b"\x92\x90\x80", request_id, self.broker.channel, 0, 100_000, **options
        )

    async def build(self) -> Stage:
        await self.mine.make_groups()
        for consumer in (self.mine, self.other):
            await self.beat(consumer, 1)
        return self

    def close(self) -> None:
        for consumer in (self.mine, self.other):
            consumer.close()

    # -- script calls ------------------------------------------------------------------------------

    async def enqueue(self, request_id: str = "request", **options: Any) -> bool:
        job = self.make_job("job", request_id, **options)
        return not await self.broker.intake.enqueue_many([(job, wire.encode_job(job))])

    async def submit(self, request_id: str = "request") -> str:
        job = self.make_job("job", request_id)
        try:
            await self.broker.intake.submit([(job, wire.encode_job(job))])
        except ValueError:
            return "taken"
        return "accepted"

    async def wait_for(self, parent: str) -> None:
        first = self.make_job(parent, "p", dependents=("job",), wait=60_000)
        last = self.make_job("job", "request", parents=(parent,), value_template=0)
        await self.broker.intake.submit([(job, wire.encode_job(job)) for job in (first, last)])

    async def replace(self, by: ClaimingConsumer | None = None) -> int:
        first = self.make_job("before", "n", dependents=("job",), wait=60_000)
        last = self.make_job("job", "request", parents=("before",), value_template=0)
        jobs = [(job, wire.encode_job(job)) for job in (first, last)]
        return await (by or self.mine).claims.replace(self.held(), jobs)

    async def beat(self, consumer: ClaimingConsumer, count: int) -> Any:
        return await consumer.beat(self.keys, count)

    async def claim(self, consumer: ClaimingConsumer | None = None) -> wire.Delivery | None:
        consumer = consumer or self.mine
        await consumer.find_levels()
        streams = [*consumer.served.streams, *consumer.served.last_attempt_queues]
        entries = await consumer.read(streams, 1, block=False)
        if entries:
            self.claimed = consumer.delivery(entries[0])
        return self.claimed if entries else None

    async def claim_all(self) -> None:
        while await self.mine.read([self.stream, self.stream + "!"], 5, block=False):
            pass

    def held(self) -> wire.Delivery:
        return self.claimed or wire.Delivery("0-1", self.stream, 0, 0, self.job)

    async def finish(self, letter: str = wire.SUCCEEDED, by: ClaimingConsumer | None = None) -> Any:
        consumer = by or self.mine
        answer = await consumer.claims.finish_now(self.held().stream, [(self.held(), letter, OUTCOME)])
        return answer if isinstance(answer, int) else answer[0]

    async def finish_another_entry(self) -> Any:
        """Ends the job as a worker whose entry was taken away from it."""
        delivery = wire.Delivery("0-1", self.stream, 0, 0, self.held().job)
        return await self.mine.claims.finish_now(self.stream, [(delivery, wire.FAILED, OUTCOME)])

    async def release(self, by: ClaimingConsumer | None = None) -> int:
        consumer = by or self.mine
        return (await consumer.claims.release(self.held().stream, [(self.held().entry, "job")]))[0]

    async def take(self, seen: str = "1") -> tuple[int, int, bool]:
        """Lets the other worker session take mine for dead."""
        await self.other.find_levels()
        return await take(self.other, self.held().stream, self.mine.name, seen)

    async def quarantine(self) -> None:
        await self.mine.claims.quarantine(self.held().stream, self.held().entry, "why", OUTCOME)

    async def unregister(self) -> bool:
        return await self.mine.unregister()

    async def begin(self) -> bool:
        return await self.mine.begin(self.held(), [])

    async def revoke(self, signal: str = "c") -> str:
        return await self.broker.revoke("job", signal=signal, outcome=OUTCOME)

    async def expire(self) -> str:
        return await self.broker.expire("job")

    async def retry(self, by: ClaimingConsumer | None = None, wait: int = 60_000) -> int:
        return await (by or self.mine).claims.retry(self.held(), wait, self.held().retries + 1, b"failure")

    async def defer(self, by: ClaimingConsumer | None = None, wait: int = 60_000) -> int:
        return await (by or self.mine).claims.defer(self.held(), wait, b"0 1")

    async def enter(self) -> LimiterAnswer:
        return await self.permits.ask(LIMITS, self.held(), None)

    async def release_permit(self, deferred: str = "") -> str:
        return await self.permits.release(LIMITS, self.held().claim, deferred)

    async def promote(self) -> float | None:
        return await self.other.promote(self.keys)

    async def dead_letter(self, by: ClaimingConsumer | None = None) -> int:
        return await (by or self.mine).claims.dead_letter(self.held(), OUTCOME, "why")

    async def report(self, by: ClaimingConsumer | None = None) -> int:
        return await (by or self.mine).output(self.held()).report(1, "STARTED", b"\x01")

    async def append_items(
        self, by: ClaimingConsumer | None = None, number: int = 1, known: int = 0
    ) -> list[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        output = (by or self.mine).output(self.held())
        output.post_items(known, number, [b"\x01", b"\x02"], answer.set_result)
        found: list[Any] = await answer
        return found

    async def forget(self) -> str:
        return await self.broker.forget("job")

    # These calls come from the forwarder of another shard, which has delivered nothing here before.

    async def accept(self, request_id: str = "request") -> int:
        job = self.make_job("job", request_id)
        words = Submission([(job, wire.encode_job(job))], self.broker.shards).arguments()
        arguments = (self.keys.key_prefix, 1, "5-1", self.broker.channel, wire.PUSH_LIMIT, OUTCOME, *words)
        return await self.broker.commands.run(self.keys, "accept", (), arguments)

    async def deliver_ends(self, request_id: str = "request") -> int:
        words = ("5-1", "job", f"0 {request_id}", "parent", wire.SUCCEEDED, OUTCOME)
        return await self.broker.commands.run(
            self.keys, "deliver_ends", (), (self.keys.key_prefix, 1, wire.PUSH_LIMIT, *words)
        )

    async def put_schedule(self, tick: int | None = 60) -> bytes:
        """Adds a schedule, and makes the job of a tick in the same step."""
        job = self.make_job("pulse:19700101T000100Z", "tick")
        made = (
            None
            if tick is None
            else Tick(at=tick, not_before=0, job=job, message=wire.encode_job(job), overlaps=False)
        )
        change = Change(
            name="pulse",
            version="",
            due_at=0,
            fields={"s": "code", "f": "f" * 16},
            keep_until=2**50,
            wakes=True,
            tick=made,
        )
        return (await self.broker.schedules.put(change)).tag

    async def due_schedules(self) -> int:
        await self.put_schedule(tick=None)
        await self.mine.announcements.of_schedules(self.keys, {"pulse": "f" * 16})
        return len((await self.broker.schedules.due(self.keys, self.mine.name)).schedules)

    async def declare_schedules(self) -> list[str]:
        await self.put_schedule(tick=None)
        fingerprints = {"pulse": "e" * 16}
        return (await self.broker.schedules.declare(self.keys, fingerprints, 60, None, checks=True))[1]

    # -- reading the state -----------------------------------------------------------------------------

    async def state(self) -> State:
        answer = await self.broker.state("job")
        if answer is None:
            return State.UNKNOWN
        if isinstance(answer, wire.Ended):
            return answer.state
        return answer.state

    async def record(self) -> bytes | None:
        return await self.raw.get(self.keys.records + "job")

    async def notes(self) -> int:
        """Returns how often the history has the job."""
        self.broker.history.flush()
        count = 0
        for letter in (wire.SUCCEEDED, wire.FAILED, wire.REVOKED):
            found = await self.broker.commands.send(self.keys, "XRANGE", self.keys.history + letter, "-", "+")
            notes = [msgpack.unpackb(fields[1]) for _, fields in found if fields[1] != b"note"]
            count += sum(id_ == "job" and state_letter in wire.FINAL for id_, _, _, state_letter, *_ in notes)
        return count

    async def picture(self) -> dict[str, Any]:
        """Returns the contents of all keys of the namespace, without times."""
        keys = sorted([key async for key in self.raw.scan_iter(match=f"{self.keys.tag}*", count=1000)])
        async with self.raw.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.type(key)
            kinds = [kind.decode() for kind in await pipe.execute()]
            for key, kind in zip(keys, kinds, strict=True):
                READ[kind](pipe, key)
            answers = iter(await pipe.execute(raise_on_error=False))
        seen: dict[str, Any] = {}
        for key, kind in zip(keys, kinds, strict=True):
            content = next(answers)
            if kind == "stream":
                content = content, _pending(next(answers)), _consumers(next(answers))
            elif key.decode().startswith(self.keys.reader_positions):
                content = content.split()[::3]
            elif key.decode() in (
                self.keys.observations,
                self.keys.observation_ages,
                self.keys.schedules_clock,
            ):
                content = None
            elif key.decode().startswith(self.keys.announcements):
                content = {field: value.split(b" ")[1:] for field, value in content.items()}
            seen[key.decode()] = content
        return seen


@pytest.fixture
async def stage(app, raw) -> AsyncIterator[Stage]:
    stage = await Stage(app.sessions.current().broker, raw).build()
    yield stage
    stage.close()


# -- every script from every state -----------------------------------------------------------------


async def _nothing(_: Stage) -> None:
    return


async def _queued(stage: Stage) -> None:
    assert await stage.enqueue()


async def _running(stage: Stage) -> None:
    await _queued(stage)
    assert await stage.claim()


async def _signalled(stage: Stage) -> None:
    await _running(stage)
    assert await stage.revoke("t") == "signalled"


@pytest.mark.parametrize("signals", ["ci", "it", "tk", "ck"])
async def test_a_stronger_signal_replaces_a_weaker_one_and_never_the_reverse(stage, signals):
    await _running(stage)
    weak, strong = signals
    for signal, expected in ((weak, weak), (strong, strong), (weak, strong), ("c", strong)):
        assert await stage.revoke(signal) == "signalled"
        assert (await stage.record())[1:2].decode() == expected


@pytest.mark.parametrize("signal", "citk")
async def test_signals_do_not_outlive_their_job(stage, raw, signal):
    await _running(stage)
    await stage.revoke("c")
    await stage.revoke(signal)
    assert await stage.finish() == 1
    assert not await raw.hgetall(stage.mine.signal_channels[0])


async def _to_be_forgotten(stage: Stage) -> None:
    await _running(stage)
    assert await stage.forget() == "flagged"


async def _succeeded(stage: Stage) -> None:
    await _running(stage)
    assert await stage.finish() == 1


async def _failed(stage: Stage) -> None:
    await _running(stage)
    assert await stage.finish(wire.FAILED) == 1


async def _revoked(stage: Stage) -> None:
    await _queued(stage)
    assert await stage.revoke() == "revoked"


async def _expired(stage: Stage) -> None:
    await _queued(stage)
    assert await stage.expire() == "revoked"


async def _lost(stage: Stage) -> None:
    await _queued(stage)
    for _ in range(3):
        assert await stage.claim()
        await stage.beat(stage.mine, 1)
        assert await stage.begin()
        await stage.take()


async def _forgotten(stage: Stage) -> None:
    await _succeeded(stage)
    assert await stage.forget() == "forgotten"


async def _scheduled(stage: Stage) -> None:
    assert await stage.enqueue(wait=60_000)


async def _waiting(stage: Stage) -> None:
    await stage.wait_for("parent")


async def _deferred(stage: Stage) -> None:
    await _running(stage)
    assert await stage.defer() == 1


async def _deferred_without_wait(stage: Stage) -> None:
    await _running(stage)
    assert await stage.defer(wait=0) == 1


async def _due(stage: Stage) -> None:
    assert await stage.enqueue(wait=0)


async def _retrying(stage: Stage) -> None:
    await _running(stage)
    assert await stage.retry() == 1


async def _due_again(stage: Stage) -> None:
    await _running(stage)
    assert await stage.retry(wait=0) == 1


async def _dead_lettered(stage: Stage) -> None:
    await _running(stage)
    assert await stage.dead_letter() == 1


async def _taken_over(stage: Stage) -> None:
    await _running(stage)
    assert await stage.take() == (1, 0, False)


SITUATIONS: dict[str, tuple[Callable[[Stage], Awaitable[None]], State]] = {
    "nothing": (_nothing, State.UNKNOWN),
    "queued": (_queued, State.PENDING),
    "running": (_running, State.STARTED),
    "signalled": (_signalled, State.STARTED),
    "to be forgotten": (_to_be_forgotten, State.STARTED),
    "taken over": (_taken_over, State.PENDING),
    "scheduled": (_scheduled, State.SCHEDULED),
    "waiting": (_waiting, State.PENDING),
    "deferred": (_deferred, State.PENDING),
    "deferred without wait": (_deferred_without_wait, State.PENDING),
    "due": (_due, State.SCHEDULED),
    "retrying": (_retrying, State.RETRY),
    "due again": (_due_again, State.RETRY),
    "dead letter": (_dead_lettered, State.FAILURE),
    "succeeded": (_succeeded, State.SUCCESS),
    "failed": (_failed, State.FAILURE),
    "revoked": (_revoked, State.REVOKED),
    "expired": (_expired, State.REVOKED),
    "lost": (_lost, State.FAILURE),
    "forgotten": (_forgotten, State.UNKNOWN),
}

CALLS: dict[str, Callable[[Stage], Awaitable[Any]]] = {
    "enqueue": lambda s: s.enqueue(),
    "enqueue, another's": lambda s: s.enqueue("another"),
    "submit": lambda s: s.submit(),
    "submit, another's": lambda s: s.submit("another"),
    "replace": lambda s: s.replace(),
    "replace, another's": lambda s: s.replace(by=s.other),
    "finish, success": lambda s: s.finish(),
    "finish, failure": lambda s: s.finish(wire.FAILED),
    "finish, revoked": lambda s: s.finish(wire.REVOKED),
    "finish, another's": lambda s: s.finish_another_entry(),
    "release": lambda s: s.release(),
    "release, another's": lambda s: s.release(by=s.other),
    "take": lambda s: s.take(),
    "take, it beats": lambda s: s.take(seen="0"),
    "quarantine": lambda s: s.quarantine(),
    "retry": lambda s: s.retry(),
    "retry, another's": lambda s: s.retry(by=s.other),
    "defer": lambda s: s.defer(),
    "defer, another's": lambda s: s.defer(by=s.other),
    "limit": lambda s: s.enter(),
    "reacquire_permit": lambda s: s.permits.reacquire(LIMITS, s.held()),
    "release_permit": lambda s: s.release_permit(),
    "wake_job": lambda s: s.permits.wake("job"),
    "promote": lambda s: s.promote(),
    "dead_letter": lambda s: s.dead_letter(),
    "dead_letter, another's": lambda s: s.dead_letter(by=s.other),
    "unregister": lambda s: s.unregister(),
    "revoke": lambda s: s.revoke(),
    "revoke, terminate": lambda s: s.revoke("t"),
    "expire": lambda s: s.expire(),
    "forget": lambda s: s.forget(),
    "fetch_status": lambda s: s.broker.fetch_status(["job"]),
    "fetch_status, joining": lambda s: s.broker.fetch_status(["job"], "channel"),
    "state": lambda s: s.broker.state("job"),
    "message": lambda s: s.broker.message("job"),
    "unknown_entries": lambda s: s.mine.unknown_entries(s.stream, []),
    "list_consumers": lambda s: s.mine.check_in(s.keys, listed=[s.stream] * 11),
    "queue_figures": lambda s: QueueMeter(s.broker.commands, [QUEUE], lease=5).measure(),
    "check_in": lambda s: s.mine.check_in(s.keys, status=wire.encode_status(STATUS)),
    "check_in, a watcher": lambda s: s.mine.check_in(s.keys, listed=[s.stream]),
    "rights": lambda s: s.mine.check_rights(),
    "announce": lambda s: s.mine.announcements.of_tasks(["task"]),
    "claim": lambda s: s.claim_all(),
    "begin": lambda s: s.begin(),
    "begin, a stream": lambda s: s.mine.note(s.keys, {s.stream: s.held().entry}),
    "is_task_known": lambda s: s.mine.announcements.is_task_known(s.held(), "task"),
    "beat": lambda s: s.beat(s.mine, 2),
    "block": lambda s: s.broker.waits.block("job", s.held().entry, "token", ["another"], 5),
    "block, another's": lambda s: s.broker.waits.block("job", "0-1", "token", ["another"], 5),
    "append_items": lambda s: s.append_items(),
    "append_items, another's": lambda s: s.append_items(by=s.other),
    "reader_position": lambda s: s.mine.output(s.held()).reader_position(notify_at=3),
    "read": lambda s: s.broker.read_items("job", 0, 0),
    "progress": lambda s: s.report(),
    "progress, another's": lambda s: s.report(by=s.other),
    "accept": lambda s: s.accept(),
    "accept, another's": lambda s: s.accept("another"),
    "deliver_ends": lambda s: s.deliver_ends(),
    "deliver_ends, another's": lambda s: s.deliver_ends("another"),
    "put_schedule": lambda s: s.put_schedule(),
    "due_schedules": lambda s: s.due_schedules(),
    "declare_schedules": lambda s: s.declare_schedules(),
    "read_schedules": lambda s: s.broker.schedules.read(["pulse"]),
    "remove_schedules": lambda s: s.broker.schedules.remove("pulse"),
    "outbox": lambda s: s.broker.commands.forwarder.read(s.keys),
    "pause": lambda s: s.broker.queues.set_paused(QUEUE, paused=True),
    "pause, it goes on": lambda s: s.broker.queues.set_paused(QUEUE, paused=False),
    "queue_figures, of a listing": lambda s: s.broker.queues.figures([QUEUE]),
    "list_entries": lambda s: s.broker.jobs.entries(s.keys, QUEUE, "", 10, running=False),
    "list_entries, running": lambda s: s.broker.jobs.entries(s.keys, QUEUE, "", 10, running=True),
    "describe_jobs": lambda s: s.broker.jobs.described(s.keys, ["job"]),
    "note_history": lambda s: s.broker.commands.run(
        s.keys, "note_history", (), (s.keys.history, 10, 60_000, wire.FAILED, b"note")
    ),
    "purge": lambda s: s.broker.queues.purge(QUEUE, 0, OUTCOME),
    "report_status": lambda s: s.broker.workers.report(s.mine.name, STATUS),
    "waits": lambda s: find_cycle(s.broker.commands, "job", ["job"], most=10, timeout=5),
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_every_script_changes_a_jobs_state_only_as_the_table_allows_and_only_once(
    make_app, raw, namespace, situation
):
    prepare, expected = SITUATIONS[situation]
    step = 1 if ARE_ALL else 3  # `make trials` tries all pairs of a situation and a call, `make test` a third
    first = list(SITUATIONS).index(situation) % step
    for number, (name, call) in islice(enumerate(CALLS.items()), first, None, step):
        async with make_app(namespace=f"{namespace}-{number}") as app:
            stage = await Stage(app.sessions.current().broker, raw).build()
            await prepare(stage)
            before, record, noted = await stage.state(), await stage.record(), await stage.notes()
            assert before == expected
            assert noted == 1 or before not in READY_STATES, "the end of the situation itself"

            await call(stage)
            after = await stage.state()
            if before not in READY_STATES and before != State.UNKNOWN:
                noted += after in READY_STATES or (after == State.UNKNOWN and name != "forget")
            assert await stage.notes() == noted, f"{name}: the history has the job {noted} times"
            if name == "forget":
                assert after == (State.UNKNOWN if before in READY_STATES else before), name
            elif situation == "to be forgotten" and after == State.UNKNOWN:
                assert name.startswith(("finish, ", "quarantine", "dead_letter")), f"{name} ended the job"
            else:
                assert after == before or after in TRANSITIONS[before], f"{name}: {before} -> {after}"
                if not TRANSITIONS[before]:
                    assert await stage.record() == record, f"{name} changed the record of an ended job"

            if "another's" in name and before != "UNKNOWN":
                assert await stage.record() == record, f"{name} did something to a job that is not its own"

            once = await stage.picture()
            await call(stage)
            # A note of the history is sent once, whether or not it is answered.
            assert name == "note_history" or await stage.picture() == once, (
                f"{name}, sent twice, did something twice"
            )
            assert await stage.notes() == noted, f"{name}, sent twice, noted the job twice"
            stage.close()


def test_every_script_is_called_in_these_tests():
    from asyncq.broker.transport import scripts

    called = {name.partition(",")[0] for name in CALLS}
    assert called - set(scripts.load()) == {"expire"}, "an expiry is a call of revoke"
    assert set(scripts.load()) <= called


# -- the crash table, row by row -------------------------------------------------------------------


async def test_an_enqueue_sent_again_makes_no_second_job_while_any_trace_of_the_first_remains(stage):
    for step in (_nothing, _claim_it, _finish_it, _forget_it):
        await step(stage)
        length = await stage.raw.xlen(stage.stream)
        assert await stage.enqueue() is True
        assert await stage.raw.xlen(stage.stream) == max(length, 1 if step is _nothing else 0)


async def _claim_it(stage: Stage) -> None:
    assert await stage.claim()


async def _finish_it(stage: Stage) -> None:
    assert await stage.finish() == 1


async def _forget_it(stage: Stage) -> None:
    assert await stage.forget() == "forgotten"


async def test_an_ignored_result_leaves_a_tombstone_and_a_late_enqueue_makes_no_second_job(stage):
    await stage.enqueue(ignore_result=True)
    await stage.claim()
    assert await stage.finish() == 1
    assert await stage.state() == "UNKNOWN"
    assert await stage.enqueue(ignore_result=True) is True
    assert await stage.raw.xlen(stage.stream) == 0
    assert 50_000 < await stage.raw.pttl(stage.keys.records + "job") <= 60_000


@pytest.mark.one_shard
async def test_an_id_in_use_is_refused_even_within_one_call(stage):
    jobs = [stage.make_job("same", request_id) for request_id in ("a", "b", "a")]
    refused = await stage.broker.intake.enqueue_many([(job, wire.encode_job(job)) for job in jobs])
    assert refused == [(jobs[1], False)]
    assert await stage.raw.xlen(stage.stream) == 1


async def test_a_claim_whose_reply_was_lost_is_an_unknown_entry_and_a_known_claim_is_not(stage):
    await _running(stage)
    found = await stage.mine.unknown_entries(stage.stream, [])
    assert [stage.mine.delivery(item).job.id for item in found] == ["job"]
    assert await stage.mine.unknown_entries(stage.stream, [stage.held().entry]) == []
    assert await stage.other.unknown_entries(stage.stream, []) == []


@pytest.mark.usefixtures("leaves_keys")
async def test_an_unknown_entry_whose_content_was_deleted_is_quarantined_and_not_pending_any_more(stage):
    await _running(stage)
    await stage.raw.xdel(stage.stream, stage.held().entry)
    (unknown,) = await stage.mine.unknown_entries(stage.stream, [])
    with pytest.raises(wire.DecodeError):
        stage.mine.delivery(unknown)
    await stage.mine.claims.quarantine(*unknown[:2], "gone", OUTCOME)
    assert (await stage.raw.xpending(stage.stream, GROUP))["pending"] == 0


async def test_rubbish_with_the_id_of_a_job_does_not_end_that_job(stage):
    await _running(stage)
    await stage.raw.xadd(stage.stream, {"i": "job", "m": "rubbish"})
    (item,) = await stage.mine.read([stage.stream], 1, block=False)
    with pytest.raises(wire.DecodeError):
        stage.mine.delivery(item)
    await stage.mine.claims.quarantine(*item[:2], "why", OUTCOME)
    assert await stage.state() == "STARTED"
    assert await stage.finish() == 1
    assert await stage.raw.xlen(stage.stream) == 0


async def test_finish_sent_again_is_recognised_and_finish_by_another_worker_is_refused(stage):
    await _succeeded(stage)
    assert await stage.finish() == 2
    assert await stage.finish(wire.FAILED, by=stage.other) == 0
    assert await stage.state() == "SUCCESS"


async def test_a_job_that_occurs_twice_in_one_call_ends_once(stage):
    await _running(stage)
    batch = [(stage.held(), letter, OUTCOME) for letter in (wire.SUCCEEDED, wire.FAILED)]
    assert await stage.mine.claims.finish_now(stage.stream, batch) == [1, 0]
    assert await stage.state() == "SUCCESS"


async def test_a_job_with_flags_that_occurs_twice_in_one_call_ends_once(stage):
    await _signalled(stage)
    batch = [(stage.held(), letter, OUTCOME) for letter in (wire.SUCCEEDED, wire.FAILED)]
    assert await stage.mine.claims.finish_now(stage.stream, batch) == [1, 0]
    assert await stage.state() == "SUCCESS"


async def test_a_finish_that_was_refused_halfway_acknowledges_the_entry_when_it_is_sent_again(stage):
    await stage.enqueue()
    entry = (await stage.claim()).entry
    # A call leaves this behind if its user may store, but not acknowledge.
    ended = f"S--- {entry} {stage.mine.name} request ".encode() + OUTCOME
    await stage.raw.set(stage.keys.records + "job", ended, px=100_000)
    assert await stage.finish() == 2
    assert await stage.raw.xpending_range(stage.stream, "g", "-", "+", 1) == []
    assert await stage.raw.xlen(stage.stream) == 0


async def test_finish_after_a_takeover_is_refused_and_the_job_runs_again(stage):
    await _taken_over(stage)
    zombie = stage.held()
    assert await stage.finish() == 0
    again = await stage.claim(stage.other)
    assert again is not None
    assert (again.crashes, again.entry != zombie.entry) == (1, True)
    stage.claimed = zombie
    assert await stage.finish() == 0, "also while its successor runs"
    stage.claimed = again
    assert await stage.finish(by=stage.other) == 1


async def test_finish_does_not_acknowledge_an_entry_that_names_another_job(stage):
    # Entry ids are given out twice after a flush or a failover that lost writes.
    await _running(stage)
    other = wire.Delivery(stage.held().entry, stage.stream, 0, 0, stage.make_job("gone", "n"))
    assert await stage.mine.claims.finish_now(stage.stream, [(other, "S", OUTCOME)]) == [0]
    assert await stage.state() == "STARTED"
    assert await stage.finish() == 1


@pytest.mark.one_shard
async def test_a_call_ends_jobs_with_and_without_flags_and_answers_for_each_that_it_refuses(stage):
    jobs = [stage.make_job(f"j{n}", f"n{n}", ignore_result=n == 1) for n in range(4)]
    await stage.broker.intake.enqueue_many([(job, wire.encode_job(job)) for job in jobs])
    items = await stage.mine.read([stage.stream], 4, block=False)
    held = [stage.mine.delivery(item) for item in items]
    stale = wire.Delivery("0-1", stage.stream, 0, 0, held[2].job)
    first = [(held[0], "S", OUTCOME), (held[1], "S", OUTCOME), (stale, "F", OUTCOME), (held[3], "S", OUTCOME)]
    assert await stage.mine.claims.finish_now(stage.stream, first) == [1, 1, 0, 1]
    records = [await stage.raw.get(stage.keys.records + job.id) for job in jobs]
    assert [record[:1] for record in records] == [b"S", b"T", b"L", b"S"]
    assert await stage.mine.claims.finish_now(stage.stream, [(held[2], "S", OUTCOME)]) == 1


@pytest.mark.parametrize("verb", ["finish", "retry", "dead_letter", "release", "defer"])
@pytest.mark.usefixtures("leaves_keys")
async def test_a_pending_entry_that_the_record_does_not_name_is_no_claim(stage, verb):
    # After a flush or a failover that lost writes, there may be an old and a new delivery of the same job.
    await _running(stage)
    record = await stage.record()
    assert record is not None
    newer = record.replace(stage.held().entry.encode(), b"9999999999999-0")
    await stage.raw.set(stage.keys.records + "job", newer)
    assert await getattr(stage, verb)() == 0
    assert await stage.record() == newer


async def test_a_job_ends_though_a_failover_has_lost_its_delivery(stage):
    await _running(stage)
    await stage.raw.execute_command("XGROUP", "SETID", stage.stream, GROUP, "0")
    await stage.raw.xack(stage.stream, GROUP, stage.held().entry)
    assert await stage.finish() == 1
    assert await stage.state() == "SUCCESS"
    assert await stage.claim(stage.other) is None


@pytest.mark.parametrize("verb", ["retry", "dead_letter", "release", "defer"])
async def test_an_entry_that_is_pending_for_another_worker_is_no_claim(stage, verb):
    await _running(stage)
    assert await getattr(stage, verb)(by=stage.other) == 0
    assert await stage.state() == "STARTED"
    assert await stage.finish() == 1


async def test_a_deferred_job_returns_to_its_stream_with_all_fields_of_its_entry(stage):
    await _running(stage)
    assert await stage.retry(wait=0) == 1
    await stage.promote()
    for _ in range(2):
        assert await stage.claim()
        await stage.beat(stage.mine, 1)
        assert await stage.begin()
        await stage.take()
    assert await stage.claim()
    before = stage.held()
    assert (before.stream, before.crashes, before.retries) == (stage.stream + "!", 2, 1)
    assert await stage.defer(wait=0) == 1
    await stage.promote()
    assert await stage.claim()
    again = stage.held()
    assert (again.stream, again.crashes, again.retries) == (stage.stream + "!", 2, 1)
    assert again.limiter_state == b"0 1"
    assert again.entry != before.entry
    assert await stage.release() == 1
    assert await stage.claim()
    assert stage.held().limiter_state == b"0 1"  # a job that was handed back has asked before
    assert await stage.finish() == 1


async def test_a_job_is_called_only_while_it_is_deferred(stage):
    assert await stage.permits.wake("job") is False
    await _queued(stage)
    assert await stage.permits.wake("job") is True  # it is in its queue already
    assert await stage.raw.zscore(stage.keys.delayed, "job") is None
    assert await stage.claim()
    assert await stage.defer() == 1
    assert await stage.permits.wake("job") is True
    await stage.promote()
    assert await stage.claim()
    assert await stage.retry() == 1
    assert await stage.permits.wake("job") is False  # a job in backoff does not wait for the limit
    assert await stage.state() == State.RETRY


async def test_a_signalled_job_ends_and_is_not_deferred(stage):
    await _signalled(stage)
    assert await stage.defer() == 2
    assert await stage.state() == State.REVOKED


async def test_a_takeover_is_refused_while_the_session_sends_heartbeats_and_a_second_one_finds_nothing(stage):
    await _running(stage)
    await stage.beat(stage.mine, 2)
    assert await stage.take(seen="1") == (0, 0, False)
    assert await stage.state() == "STARTED"
    assert await stage.take(seen="2") == (1, 0, False)
    assert await stage.take(seen="2") == (0, 0, False)
    assert await stage.raw.xlen(stage.stream) == 1


async def test_a_session_that_was_taken_for_dead_can_never_send_a_heartbeat_again(stage):
    await stage.take()
    assert await stage.beat(stage.mine, 2) is None
    assert not await stage.raw.hexists(stage.keys.beats, stage.mine.name)


async def test_a_heartbeat_returns_the_signals_to_the_jobs_of_its_session(stage):
    await _signalled(stage)
    assert await stage.beat(stage.mine, 2) == [b"job", b"t"]
    assert await stage.beat(stage.other, 2) == []


async def test_the_last_attempt_is_in_the_last_attempt_queue_and_a_further_crash_makes_a_dead_letter(stage):
    await _queued(stage)
    streams = []
    for _ in range(3):
        delivery = await stage.claim()
        assert delivery is not None
        streams.append((delivery.stream.removeprefix(stage.keys.queues), delivery.crashes))
        await stage.beat(stage.mine, 1)
        assert await stage.begin()
        await stage.take()
    assert streams == [("default", 0), ("default", 1), ("default!", 2)]
    assert await stage.state() == "FAILURE"
    ((_, letter),) = await stage.raw.xrange(stage.keys.dead)
    assert (letter[b"i"], letter[b"c"], letter[b"m"] != b"") == (b"job", b"3", True)


async def test_only_the_first_crash_counts_for_a_job_that_had_not_started(stage):
    await _queued(stage)
    seen = []
    for begins in (False, False, False, True, False):
        delivery = await stage.claim()
        assert delivery is not None
        seen.append(delivery.crashes)
        await stage.beat(stage.mine, 1)
        if begins:
            assert await stage.begin()
        await stage.take()
        assert await stage.begin() is False, "a worker starts none of the jobs that were taken over"
        # A real session never comes back. Two streams may give entries of one millisecond the same ID, so a
        # note of the dead session could count for the entry in the next stream.
        await stage.raw.delete(stage.keys.started + stage.mine.name)
    assert seen == [0, 1, 1, 1, 2]
    assert await stage.state() == "PENDING"


async def test_the_note_that_a_body_started_belongs_to_one_entry_and_is_removed_with_it(stage):
    await _running(stage)
    await stage.beat(stage.mine, 1)
    started, first = stage.keys.started + stage.mine.name, stage.held()
    assert await stage.begin()
    assert await stage.raw.hkeys(started) == [f"{first.entry} job".encode()]
    assert await stage.release() == 1
    assert await stage.claim()
    assert await stage.mine.begin(stage.held(), [first.claim])
    assert await stage.raw.hkeys(started) == [f"{stage.held().entry} job".encode()]
    assert await stage.finish() == 1
    assert await stage.unregister()
    assert not await stage.raw.exists(started)


async def test_a_retry_sent_again_is_refused_even_after_the_same_worker_claimed_the_job_again(stage):
    await _due_again(stage)
    first = stage.held()
    assert await stage.retry() == 0
    await stage.promote()
    again = await stage.claim()
    assert again is not None
    assert (again.retries, again.crashes, again.entry != first.entry) == (1, 0, True)
    stage.claimed = first
    assert await stage.retry() == 0
    assert await stage.finish() == 0
    assert await stage.state() == "STARTED"


async def test_a_signalled_job_that_fails_ends_as_revoked_and_is_not_retried(stage):
    await _signalled(stage)
    assert await stage.retry() == 2
    assert await stage.state() == "REVOKED"
    assert await stage.raw.zcard(stage.keys.delayed) == 0


@pytest.mark.one_shard
async def test_a_due_job_is_promoted_once_and_a_job_that_is_not_due_stays_delayed(stage):
    await _due(stage)
    later = stage.make_job("later", "n2", wait=60_000)
    await stage.broker.intake.enqueue_many([(later, wire.encode_job(later))])
    left = await stage.promote()
    assert left is not None
    assert 58 < left <= 60
    assert await stage.promote() is not None
    assert await stage.raw.xlen(stage.stream) == 1
    assert await stage.raw.zrange(stage.keys.delayed, 0, -1) == [b"later"]
    delivery = await stage.claim()
    assert delivery is not None
    assert delivery.job.id == "job"
    assert delivery.job.body == stage.job.body


async def test_a_revoked_delayed_job_leaves_neither_its_message_nor_its_time(stage):
    for prepare in (_scheduled, _retrying):
        await prepare(stage)
        assert await stage.revoke() == "revoked"
        assert await stage.raw.zcard(stage.keys.delayed) == 0
        assert not await stage.raw.exists(stage.keys.messages + "job")
        await stage.promote()
        assert await stage.state() == "REVOKED"
        await stage.raw.delete(stage.keys.records + "job")


async def test_revoke_answers_revoked_only_if_no_worker_holds_the_job(stage):
    assert await stage.revoke() == "unknown"
    await _queued(stage)
    await stage.claim()
    assert await stage.revoke() == "signalled"
    assert await stage.state() == "STARTED"


async def test_a_revoked_job_is_not_delivered_any_more(stage):
    await _revoked(stage)
    assert await stage.claim() is None
    assert await stage.revoke() == "ended"


async def test_a_signalled_job_ends_as_revoked_when_it_is_taken_over_or_handed_back(stage):
    await _signalled(stage)
    assert await stage.take() == (0, 1, False)
    assert await stage.state() == "REVOKED"


async def test_a_signalled_job_that_is_handed_back_ends_as_revoked(stage):
    await _signalled(stage)
    assert await stage.release() == 2
    assert await stage.state() == "REVOKED"
    assert await stage.beat(stage.mine, 2) == []


async def test_a_signalled_job_that_ends_first_keeps_its_outcome(stage):
    await _signalled(stage)
    assert await stage.finish() == 1
    assert await stage.state() == "SUCCESS"


async def test_an_expiry_does_not_end_a_running_job(stage):
    await _running(stage)
    assert await stage.expire() == "running"
    assert await stage.finish() == 1


async def test_a_release_sent_again_is_refused_and_counts_no_crash(stage):
    await _running(stage)
    assert await stage.release() == 1
    assert await stage.release() == 0
    again = await stage.claim(stage.other)
    assert again is not None
    assert again.crashes == 0


async def test_a_release_keeps_the_crashes_that_were_counted_before(stage):
    await _taken_over(stage)
    await stage.claim(stage.other)
    assert await stage.release(by=stage.other) == 1
    again = await stage.claim(stage.other)
    assert again is not None
    assert again.crashes == 1


async def test_a_session_is_not_unregistered_while_it_has_pending_entries(stage):
    await _running(stage)
    assert await stage.unregister() is False
    assert await stage.state() == "STARTED"
    await stage.finish()
    assert await stage.unregister() is True
    assert await stage.beat(stage.mine, 7) is None


async def test_a_query_adds_its_reply_channel_once_and_a_record_keeps_at_most_64(stage):
    await _queued(stage)
    for n in range(70):
        await stage.broker.fetch_status(["job"], f"c{n}")
        await stage.broker.fetch_status(["job"], f"c{n}")
    record = (await stage.record() or b"").decode().split()
    assert len(record[4:]) == 64
    assert record[-1] == "c69"
    assert len(set(record[4:])) == 64
    await stage.claim()
    assert await stage.finish() == 1, "also with channels that the worker does not know of"


@pytest.mark.reads_bytes
@pytest.mark.one_server("listens by SUBSCRIBE")
async def test_forgetting_a_running_job_keeps_no_result_and_its_waiters_still_get_it(stage, raw):
    await _to_be_forgotten(stage)
    async with raw.pubsub() as pubsub:
        await pubsub.subscribe(stage.broker.channel)
        assert (await pubsub.get_message(timeout=2))["type"] == "subscribe"
        assert await stage.finish() == 1
        message = await pubsub.get_message(timeout=2)
    assert list(wire.split_notification(message["data"])) == [("job", "S", OUTCOME)]
    assert await stage.state() == "UNKNOWN"


@pytest.mark.reads_bytes
@pytest.mark.parametrize("size", [wire.PUSH_LIMIT, wire.PUSH_LIMIT + 1])
@pytest.mark.one_server("listens by SUBSCRIBE")
async def test_an_outcome_above_the_push_limit_is_announced_without_its_content(stage, raw, size):
    await _running(stage)
    outcome = b"o" * size
    async with raw.pubsub() as pubsub:
        await pubsub.subscribe(stage.broker.channel)
        await pubsub.get_message(timeout=2)
        await stage.mine.claims.finish_now(stage.stream, [(stage.held(), "S", outcome)])
        message = await pubsub.get_message(timeout=2)
    assert list(wire.split_notification(message["data"])) == [
        ("job", "S", outcome if size <= wire.PUSH_LIMIT else None)
    ]


async def test_a_read_that_is_served_after_the_takeover_is_found_by_the_next_observation(stage):
    await stage.take()
    await _queued(stage)
    assert await stage.claim(stage.mine)  # the read of the dead session was still at the server
    found = await stage.other.check_in(stage.keys, listed=[stage.stream])
    assert stage.stream in found.watched
    assert found.absent == [{stage.mine.name: True}]
    assert await take(stage.other, stage.stream, stage.mine.name, None) == (1, 0, False)
    assert await stage.state() == "PENDING"


async def test_scripts_work_on_a_queue_that_no_worker_ever_read(app, raw):
    stage = Stage(app.sessions.current().broker, raw)
    await stage.enqueue()
    assert await stage.state() == "PENDING"
    assert await stage.expire() == "revoked"
    assert await stage.state() == "REVOKED"


async def test_a_full_server_refuses_new_jobs_and_lets_running_ones_end(stage, raw):
    await _running(stage)
    await raw.config_set("maxmemory", "1")
    try:
        with pytest.raises(QueueFull):
            await stage.enqueue("another")
        assert await stage.beat(stage.mine, 2) == []
        assert await stage.finish() == 1
        assert await stage.state() == "SUCCESS"
    finally:
        await raw.config_set("maxmemory", "0")  # other tests use the same server


async def test_each_item_is_stored_once_and_none_behind_a_gap(stage):
    assert await stage.append_items() == [answer_tags.REFUSED], "there is no job"
    await _running(stage)
    assert (await stage.append_items())[:2] == [answer_tags.APPENDED, 2]
    assert (await stage.append_items())[1] == 2, "again"
    assert await stage.append_items(number=4) == [answer_tags.GAP, 2], "the third is on its way, or lost"
    assert (await stage.append_items(number=2))[1] == 3, "one is there, the other is not"
    assert (await stage.append_items(number=4))[1] == 5
    _, _, items = await stage.broker.read_items("job", 0, 0)
    assert items == [(1, b"\x01"), (2, b"\x02"), (3, b"\x02"), (4, b"\x01"), (5, b"\x02")]
    assert (await stage.append_items(number=9, known=8))[1] == 10, "items that the server lost delay nobody"
    await stage.take()
    assert await stage.append_items(number=11) == [answer_tags.REFUSED]
    assert await stage.mine.output(stage.held()).reader_position() is None


async def test_the_reader_position_is_that_of_the_furthest_reader_and_is_published_if_awaited(stage):
    await _running(stage)
    await stage.append_items()
    assert (await stage.mine.output(stage.held()).reader_position(notify_at=2))[0] == -1
    pushed = []
    await stage.broker.listener.subscription.subscribe(stage.keys.events + "job", pushed.append)
    for taken in (1, 0):
        await stage.broker.read_items("job", taken, taken)
        number, age, alone = await stage.mine.output(stage.held()).reader_position(notify_at=2)
        assert number == 1
        assert max(age, alone) < 5000
    assert pushed == []
    await stage.broker.read_items("job", 2, 2)
    await until(lambda: pushed == [b"w2"], "the push")
    await stage.broker.read_items("job", 2, 2)
    assert (await stage.mine.output(stage.held()).reader_position())[0] == 2
    assert pushed == [b"w2"], "once"
