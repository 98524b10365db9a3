"""What asyncq refuses so that neither the server nor a worker is overloaded. All limits are on by default."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers.figures import report
from helpers.own_server import own_server
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

from asyncq import (
    AsyncQ,
    BrokerUnavailable,
    PayloadTooLarge,
    QueueFull,
    Retry,
    SerializationError,
    Worker,
    wire,
)
from asyncq.serializers import PLAIN_ARGUMENTS

pytestmark = pytest.mark.anyio


def register(app):
    @app.task(name="echo")
    async def echo(value: object = None) -> object:
        return value

    return echo


@pytest.mark.one_shard
async def test_a_full_queue_refuses_a_job_and_nothing_is_enqueued(make_app, raw):
    async with make_app(max_length=3) as app:
        echo = register(app)
        kept = await echo.map([(1,), (2,), (3,)])
        with pytest.raises(QueueFull, match="max_length=3") as caught:
            await echo.options(task_id="refused").delay(4)
        assert "'default'" in str(caught.value)
        assert await raw.xlen(app.sessions.shards[0].stream("default")) == 3
        assert not await app.AsyncResult("refused").exists()
        async with Worker(app):
            assert await kept.get(timeout=30) == [1, 2, 3]
            assert await echo.options(task_id="refused").call(4) == 4, "the id was not used up"


async def test_each_queue_has_its_own_maximum_length(make_app):
    async with make_app(max_length=1) as app:
        echo = register(app)
        await echo.delay(1)
        await echo.options(queue="other").delay(1)
        with pytest.raises(QueueFull, match="other"):
            await echo.options(queue="other").delay(2)


@pytest.mark.one_shard
async def test_a_high_limit_holds_in_each_queue_though_another_queue_is_always_filled_first(make_app, raw):
    async with make_app(max_length=10_001) as app:
        echo = register(app)
        other = echo.options(queue="other")
        fill = "for _ = 1, 10001 do redis.call('XADD', KEYS[1], '*', 'i', 'none', 'm', '') end"
        stream = app.sessions.shards[0].stream("other")
        await raw.eval(fill, 1, stream)

        async def refused() -> bool:
            both = await asyncio.gather(echo.delay(1), other.delay(1), return_exceptions=True)
            return type(both[1]) is QueueFull

        await until(refused, "the other queue to be found full", 0.5)
        for _ in range(10):
            assert await refused(), "each call queries the length once the queue is known to be full"
        await raw.delete(stream)


@pytest.mark.one_shard
async def test_all_jobs_of_a_batch_fit_or_none_is_enqueued(make_app, raw):
    async with make_app(max_length=5) as app:
        echo = register(app)
        await echo.map([(n,) for n in range(3)])
        with pytest.raises(QueueFull):
            await echo.map([(n,) for n in range(3)])
        assert await raw.xlen(app.sessions.shards[0].stream("default")) == 3


@pytest.mark.one_shard
async def test_the_limit_counts_delayed_jobs_of_all_queues_together_and_apart_from_queued_jobs(make_app, raw):
    async with make_app(max_length=3) as app:
        echo = register(app)
        later = echo.options(countdown=60)
        await asyncio.gather(later.delay(1), later.delay(2), later.options(queue="other").delay(3))
        with pytest.raises(QueueFull, match="max_length=3 jobs wait for their time already"):
            await later.options(task_id="refused").delay(4)
        assert not await app.AsyncResult("refused").exists()
        await echo.map([(1,), (2,), (3,)])
        mixed = (later.options(queue="third").delay(5), echo.options(queue="third").delay(6))
        assert [type(each) for each in await asyncio.gather(*mixed, return_exceptions=True)] == [
            QueueFull
        ] * 2
        assert await raw.xlen(app.sessions.shards[0].stream("third")) == 0, (
            "all jobs of a batch fit, or none is accepted"
        )
        assert await raw.zcard(app.sessions.shards[0].delayed) == 3


async def test_an_accepted_delayed_job_that_is_sent_again_is_not_refused(make_app):
    async with make_app(max_length=1) as app:
        register(app)
        body = PLAIN_ARGUMENTS.dumps((1,), {})
        job = wire.Job("id", "echo", "default", body, "n", app.sessions.channel(), 0, 100_000, wait=60_000)
        for _ in range(2):
            assert await app.sessions.current().broker.intake.enqueue(job, wire.encode_job(job))


async def test_a_retry_is_not_refused_however_many_delayed_jobs_there_are(make_app):
    async with make_app(max_length=1) as app:
        echo = register(app)
        tries = []

        @app.task(retry=Retry(max_retries=1, backoff=0.05))
        async def fail_once() -> int:
            tries.append(1)
            if len(tries) == 1:
                raise KeyError
            return 5

        await echo.options(countdown=60).delay(1)
        async with Worker(app):
            assert await (await fail_once.delay()).get(timeout=30) == 5


@pytest.mark.one_shard
async def test_the_limit_holds_for_concurrent_calls_of_many_coroutines(make_app, raw):
    async with make_app(max_length=10) as app:
        echo = register(app)
        answers = []
        for _ in range(4):
            answers += await asyncio.gather(*(echo.delay(n) for n in range(4)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, QueueFull)]
        assert len(answers) - len(refused) == await raw.xlen(app.sessions.shards[0].stream("default")) <= 10
        assert refused


async def test_an_enqueue_may_wait_until_the_queue_has_capacity(make_app):
    async with make_app(max_length=2, full_wait=5) as app:
        echo = register(app)
        await echo.map([(1,), (2,)])
        waiting = asyncio.create_task(echo.delay(3))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done, "the queue has no capacity yet"
        async with Worker(app):
            assert await (await waiting).get(timeout=30) == 3


async def test_a_cancelled_call_does_not_wait_for_capacity_when_its_answer_arrives(make_app, monkeypatch):
    async with make_app(max_length=1, full_wait=5.0) as app:
        echo, intake, loop = register(app), app.sessions.current().broker.intake, asyncio.get_running_loop()
        await echo.delay(1)
        late = asyncio.ensure_future(echo.options(task_id="late").delay(2))
        while not intake._unanswered:  # noqa: ASYNC110  before its answer comes
            await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: time.monotonic() + 60)
            intake._give_up()
        with pytest.raises(BrokerUnavailable, match="did not answer within"):
            await late
        await app.sessions.current().broker.fetch_status(
            ["late"]
        )  # the answer to `late` came before this one
        assert not intake._tasks


async def test_the_wait_for_queue_capacity_is_bounded(make_app):
    async with make_app(max_length=1, full_wait=0.5) as app:
        echo = register(app)
        await echo.delay(1)
        stopwatch = Stopwatch()
        with pytest.raises(QueueFull):
            await echo.delay(2)
        took = stopwatch.took
        report(f"a wait of 0.5 s for capacity gave up after {took:.2f} s")
        assert 0.4 <= took <= 0.75


async def test_a_full_queue_accepts_jobs_that_return_to_it(make_app):
    """The limit does not apply to a retry, because its job was accepted before."""
    async with make_app(max_length=1) as app:
        tries: list[int] = []

        @app.task(retry=Retry(max_retries=1, backoff=0.1, jitter=False))
        async def fails_once() -> str:
            tries.append(1)
            if len(tries) == 1:
                raise OSError
            return "done"

        echo = register(app)
        async with Worker(app):
            result = await fails_once.delay()
            await until_state(result, "RETRY")
        filler = await echo.delay(1)
        with pytest.raises(QueueFull):
            await echo.delay(2)
        async with Worker(app):
            assert await result.get(timeout=30) == "done"
            assert await filler.get(timeout=30) == 1


async def test_the_limits_are_on_by_default():
    settings = AsyncQ("redis://localhost").settings
    assert (settings.max_length, settings.max_payload) == (1_000_000, 1024 * 1024)
    assert (settings.dead_cap, settings.full_wait) == (10_000, 0.0)


async def test_an_app_with_default_limits_refuses_arguments_that_are_too_large(app, raw):
    echo = register(app)
    with pytest.raises(PayloadTooLarge, match="max_payload"):
        await echo.delay(b"x" * (1024 * 1024))
    assert not await raw.exists(app.sessions.shards[0].stream("default"))
    async with Worker(app):
        assert len(await echo.call(b"x" * (1000 * 1024))) == 1000 * 1024


async def test_a_job_fails_if_its_result_is_too_large(app):
    @app.task
    async def swell() -> bytes:
        return b"x" * (1024 * 1024 + 1)

    async with Worker(app):
        with pytest.raises(PayloadTooLarge, match="result"):
            await swell.call()


async def test_a_value_that_is_nested_too_deep_is_refused_by_client_and_worker(app):
    def nested(depth: int) -> list[object]:
        value: list[object] = []
        for _ in range(depth):
            value = [value]
        return value

    @app.task
    async def deep(depth: int) -> list[object]:
        return nested(depth)

    echo = register(app)
    with pytest.raises(SerializationError, match="deep"):
        await echo.delay(nested(100))
    async with Worker(app):
        assert await echo.call(nested(20)) == nested(20)
        with pytest.raises(SerializationError, match="deep"):
            await deep.call(100)


@pytest.mark.parametrize("id_", ["", "x" * 201, "with space", "new\nline", "brace{", "é", "semi;colon"])
async def test_an_id_that_would_break_the_key_layout_is_refused(app, id_):
    with pytest.raises(ValueError, match="id"):
        register(app).options(task_id=id_)


async def test_the_longest_id_and_every_allowed_character_of_an_id_work(app):
    echo = register(app)
    async with Worker(app):
        for id_ in ("x" * 200, "A-Z_a.z:0-9"):
            assert await echo.options(task_id=id_).call(id_) == id_
            assert await app.AsyncResult(id_).get(timeout=1) == id_


@pytest.mark.parametrize("queue", ["", "x" * 101, "two words", "a:b", "a{b}", "queue!"])
async def test_a_queue_name_that_would_break_the_key_layout_is_refused(app, queue):
    with pytest.raises(ValueError, match="name"):
        register(app).options(queue=queue)


async def test_a_server_without_free_memory_refuses_new_jobs_and_lets_running_jobs_end(make_app, tmp_path):
    with own_server(tmp_path) as server:
        async with make_app(server.url) as app:
            gate = asyncio.Event()
            tries: list[int] = []

            @app.task
            async def wait_for_gate(fail: bool) -> str:
                await gate.wait()
                if fail:
                    raise KeyError("as requested")
                return "done"

            @app.task(retry=Retry(max_retries=1, backoff=0.05, jitter=False))
            async def fails_once() -> str:
                tries.append(1)
                if len(tries) == 1:
                    await gate.wait()
                    raise OSError
                return "again"

            async with Worker(app):
                running = [await wait_for_gate.delay(False), await wait_for_gate.delay(True)]
                retried = await fails_once.delay()
                await until(lambda: _started([*running, retried]), "all jobs to run")
                server.do("CONFIG", "SET", "maxmemory", "1")
                stopwatch = Stopwatch()
                with pytest.raises(QueueFull, match="memory"):
                    await wait_for_gate.delay(False)
                assert stopwatch.took < 1, "an enqueue is refused at once"
                gate.set()
                assert await running[0].get(timeout=30) == "done"
                with pytest.raises(KeyError):
                    await running[1].get(timeout=30)
                assert await retried.get(timeout=30) == "again"
                server.do("CONFIG", "SET", "maxmemory", "0")
                assert await wait_for_gate.options(wait=30).call(False) == "done"


async def _started(results) -> bool:
    return all([await result.refresh() == "STARTED" for result in results])
