"""Reports of a running job reach the readers of its events, and the newest report is never lost."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers.claiming import ClaimingConsumer
from helpers.inside import drop_subscription
from helpers.stopwatch import Stopwatch
from helpers.takeover import take
from helpers.waiting import until, until_state

import asyncq
from asyncq import (
    AsyncQ,
    AsyncResult,
    EagerResult,
    Event,
    ResultNotFound,
    ResultTimeout,
    Retry,
    SerializationError,
    TaskRevoked,
    Worker,
    WouldDeadlock,
)

pytestmark = pytest.mark.anyio


class Gate:
    """Lets the tasks in this process go on one by one."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[object] = asyncio.Queue()

    def open(self, steps: int = 1) -> None:
        for _ in range(steps):
            self._steps.put_nowait(None)

    async def passed(self) -> None:
        await self._steps.get()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def counted(app, gate):
    @app.task(name="counted")
    async def counted(steps: int) -> str:
        for n in range(steps):
            await gate.passed()
            await asyncq.current().progress(n + 1, steps, f"step {n + 1}")
        await gate.passed()
        return "done"

    return counted


def _meta(done: int, total: int) -> dict:
    return {"done": done, "total": total, "message": f"step {done}"}


async def _collect(result: AsyncResult, **options) -> list[Event]:
    return [event async for event in result.events(**options)]


async def test_a_refreshed_handle_shows_the_last_report_of_the_job(app, counted, gate):
    async with Worker(app):
        result = await counted.delay(2)
        await until_state(result, "STARTED")
        assert result.info is None
        gate.open(2)
        await until_state(result, "PROGRESS")

        async def second() -> bool:
            await result.refresh()
            return result.info == _meta(2, 2)

        await until(second, "the second step to show")
        assert result.state == "PROGRESS"
        gate.open()
        assert await result == "done"
        assert (result.state, result.info) == ("SUCCESS", "done")


async def test_events_arrive_in_order_from_the_newest_state_to_the_end(app, counted, gate):
    async with Worker(app):
        result = await counted.delay(3)
        seen = []
        async for event in result.events(timeout=30):
            seen.append((str(event.state), event.info))
            gate.open()
    words = [state for state, _ in seen]
    assert words[-4:] == ["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]
    assert set(words[:-4]) <= {"PENDING", "STARTED"}
    assert [info for _, info in seen[-4:]] == [_meta(1, 3), _meta(2, 3), _meta(3, 3), "done"]


async def test_progress_is_pushed_and_not_polled(app, counted, gate):
    async with Worker(app):
        result = await counted.delay(20)
        events = result.events(timeout=30)
        while (event := await anext(events)).state != "STARTED":
            pass
        stopwatch = Stopwatch()
        for n in range(20):
            gate.open()
            event = await anext(events)
            assert event.info == _meta(n + 1, 20)
        assert stopwatch.took < 1
        assert result.state == "PROGRESS", "the handle is notified, too"
        assert event.final is False
        gate.open()
        assert (await anext(events)).final


async def test_an_untracked_job_is_shown_as_pending_until_its_first_report(app, gate):
    started = asyncio.Event()

    @app.task(track_started=False)
    async def quiet() -> None:
        started.set()
        await gate.passed()
        await asyncq.current().update_state("HALFWAY", 1)
        await gate.passed()

    async with Worker(app, name="w"):
        result = await quiet.options(expires=60).delay()
        following = asyncio.create_task(_collect(result, timeout=10))
        await started.wait()
        other = app.AsyncResult(result.id)
        assert await other.refresh() == "PENDING"
        assert (other.worker, other.date_started) == (None, None)
        gate.open()
        await until_state(other, "HALFWAY")
        assert (other.info, other.worker) == (1, "w")
        gate.open()
        outcome = await result.outcome(timeout=30)
        states = [str(event.state) for event in await following]
    assert (outcome.worker, outcome.started_at is None) == ("w", False)
    assert states == ["PENDING", "HALFWAY", "SUCCESS"]


async def test_a_late_reader_gets_the_newest_state_first(app, make_app, counted, gate):
    async with make_app() as elsewhere, Worker(app):
        result = await counted.delay(5)
        gate.open(4)
        await until_state(result, "PROGRESS")

        async def fourth() -> bool:
            await result.refresh()
            return result.info == _meta(4, 5)

        await until(fourth, "four steps")
        events = elsewhere.AsyncResult(result.id).events(timeout=30)
        first = await anext(events)
        assert (first.state, first.meta) == ("PROGRESS", _meta(4, 5))
        assert first.at is not None
        gate.open(2)
        assert [event.info async for event in events] == [_meta(5, 5), "done"]
        ended = await _collect(elsewhere.AsyncResult(result.id))
        assert [(event.state, event.info) for event in ended] == [("SUCCESS", "done")]


async def test_the_newest_state_arrives_though_the_subscription_is_cut(app, make_app, raw):
    messages = asyncio.Event()

    @app.task(name="steps")
    async def steps() -> None:
        for n in range(200):
            await asyncq.current().update_state("AT", n)
            await asyncio.sleep(0.002)
        messages.set()
        await asyncio.Event().wait()

    async with make_app() as elsewhere, Worker(app, grace=0):
        result = await steps.delay()
        seen = []

        async def follow() -> None:
            handle = elsewhere.AsyncResult(result.id)
            await handle.get(propagate=False, on_event=lambda event: seen.append(event.info))

        following = asyncio.create_task(follow())
        while not messages.is_set():
            await raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.02)
        await until(lambda: seen and seen[-1] == 199, "the last state", timeout=60)
        numbers = [n for n in seen if n is not None]
        assert numbers == sorted(set(numbers)), "no state twice, and none out of order"
        await result.revoke(terminate=True, wait=True)
        await following
        assert isinstance(seen[-1], TaskRevoked)


async def test_reports_made_while_the_subscription_was_down_are_fetched(app, make_app, counted, gate):
    async with make_app() as elsewhere, Worker(app):
        result = await counted.delay(2)
        gate.open()
        events = elsewhere.AsyncResult(result.id).events(timeout=30)
        while (await anext(events)).state != "PROGRESS":
            pass
        drop_subscription(elsewhere)
        gate.open()
        stopwatch = Stopwatch()
        assert (await anext(events)).info == _meta(2, 2)
        assert stopwatch.took < 2, "at the reconnection, not by the slow poll"
        gate.open()
        assert (await anext(events)).final


async def test_consecutive_reports_are_coalesced_and_the_last_one_is_stored(app, raw):
    @app.task(name="chatty")
    async def chatty() -> None:
        context = asyncq.current()
        await asyncio.gather(*(context.update_state("AT", n) for n in range(500)))
        await asyncio.Event().wait()

    async with Worker(app, grace=0):
        before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        result = await chatty.delay()
        await until_state(result, "AT")

        async def last() -> bool:
            await result.refresh()
            return result.info == 499

        await until(last, "the last report")
        calls = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
        assert calls < 60
        await result.revoke(terminate=True, wait=True)


async def test_a_retry_is_shown_with_its_error_before_the_next_attempt(app, gate):
    @app.task(name="flaky", retry=Retry(max_retries=1, backoff=0.1, jitter=False))
    async def flaky() -> int:
        attempt = asyncq.current().attempt
        await asyncq.current().update_state("TRYING", attempt)
        if attempt == 1:
            raise KeyError("first")
        await gate.passed()  # otherwise the end may overtake the report
        return attempt

    events = []
    async with Worker(app):
        result = await flaky.delay()
        async for event in result.events(timeout=30):
            events.append(event)
            if (event.state, event.info) == ("TRYING", 2):
                gate.open()
    received = [(event.state, event.info) for event in events if event.state not in {"STARTED", "PENDING"}]
    assert [state for state, _ in received] == ["TRYING", "RETRY", "TRYING", "SUCCESS"]
    assert isinstance(received[1][1], KeyError)
    assert [received[0][1], received[2][1], received[3][1]] == [1, 2, 2]


async def test_a_query_that_the_next_attempt_overtakes_shows_no_failure_twice(app, gate, monkeypatch):
    @app.task(name="flaky", retry=Retry(max_retries=1, backoff=0.3, jitter=False))
    async def flaky() -> None:
        if asyncq.current().attempt == 1:
            raise KeyError("first")
        await asyncq.current().update_state("TRYING", 2)
        await gate.passed()

    broker = app.sessions.current().broker
    fetch_state, overtaken = broker.state, []

    async def fetch_state_late(id_, left):
        answer = await fetch_state(id_, left)
        if answer is not None and answer.state == "RETRY" and not overtaken:
            overtaken.append(answer)
            await until(lambda: result.info == 2, "the next attempt to report")
        return answer

    monkeypatch.setattr(broker, "state", fetch_state_late)
    states = []
    async with Worker(app):
        result = await flaky.delay()
        async for event in result.events(timeout=30):
            states.append(event.state)
            if event.state == "TRYING":
                gate.open()
    assert overtaken
    assert states.count("RETRY") == 1
    assert states[-2:] == ["TRYING", "SUCCESS"]


async def test_a_large_report_is_fetched(app, gate):
    @app.task(name="large")
    async def large() -> None:
        await asyncq.current().update_state("LARGE", "x" * 50_000)
        await gate.passed()

    async with Worker(app):
        result = await large.delay()
        async for event in result.events(timeout=30):
            if event.state == "LARGE":
                assert len(event.info) == 50_000
                gate.open()
    assert event.final


async def test_the_timeout_bounds_the_whole_iteration(app, counted, gate):
    async with Worker(app, grace=0):
        result = await counted.delay(1000)
        gate.open(1001)

        async def slowly(events) -> None:
            async for _ in events:
                await asyncio.sleep(0.02)

        stopwatch = Stopwatch()
        with pytest.raises(ResultTimeout, match="did not end within"):
            await slowly(result.events(timeout=0.05))
        assert stopwatch.took < 0.4
        assert await result.get(timeout=60) == "done"


async def test_a_timeout_of_zero_gives_the_newest_state_only(app, counted):
    result = await counted.delay(1)
    events = result.events(timeout=0)
    assert (await anext(events)).state == "PENDING"
    with pytest.raises(ResultTimeout):
        await anext(events)
    await result.revoke()


async def test_unknown_forgotten_and_ignored_jobs_have_no_events(app, counted, gate):
    with pytest.raises(ResultNotFound):
        await _collect(app.AsyncResult("nobody"))
    ignored = await counted.options(ignore_result=True).delay(0)
    with pytest.raises(ResultNotFound):
        await _collect(ignored)
    await ignored.revoke()
    async with Worker(app):
        gate.open()
        result = await counted.delay(0)
        assert await result == "done"
        await result.forget()
        with pytest.raises(ResultNotFound):
            await _collect(app.AsyncResult(result.id))


@pytest.mark.one_shard
async def test_forgetting_a_result_removes_the_reports_of_the_job(app, counted, gate, raw):
    async with Worker(app):
        gate.open(2)
        result = await counted.delay(1)
        await result
        key = app.sessions.shards[0].latest + result.id

        async def short() -> bool:
            return 3000 < await raw.ttl(key) <= 3600

        await until(short, "the report to expire with the result")
        await result.forget()
        assert not await raw.exists(key)


async def test_get_calls_its_callback_with_each_event(app, counted, gate):
    async with Worker(app):
        seen = []

        def on_event(event: Event) -> None:
            seen.append(event.state)
            gate.open()

        result = await counted.delay(2)
        assert await result.get(timeout=30, on_event=on_event) == "done"
    assert seen[-3:] == ["PROGRESS", "PROGRESS", "SUCCESS"]


@pytest.mark.one_shard
async def test_events_can_be_read_in_a_thread_and_a_task_in_a_thread_can_report(app, raw):
    @app.task(name="plain")
    def plain(steps: int) -> str:
        for n in range(steps):
            asyncq.current().progress_sync(n + 1, steps)
            time.sleep(0.02)
        return "done"

    result = await plain.delay(3)
    channel = app.sessions.shards[0].events + result.id

    async def is_followed() -> bool:
        return (await raw.pubsub_numsub(channel))[0][1] == 1

    following = asyncio.create_task(asyncio.to_thread(lambda: list(result.events_sync(timeout=30))))
    await until(is_followed, "the thread to follow")
    async with Worker(app):
        events = await following
    assert [event.info["done"] for event in events if event.state == "PROGRESS"] == [1, 2, 3]
    assert (events[-1].state, events[-1].info) == ("SUCCESS", "done")


@pytest.mark.one_shard
async def test_leaving_an_iteration_over_events_unsubscribes(app, counted, raw):
    result = await counted.delay(1)
    channel = app.sessions.shards[0].events + result.id

    async def subscribers() -> int:
        return (await raw.pubsub_numsub(channel))[0][1]

    async for _ in result.events():
        assert await subscribers() == 1
        break

    async def nobody() -> bool:
        return await subscribers() == 0

    await until(nobody, "the subscription to end")
    await result.revoke()


@pytest.mark.one_shard
async def test_a_report_of_a_worker_that_was_taken_for_dead_changes_nothing(app, counted, raw):
    result = await counted.delay(1)
    broker = app.sessions.current().broker
    mine, other = (ClaimingConsumer(broker.commands, name, ["default"]) for name in ("mine", "other"))
    await mine.make_groups()
    stream = app.sessions.shards[0].stream("default")
    zombie = mine.delivery((await mine.read([stream], 1, block=False))[0])
    assert await mine.output(zombie).report(1, "AT", b"\x01") == 1
    assert await take(other, stream, mine.name, None) == (1, 0, False)
    assert await mine.output(zombie).report(2, "AT", b"\x02") == 0
    assert await result.refresh() == "PENDING", "a report before the takeover is not shown either"

    successor = other.delivery((await other.read([stream], 1, block=False))[0])
    assert await other.output(successor).report(2, "AT", b"\x03") == 1
    assert await other.output(successor).report(1, "AT", b"\x04") == 1, (
        "an old report that arrives late is no error"
    )
    assert await mine.output(zombie).report(9, "AT", b"\x05") == 0
    assert await result.refresh() == "AT"
    assert result.info == 3
    mine.close()
    other.close()


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED", "PENDING", "RETRY", "UNKNOWN", "", "a b"])
@pytest.mark.one_shard
async def test_a_task_cannot_report_a_reserved_state(app, state):
    @app.task(name="liar")
    async def liar(state: str) -> None:
        await asyncq.current().update_state(state, None)

    async with Worker(app):
        with pytest.raises(ValueError, match="state="):
            await liar.options(wait=30).call(state)


async def test_a_report_whose_meta_cannot_be_encoded_raises_at_the_call(app):
    @app.task(name="odd")
    async def odd() -> None:
        await asyncq.current().update_state("ODD", {"x": object()})

    async with Worker(app):
        with pytest.raises(SerializationError, match="meta"):
            await odd.options(wait=30).call()


async def test_reading_events_inside_a_task_must_be_allowed(app, counted, gate):
    @app.task(name="nosy")
    async def nosy(id: str) -> str:
        with pytest.raises(WouldDeadlock):
            app.AsyncResult(id).events()
        with asyncq.allow_join_result():
            return [event async for event in app.AsyncResult(id).events()][-1].info

    async with Worker(app):
        gate.open()
        result = await counted.delay(0)
        assert await nosy.options(wait=30).call(result.id) == "done"


async def test_a_body_in_a_thread_sees_that_its_job_was_revoked(app):
    steps = []

    @app.task(name="patient")
    def patient() -> None:
        context = asyncq.current()
        while not context.cancelled:
            steps.append("turn")
            time.sleep(0.005)
        with pytest.raises(asyncio.CancelledError):
            context.heartbeat_sync()
        steps.append("stopped")

    async with Worker(app):
        result = await patient.delay()
        await until(lambda: steps, "the thread to run")
        assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"
        await until(lambda: steps[-1] == "stopped", "the thread to stop by itself")


async def test_a_revocation_without_terminate_is_visible_to_the_job_and_lets_it_end(app):
    @app.task(name="polite")
    async def polite() -> str:
        context = asyncq.current()
        while not context.cancelled:
            await context.heartbeat()
        return "as far as I got"

    async with Worker(app):
        result = await polite.delay()
        await until_state(result, "STARTED")
        await result.revoke()
        assert await result.get(timeout=30) == "as far as I got"


async def test_heartbeat_ends_a_revoked_body_that_never_waits(app):
    ended = asyncio.Event()

    @app.task(name="busy")
    async def busy() -> None:
        try:
            while True:
                await asyncq.current().heartbeat()
        finally:
            ended.set()

    async with Worker(app):
        result = await busy.delay()
        await until_state(result, "STARTED")
        await result.revoke(terminate=True, wait=True, timeout=30)
        await asyncio.wait_for(ended.wait(), 30)


def test_reports_of_a_local_call_are_ignored_and_it_has_one_event():
    app = AsyncQ("memory://")

    @app.task(name="here")
    async def here() -> int:
        await asyncq.current().progress(1, 1)
        return 3

    @app.task(name="plainly")
    def plainly() -> int:
        asyncq.current().update_state_sync("AT", {"x": 1})
        assert not asyncq.current().cancelled
        return 4

    result = here.apply()
    assert isinstance(result, EagerResult)
    assert [(event.state, event.info) for event in result.events_sync()] == [("SUCCESS", 3)]
    assert plainly.apply(throw=True).get_sync() == 4
