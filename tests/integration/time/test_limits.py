"""Limits of tasks: how many bodies run at once and how fast they start, over all workers; and the jobs that
wait.
"""

from __future__ import annotations

import asyncio
import gc
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from helpers.figures import report
from helpers.inside import limiter_of, session_of, set_clock_back
from helpers.notes import lines
from helpers.rate_cell import Cell
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import Retry, RetryLater, TaskExpired, TaskRevoked, Worker, allow_join_result as allowed, wire
from asyncq.broker.limiter import Permits
from asyncq.limits import Limits
from asyncq.worker.attempt import RunningJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

pytestmark = pytest.mark.anyio


class Bodies:
    """Counts the bodies that run now, and the largest number so far."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.order: list[int] = []
        self.gate = asyncio.Event()

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


@pytest.fixture
def alone(app, bodies):
    @app.task(name="alone", concurrency=1)
    async def alone(number: int = 0) -> int:
        bodies.order.append(number)
        with bodies:
            await bodies.gate.wait()
        return number

    return alone


@pytest.fixture
def permits(app, raw):
    """Returns the server's state of a task's permits: how many are held, and which jobs wait for one."""

    async def permits(task: str = "alone") -> tuple[int, list[str]]:
        keys = app.sessions.shards.of(task)
        waiting = await raw.zrange(keys.permits_waiting + task, 0, -1)
        return await raw.hlen(keys.permits_held + task), [member.decode() for member in waiting]

    return permits


# -- concurrency -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_bodies_run_at_once_than_the_limit_over_all_workers(app, bodies, permits, limit):
    @app.task(name="limited", concurrency=limit)
    async def limited() -> None:
        with bodies:
            await asyncio.sleep(0.003)

    async with Worker(app, concurrency=10), Worker(app, concurrency=10):
        stopwatch = Stopwatch()
        results = await limited.map([()] * 40)
        await results.get(timeout=30)
        took = stopwatch.took
        await until(lambda: is_empty(permits, "limited"), "all permits to be released")
    report(f"40 jobs of 3 ms, {limit} at once: {took:.2f} s")
    assert bodies.most == limit


async def is_empty(permits, task: str = "alone") -> bool:
    return await permits(task) == (0, [])


async def test_jobs_that_wait_for_a_permit_hold_no_slot_are_pending_and_start_in_order(
    app, alone, bodies, permits
):
    @app.task
    async def other() -> str:
        return "done"

    async with Worker(app, concurrency=2):
        results = [await alone.delay(number) for number in range(4)]
        await until_state(results[0], "STARTED")
        await until_waiting(permits, 3)
        assert await other.call() == "done"
        assert [await result.refresh() for result in results[1:]] == ["PENDING"] * 3
        bodies.gate.set()
        assert await asyncio.gather(*results) == [0, 1, 2, 3]
    assert bodies.order == [0, 1, 2, 3]


async def soon(coming: Awaitable[Any]) -> Any:
    """Awaits a job that must be called: it must not take as long as if it asked again by itself."""
    stopwatch = Stopwatch()
    value = await coming
    assert stopwatch.took < 4
    return value


async def until_waiting(permits, number: int, task: str = "alone") -> None:
    async def there() -> bool:
        return len((await permits(task))[1]) == number

    await until(there, f"{number} jobs to wait for a permit")


@pytest.mark.parametrize("end", ["revoke", "fail", "stop", "timeout"])
async def test_a_body_that_ends_in_any_way_releases_its_permit_to_the_next_job(app, bodies, permits, end):
    @app.task(name="alone", concurrency=1, timeout=0.5 if end == "timeout" else None)
    async def alone(number: int) -> int:
        bodies.order.append(number)
        if number == 0:
            try:
                await bodies.gate.wait()
            finally:
                bodies.gate.set()
            raise ValueError
        return number

    async with Worker(app, grace=0) as first:
        holder = await alone.delay(0)
        await until_state(holder, "STARTED")
        async with Worker(app):
            waits = await alone.delay(1)
            if end != "timeout":  # the timeout may have come first
                await until_waiting(permits, 1)
            if end == "revoke":
                await holder.revoke(terminate=True)
            elif end == "fail":
                bodies.gate.set()
            elif end == "stop":
                first.stop()
            assert await soon(waits.get(timeout=30)) == 1
            await soon(holder.outcome(timeout=30))
            await until(lambda: is_empty(permits), "all permits to be released")


async def test_a_revoked_waiting_job_is_skipped(app, alone, bodies, permits):
    async with Worker(app):
        results = [await alone.delay(number) for number in range(4)]
        await until_waiting(permits, 3)
        assert await results[1].revoke()
        assert await results[2].revoke()
        bodies.gate.set()
        assert await soon(results[3].get(timeout=30)) == 3
        with pytest.raises(TaskRevoked):
            await results[1].get(timeout=1)
        await until(lambda: is_empty(permits), "the revoked jobs to be removed")
    assert bodies.order == [0, 3]


async def test_a_job_can_expire_while_it_waits_for_a_permit(app, alone, bodies, permits):
    async with Worker(app):
        await alone.delay()
        await until(lambda: bodies.now == 1, "the permit to be held")
        late = await alone.options(expires=0.3).delay(1)
        dead = await alone.options(deadline=0.3).delay(2)
        for result in (late, dead):
            with pytest.raises(TaskExpired):
                await soon(result.get(timeout=30))
        bodies.gate.set()
    assert bodies.order == [0]


async def test_a_reader_of_events_learns_once_that_a_job_waits_however_often_it_asks(
    app, alone, bodies, permits
):
    async with Worker(app) as worker:
        await alone.delay()
        await until(lambda: bodies.now == 1, "the permit to be held")
        waits = await alone.delay(1)
        await until_waiting(permits, 1)
        await until(lambda: is_deferred(app, waits), "the job to be deferred")
        claims, asked = session_of(worker).attempts.outcomes.claims, 0
        defer = claims.defer

        async def counted(*received: Any) -> int:
            nonlocal asked
            answer = await defer(*received)
            asked += 1
            return answer

        claims.defer = counted
        events = waits.events(timeout=30)
        states = [(await anext(events)).state]
        for times in range(1, 4):
            assert await limiter_of(worker).permits.wake(waits.id)
            await until(lambda times=times: asked == times, "the job to ask in vain")
        bodies.gate.set()
        states += [event.state async for event in events]
    assert ("PENDING", "PENDING") not in pairwise(states)
    assert (states[0], states[-1]) == ("PENDING", "SUCCESS")


async def test_jobs_of_a_limited_task_are_freed_without_garbage_collection(app, permits):
    @app.task(name="limited", concurrency=5, rate_limit=100_000)
    async def limited() -> None:
        pass

    def left() -> int:
        return sum(isinstance(one, RunningJob) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        async with Worker(app):
            await (await limited.map([()] * 20)).get(timeout=30)
            await until(lambda: is_empty(permits, "limited"), "all permits to be released")
            await until(lambda: not left(), "the worker to hold no job")
    finally:
        gc.enable()


async def test_a_job_that_has_expired_when_it_is_called_leaves_its_permit_to_the_next_job(
    app, raw, alone, bodies, permits
):
    async with Worker(app, grace=0):
        await alone.delay()
        await until(lambda: bodies.now == 1, "the permit to be held")
        late = await alone.options(expires=0.3).delay(1)
        await until_waiting(permits, 1)
        await alone.delay(2)
        await until_waiting(permits, 2)
        keys = app.sessions.shards.of("alone")
        await raw.zrem(
            keys.permits_waiting + "alone", late.id
        )  # as the process that releases the permit and calls it
        await raw.delete(keys.permits_held + "alone")
        await soon(until(lambda: bodies.order == [0, 2], "the next job to start"))
        with pytest.raises(TaskExpired):
            await soon(late.get(timeout=30))


async def test_a_stopping_worker_first_sends_all_calls_even_those_that_follow_from_an_answer(app, alone):
    """Such a call follows, for example, from the answer to a job that was deferred."""
    output = []
    async with Worker(app) as worker:
        reports = session_of(worker).attempts.outcomes.reports

        async def more() -> None:
            await asyncio.sleep(0.1)
            output.append("more")

        async def first() -> None:
            await asyncio.sleep(0.1)  # by then the worker waits for this task
            reports.start(more())

        reports.start(first())
    assert output == ["more"]


async def test_a_job_that_expired_while_it_waited_is_removed_from_the_waiting_jobs(
    app, alone, bodies, permits
):
    async with Worker(app, grace=0):
        await alone.delay()
        await until(lambda: bodies.now == 1, "the permit to be held")
        late = await alone.options(expires=0.2).delay(1)
        await until_waiting(permits, 1)
        await until_waiting(permits, 0)  # no waiter exists that would end the job
        with pytest.raises(TaskExpired):
            await soon(late.get(timeout=30))


@pytest.mark.parametrize("answer", ["comes", "is lost"])
async def test_a_job_that_was_called_before_it_was_deferred_is_called_again(
    app, alone, bodies, permits, answer
):
    """The holder ends after the answer that there is no permit, and before the step that defers the job."""
    async with Worker(app) as worker:
        first = await alone.delay()
        await until(lambda: bodies.now == 1, "the permit to be held")
        claims = session_of(worker).attempts.outcomes.claims
        defer = claims.defer

        async def later(delivery: wire.Delivery, wait: int, limiter_state: bytes) -> int:
            bodies.gate.set()
            await first.get(timeout=30)
            await until(lambda: not limiter_of(worker).known, "its permit to be released")
            if answer == "is lost":
                await defer(delivery, wait, limiter_state)
            return await defer(delivery, wait, limiter_state)

        claims.defer = later
        assert await soon(alone.options(wait=30).call(1)) == 1


async def test_a_job_that_waits_for_a_job_of_its_task_releases_its_permit_and_resumes_before_new_jobs(
    app, bodies, permits
):
    @app.task(name="nested", concurrency=1)
    async def nested(depth: int) -> int:
        if depth < 0:
            return 0
        value = 0
        if depth:
            with allowed():
                value = await nested.call(depth - 1)
        with bodies:
            await asyncio.sleep(0.005)
        bodies.order.append(depth)
        return 1 + value

    async with Worker(app, concurrency=3), Worker(app, concurrency=3):
        deep = await nested.delay(4)
        assert await deep.get(timeout=30) == 5
        others = await nested.map([(-1,)] * 20)
        deep = await nested.delay(2)
        more = await nested.map([(0,)] * 20)
        assert await deep.get(timeout=30) == 3
        await more.get(timeout=30)
        await others.get(timeout=30)
        await until(lambda: is_empty(permits, "nested"), "all permits to be released")
    assert bodies.most == 1
    assert bodies.order[:5] == [0, 1, 2, 3, 4]


async def test_a_job_that_resumes_after_a_wait_while_its_permit_is_taken_gets_the_next_permit(
    app, bodies, permits, monkeypatch
):
    monkeypatch.setattr("asyncq.worker.permits.POLL", 60.0)  # it must get a message

    @app.task(name="elsewhere")
    async def elsewhere() -> None:
        await until(lambda: bodies.now == 1, "the permit to be held")

    @app.task(name="alone", concurrency=1)
    async def alone(number: int) -> None:
        if number == 0:
            with allowed():
                await elsewhere.call()
        bodies.order.append(number)
        with bodies:
            await bodies.gate.wait()

    async with Worker(app):
        results = [await alone.delay(number) for number in range(6)]

        async def it_waits() -> bool:
            waiting = (await permits())[1]
            return len(waiting) == 5 and any(member.startswith(">") for member in waiting)

        await until(it_waits, "the first job to resume and get no permit")
        assert bodies.now == 1
        bodies.gate.set()
        await soon(asyncio.gather(*(result.get(timeout=30) for result in results)))
        await until(lambda: is_empty(permits), "all permits to be released")
    assert (bodies.order[1], bodies.most) == (0, 1)


@pytest.mark.parametrize("kind", ["thread", "process", "generator", "map in one job"])
async def test_every_kind_of_task_is_limited(app, permits, tmp_path, kind):
    log = tmp_path / "log"
    tasks = KINDS(app)
    task = tasks[kind]
    async with Worker(app, concurrency=4):
        if kind == "map in one job":
            results = [await task.starmap([(str(log), i), (str(log), i)]).delay() for i in range(3)]
        else:
            results = [await task.delay(str(log), i) for i in range(3)]
        await asyncio.gather(*(result.outcome(timeout=30) for result in results))
        await until(lambda: is_empty(permits, task.name), "all permits to be released")
    words = [line.split()[0] for line in lines(log)]
    assert words == ["start", "end"] * (6 if kind == "map in one job" else 3)


def plain_start_and_end(log: str, number: int) -> None:
    from helpers.notes import note

    note(log, f"start {number}")
    time.sleep(0.02)
    note(log, f"end {number}")


def KINDS(app):
    async def start_and_end(log: str, number: int) -> None:
        from helpers.notes import note

        note(log, f"start {number}")
        await asyncio.sleep(0.02)
        note(log, f"end {number}")

    async def items(log: str, number: int) -> AsyncIterator[int]:
        await start_and_end(log, number)
        yield number

    return {
        "thread": app.task(name="thread", concurrency=1)(plain_start_and_end),
        "process": app.task(name="process", concurrency=1, executor="process")(plain_start_and_end),
        "generator": app.task(name="generator", concurrency=1)(items),
        "map in one job": app.task(name="calls", concurrency=1)(start_and_end),
    }


async def test_the_permit_of_a_killed_worker_is_released(make_app, server_url, namespace, tmp_path, permits):
    app = make_app()
    jobs = register(app)
    log, gate = tmp_path / "log", tmp_path / "gate"
    async with app:
        with worker_process(server_url, namespace, lease=1) as victim:
            held = await jobs.alone.delay(str(log), "held", str(gate))
            await until(lambda: len(lines(log)) == 1, "the victim to hold the only permit")
            async with Worker(app):
                waits = await jobs.alone.delay(str(log), "waits", str(gate))
                await until_waiting(permits, 1)
                victim.kill()
                await until(lambda: len(lines(log)) == 2, "another job to have the permit")
                gate.touch()
                assert (await held.outcome(timeout=30)).attempts == 2
                assert "waits" in await waits.get(timeout=30)
                await until(lambda: is_empty(permits), "all permits to be released")
    words = [line.split()[0] for line in lines(log)]
    assert words == ["start", "start", "end", "start", "end"]  # the killed attempt did not end


async def test_a_permit_that_no_job_knows_of_is_released(app, alone, bodies, permits):
    """A repeated request for a permit arrived after the permit was released."""
    async with Worker(app) as worker:
        session = session_of(worker)
        bodies.gate.set()
        delivery = wire.Delivery(
            "1-1", "stream", 0, 0, wire.Job("gone", "alone", "default", b"", "n", "", 0, 1)
        )
        reply = await Permits(session.broker.commands, session.consumer.name).ask(
            Limits("alone", 0.0, 1), delivery, None
        )
        assert reply.starts
        waits = await alone.delay(1)
        await until_waiting(permits, 1)
        session.fetchers[0]._may_have_lost_a_reply = True
        session.consumer.drop_read()
        assert await soon(waits.get(timeout=30)) == 1


def job(number: int = 0) -> wire.Delivery:
    return wire.Delivery(f"1-{number}", "s", 0, 0, wire.Job(f"j{number}", "t", "q", b"", "n", "", 0, 1))


@pytest.fixture
async def limiter(app, raw) -> AsyncIterator[Permits]:
    """The limiter, as a worker with a heartbeat uses it."""
    beats = app.sessions.shards.of("t").beats
    await raw.hset(beats, "me", 1)
    yield Permits(app.sessions.current().broker.commands, "me")
    await raw.hdel(beats, "me")


async def test_a_permit_that_a_job_cannot_use_because_of_the_rate_goes_to_the_next_job(limiter):
    permits, both = Limits("t", 0.0, 2), Limits("t", 60e6, 2)
    assert (await limiter.ask(both, job(0), None)).starts
    assert (await limiter.ask(permits, job(1), None)).starts
    assert [(await limiter.ask(permits, job(number), None)).waits_for_permit for number in (2, 3)] == [
        True,
        True,
    ]
    assert await limiter.release(permits, job(1).claim) == "j2"
    reply = await limiter.ask(both, job(2), None)
    assert (reply.starts, reply.waits_for_permit, reply.next_job) == (False, False, "j3")


async def test_a_job_that_waits_in_a_dead_worker_or_was_cancelled_there_gets_no_permit(app, raw, limiter):
    limits, keys = Limits("t", 0.0, 1), app.sessions.shards.of("t")
    dead = Permits(app.sessions.current().broker.commands, "dead")
    await raw.hset(keys.beats, "dead", 1)
    assert (await limiter.ask(limits, job(0), None)).starts
    assert (await limiter.ask(limits, job(1), None)).waits_for_permit
    assert await dead.reacquire(limits, job(2)) == (False, "")
    assert await limiter.reacquire(limits, job(3)) == (False, "")
    assert await limiter.release(limits, job(3).claim) == ""
    await raw.hdel(keys.beats, "dead")
    assert await limiter.release(limits, job(0).claim) == "j1"
    assert not await raw.exists(keys.permits_held + "t", keys.permits_waiting + "t")


async def test_a_job_that_resumes_after_a_wait_gets_a_permit_before_jobs_that_have_not_started(
    app, raw, limiter
):
    limits, keys = Limits("t", 0.0, 1), app.sessions.shards.of("t")
    assert (await limiter.ask(limits, job(0), None)).starts
    for number in range(1, 5):
        assert (await limiter.ask(limits, job(number), None)).waits_for_permit
    assert await limiter.reacquire(limits, job(9)) == (False, "")
    assert await limiter.release(limits, job(0).claim) == ""
    assert await raw.hgetall(keys.permits_held + "t") == {job(9).claim.encode(): b"me"}
    assert await limiter.reacquire(limits, job(9)) == (True, "")


async def test_the_more_jobs_wait_for_a_permit_the_longer_is_the_pause_before_they_ask_again(limiter):
    limits = Limits("t", 0.0, 1)
    assert (await limiter.ask(limits, job(0), None)).starts
    assert [(await limiter.ask(limits, job(i), None)).wait for i in range(1, 4)] == [5000, 5020, 5040]
    assert (await limiter.ask(limits, job(4), 100)).wait == 100  # until it expires


# -- rates ---------------------------------------------------------------------------------------


async def test_a_rate_limit_spaces_starts_evenly_over_all_workers_and_waiting_jobs_hold_no_slot(app, diary):
    @app.task(rate_limit="50/s")
    async def paced() -> None:
        diary.note("start")

    @app.task
    async def other() -> str:
        return "done"

    async with Worker(app, concurrency=1), Worker(app, concurrency=1):
        results = await paced.map([()] * 11)
        assert await other.call() == "done"
        waiting = await results.waiting()
        states = {await result.refresh() for result in results}
        await results.get(timeout=30)
    assert waiting
    assert states <= {"PENDING", "STARTED", "SUCCESS"}
    took = diary.times[-1] - diary.times[0]
    pauses = [later - sooner for sooner, later in pairwise(diary.times)]
    worst = f"from {min(pauses) * 1000:.0f} to {max(pauses) * 1000:.0f} ms"
    report(f"10 pauses of 20 ms: {took * 1000:.0f} ms, {worst}")
    assert took >= 0.2 - 0.1
    assert took < 1.0


async def test_a_rate_limit_and_a_concurrency_limit_hold_together(app, bodies, diary, permits):
    @app.task(name="both", rate_limit=100, concurrency=2)
    async def both() -> None:
        diary.note("start")
        with bodies:
            await asyncio.sleep(0.025)

    async with Worker(app), Worker(app):
        stopwatch = Stopwatch()
        await (await both.map([()] * 20)).get(timeout=30)
        took = stopwatch.took
        await until(lambda: is_empty(permits, "both"), "all permits to be released")
    assert bodies.most == 2
    assert took < 2.0  # waiting jobs were called: none had to ask again by itself


async def test_each_attempt_asks_the_limiter_again(app, diary):
    @app.task(rate_limit=20, retry=Retry(max_retries=3, backoff=0))
    async def flaky() -> int:
        diary.note(asyncq.current().attempt)
        if asyncq.current().attempt < 4:
            raise RetryLater(countdown=0)
        return asyncq.current().attempt

    async with Worker(app):
        assert await flaky.call() == 4
    assert diary.texts == [1, 2, 3, 4]
    assert diary.times[-1] - diary.times[0] >= 0.15 - 0.1


async def test_a_job_that_would_expire_before_its_start_time_takes_no_start_time(limiter):
    limits = Limits("t", 60e6)
    assert (await limiter.ask(limits, job(), None)).starts
    expires = await limiter.ask(limits, job(), 1000)
    assert (expires.starts, expires.wait, expires.state[:1]) == (False, 1000, b"0")
    assert 59_000 < (await limiter.ask(limits, job(), None)).wait <= 60_000


async def test_a_revoked_job_that_waits_for_its_start_time_never_starts(app, diary):
    @app.task(rate_limit="1/d")
    async def daily(number: int) -> None:
        diary.note(number)

    async with Worker(app):
        first, second = await daily.delay(1), await daily.delay(2)
        await first.get(timeout=30)
        await until(lambda: is_deferred(app, second), "the job to be deferred")
        assert await second.revoke()
        with pytest.raises(TaskRevoked):
            await second.get(timeout=30)
    assert diary.texts == [1]


async def is_deferred(app, result) -> bool:
    return str((await app.sessions.current().broker.fetch_status([result.id]))[0])[0] == wire.DEFERRED


@pytest.fixture
def cases() -> Iterator[tuple[float, float, float, bool]]:
    """Yields the interval, the open and the first free time from now, in seconds; and whether the job has a
    time.
    """
    offsets = (-5.0, -0.05, 0.05, 0.3, 7.0)
    return (
        (interval, opens, free, granted)
        for interval in (0.01, 0.5, 60.0)
        for opens in offsets
        for free in offsets
        for granted in (False, True)
    )


async def test_the_limiter_script_gives_the_answers_of_the_rule_in_python(app, raw, limiter, cases):
    keys, delivery = app.sessions.shards.of("t"), job()
    for interval, opens, free, granted in cases:
        late = 1.0
        while late > 0.03:  # otherwise it is not clear when the script read the clock
            now = await _clock(raw)
            us = [round((now + start) * 1e6) for start in (opens, free)]
            await raw.set(keys.rates + "t", f"{us[0]} {us[1]} {interval * 1e6:.1f}", px=60_000)
            delivery.limiter_state = b"1 5" if granted else b""
            reply = await limiter.ask(Limits("t", interval * 1e6), delivery, None)
            late = await _clock(raw) - now
        rule = Cell(interval, now + opens, now + free)
        start = rule.ask(now, granted=granted)
        what = (interval, opens, free, granted)
        assert reply.starts == (start is None), what
        if start is not None:
            assert reply.wait / 1000 == pytest.approx(start - now, abs=0.03), what
            assert reply.state.startswith(b"1 "), what
        kept = [float(word) / 1e6 for word in (await raw.get(keys.rates + "t")).split()[:2]]
        assert kept == pytest.approx([rule.open, rule.free_from], abs=0.03), what


async def _clock(raw) -> float:
    seconds, micro = await raw.time()
    return seconds + micro / 1e6


async def test_a_changed_rate_does_not_wait_for_start_times_that_were_assigned_before(limiter):
    slow, fast = Limits("t", 60e6), Limits("t", 1e6)
    waits = [(await limiter.ask(slow, job(), None)).wait for _ in range(3)]
    assert waits == pytest.approx([0, 60_000, 120_000], abs=500)
    assert (await limiter.ask(fast, job(), None)).wait <= 60_000
    assert 60_000 < (await limiter.ask(fast, job(), None)).wait <= 61_000


@pytest.mark.one_shard
async def test_jobs_start_on_time_after_the_servers_clock_was_set_back(app, raw):
    starts: list[float] = []

    @app.task(name="paced", rate_limit=20)
    async def paced() -> None:
        starts.append(time.monotonic())

    keys = app.sessions.shards[0]
    async with Worker(app):
        promised = await paced.options(countdown=100).delay()
        results = await paced.map([()] * 30)
        await until(lambda: len(starts) >= 5, "the first jobs to start")
        await set_clock_back(app, raw, 20, "paced")
        stopwatch = Stopwatch()
        # Without the correction, a new job would start in 20 s, and so would the jobs that wait.
        results.add(await paced.delay())
        await results.get(timeout=60)
        assert stopwatch.took < 15, "1.3 s, and not 20 s longer"
        offset = int(await raw.get(keys.clock_offset))
        assert 19_000 < offset < 21_000, "counted once, by whichever call notices it"
        due = await raw.zscore(keys.delayed, promised.id)
        assert due / 1000 > await _clock(raw) + 90, "a countdown follows the server's clock"
        await promised.revoke()
    await raw.delete(keys.clock_offset)
