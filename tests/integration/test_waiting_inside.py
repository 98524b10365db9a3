"""Tasks that wait for other jobs: slots are released, and waits that would never end are refused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from helpers import process_bodies
from helpers.inside import session_of, slots_of
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

import asyncq
from asyncq import (
    AsyncQ,
    BrokerUnavailable,
    ResultTimeout,
    TaskRevoked,
    TimeLimitExceeded,
    Worker,
    WouldDeadlock,
    allow_join_result as allowed,
)
from asyncq.broker.consumer import Consumer

pytestmark = pytest.mark.anyio


class Bodies:
    """Counts the bodies that run now, without those that wait; and the largest number so far."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


@asynccontextmanager
async def at_work(app: AsyncQ, concurrency: int = 1, **options):
    """Runs a worker. When its jobs have ended, every slot must have been given back."""
    async with Worker(app, concurrency=concurrency, **options) as worker:
        slots = slots_of(worker)
        yield worker
        await until(lambda: slots.busy == 0, "every slot to be released")
        assert slots.released == 0


@pytest.fixture
def fib(app):
    @app.task(name="fib")
    async def fib(n: int) -> int:
        if n < 2:
            return n
        with allowed():
            return sum(await asyncq.gather(await fib.delay(n - 1), await fib.delay(n - 2)))

    return fib


@pytest.fixture
def add(app):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    return add


# -- slots --


async def test_one_slot_is_enough_for_any_depth_of_nesting(app, fib):
    async with at_work(app):
        assert await fib.options(wait=30).call(12) == 144


async def test_one_slot_and_one_thread_are_enough_for_nested_plain_functions(make_app):
    async with make_app(threads=1) as app:
        bodies = Bodies()

        @app.task
        def fib(n: int) -> int:
            with bodies:
                if n < 2:
                    return n
                handles = [fib.delay_sync(n - 1), fib.delay_sync(n - 2)]
            with allowed():
                values = [handle.get_sync() for handle in handles]
            with bodies:
                return sum(values)

        async with at_work(app, concurrency=1):
            assert await fib.options(wait=30).call(9) == 34
        async with at_work(app, concurrency=50):
            assert await fib.options(wait=30).call(8) == 21
        assert bodies.most == 1, "threads=1"


async def test_waits_of_one_body_in_several_asyncio_tasks_hold_no_slot(app, add):
    @app.task
    async def both() -> list[int]:
        handles = [await add.delay(1, 2), await add.delay(3, 4)]
        with allowed():
            return await asyncio.gather(*(handle.get() for handle in handles))

    async with at_work(app):
        assert await both.options(wait=30).call() == [3, 7]


async def test_no_more_bodies_run_than_there_are_slots(app):
    bodies = Bodies()

    @app.task
    async def work(depth: int) -> int:
        with bodies:
            await asyncio.sleep(0.001)
            if depth == 0:
                return 1
            handles = [await work.delay(depth - 1), await work.delay(depth - 1)]
        total = 0
        for handle in handles:
            try:
                with allowed():
                    value = await handle.get(timeout=0.002 if depth % 2 else None)
            except ResultTimeout:
                value = 0
            with bodies:
                await asyncio.sleep(0.0005)
                total += value
        return total

    async with at_work(app, concurrency=3) as worker:
        await work.options(wait=30).call(6)
        await until(lambda: worker.done == 2**7 - 1, "all jobs to end")
    assert 1 < bodies.most <= 3
    assert bodies.now == 0


async def test_a_job_that_resumes_after_a_wait_gets_a_slot_before_new_jobs(app):
    order: list[str] = []
    gate = asyncio.Event()

    @app.task
    async def child() -> None:
        order.append("child")

    @app.task
    async def parent() -> None:
        handle = await child.delay()
        with allowed():
            await handle
        order.append("parent")

    @app.task
    async def other(number: int) -> None:
        order.append(f"other {number}")
        await gate.wait()

    async with at_work(app):
        waiting = await parent.delay()
        await until(lambda: "child" in order, "the child to run")
        others = await other.map([(n,) for n in range(5)])
        gate.set()
        await waiting.get(timeout=30)
        await others.get(timeout=30)
    assert order.index("parent") <= 2


async def test_a_job_reacquires_its_slot_after_a_wait_that_times_out_or_is_cancelled(app):
    gate = asyncio.Event()
    bodies = Bodies()

    @app.task
    async def held() -> None:
        with bodies:
            await gate.wait()

    @app.task
    async def impatient() -> list[str]:
        handle = await held.delay()
        seen = []
        with allowed():
            try:
                await handle.get(timeout=0.05)
            except ResultTimeout:
                with bodies:
                    seen.append("timed out")
            try:
                async with asyncio.timeout(0.05):
                    await handle.get()
            except TimeoutError:
                with bodies:
                    seen.append("cancelled")
        return seen

    async with at_work(app, concurrency=2):
        result = await impatient.delay()
        assert await result.get(timeout=30) == ["timed out", "cancelled"]
        gate.set()
    async with at_work(app, concurrency=1) as worker:
        gate.clear()
        result = await impatient.delay()
        await until(lambda: bodies.now == 1 and slots_of(worker).released == 1, "the child to have the slot")
        await asyncio.sleep(0.2)
        assert not await result.ready(), "its time is over, and it has no slot"
        gate.set()
        # When the parent has a slot again, the child may have ended.
        assert await result.get(timeout=30) in (["timed out"], [])
    assert bodies.most <= 2


async def test_two_hundred_jobs_may_wait_at_once(app):
    gate = asyncio.Event()

    @app.task
    async def last() -> int:
        return 1

    @app.task
    async def waits(id_: str) -> int:
        with allowed():
            return await app.AsyncResult(id_).get()

    async with at_work(app, concurrency=4) as worker:
        target = await last.options(countdown=3600).delay()
        results = await waits.map([(target.id,)] * 200)
        await until(lambda: slots_of(worker).released == 200, "all jobs to wait")
        assert slots_of(worker).busy == 0
        await target.revoke()
        with pytest.raises(TaskRevoked):
            await results.get(timeout=30)
        await until(lambda: not session_of(worker).held, "all jobs to have ended")
    gate.set()


async def test_one_waiting_job_more_than_max_parked_is_refused(make_app):
    async with make_app(max_parked=2) as app:

        @app.task
        async def never() -> None:
            pass

        @app.task
        async def waits(id_: str) -> None:
            with allowed():
                await app.AsyncResult(id_).get()

        target = await never.options(countdown=3600).delay()
        async with at_work(app, concurrency=4) as worker:
            first = await waits.map([(target.id,)] * 2)
            await until(lambda: slots_of(worker).released == 2, "two jobs to wait")
            with pytest.raises(WouldDeadlock, match="max_parked"):
                await waits.options(wait=30).call(target.id)
            await target.revoke()
            assert {type(one) for one in await first.get(timeout=30, propagate=False)} == {TaskRevoked}


async def test_a_job_that_waits_for_another_is_revoked_like_any_job(app):
    seen: list[str] = []

    @app.task
    async def never() -> None:
        pass

    @app.task
    async def waits(id_: str) -> None:
        try:
            with allowed():
                await app.AsyncResult(id_).get()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @app.task
    def waits_in_a_thread(id_: str) -> None:
        try:
            with allowed():
                app.AsyncResult(id_).get_sync()
        finally:
            seen.append("thread")

    target = await never.options(countdown=3600).delay()
    async with at_work(app) as worker:
        for task, word in ((waits, "cancelled"), (waits_in_a_thread, "thread")):
            result = await task.delay(target.id)
            await until(lambda: slots_of(worker).released == 1, "the job to wait")
            await result.revoke(terminate=True)
            with pytest.raises(TaskRevoked):
                await result.get(timeout=30)
            await until(lambda word=word: word in seen, "the body to end")
    await target.revoke()


async def test_a_waiting_job_that_exceeds_its_limit_ends_without_reacquiring_a_slot(app):
    gate = asyncio.Event()

    @app.task
    async def held() -> None:
        await gate.wait()

    @app.task(timeout=0.2)
    async def waits() -> None:
        with allowed():
            await held.call()

    @app.task(timeout=0.2)
    def waits_in_a_thread(id_: str) -> None:
        with allowed():
            app.AsyncResult(id_).get_sync()

    async with at_work(app):
        stopwatch = Stopwatch()
        with pytest.raises(TimeLimitExceeded):
            await waits.options(wait=30).call()
        assert stopwatch.took < 2, "the child still has the slot"
        gate.set()
        await asyncio.sleep(0)
        target = await held.options(countdown=3600).delay()
        with pytest.raises(TimeLimitExceeded):
            await waits_in_a_thread.options(wait=30).call(target.id)
        await target.revoke()


async def test_a_stopping_worker_hands_back_its_waiting_jobs(app):
    runs: list[int] = []

    @app.task
    async def later() -> int:
        return 5

    @app.task
    async def waits(id_: str) -> int:
        runs.append(asyncq.current().attempt)
        with allowed():
            return await app.AsyncResult(id_).get()

    @app.task
    def waits_in_a_thread(id_: str) -> int:
        runs.append(asyncq.current().attempt)
        with allowed():
            return app.AsyncResult(id_).get_sync()

    target = await later.options(countdown=1.5).delay()
    async with Worker(app, concurrency=1, grace=0.1) as worker:
        results = [await waits.delay(target.id), await waits_in_a_thread.delay(target.id)]
        await until(lambda: slots_of(worker).released == 2, "both jobs to wait")
        stopwatch = Stopwatch()
    assert stopwatch.took < 3
    assert worker.handed_back == 2
    async with at_work(app):
        assert [await result.get(timeout=30) for result in results] == [5, 5]
    assert runs == [1, 1, 1, 1], "twice each, and no crash was counted"


@pytest.mark.one_shard
async def test_a_job_that_was_read_for_a_slot_that_is_taken_meanwhile_returns_to_its_queue(app):
    gate = asyncio.Event()

    @app.task(name="child")
    async def child() -> None:
        pass

    @app.task(name="parent")
    async def parent(id_: str) -> None:
        with allowed():
            await app.AsyncResult(id_).get(propagate=False)
        await gate.wait()

    target = await child.options(countdown=3600).delay()
    async with at_work(app) as worker:
        long = await parent.delay(target.id)
        await until(lambda: slots_of(worker).released == 1, "the job to wait")
        await asyncio.sleep(0.05)  # by now the worker's read is at the server
        await target.revoke()
        await until(lambda: slots_of(worker).busy == 1, "the job to reacquire its slot")
        late = await child.delay()
        await until(lambda: worker.handed_back == 1, "the other job to be handed back")
        assert not slots_of(worker).is_free
        gate.set()
        assert await late.get(timeout=30) is None
        assert await long.get(timeout=30) is None


async def test_one_slot_and_one_process_are_enough_for_nested_tasks_in_processes(make_app):
    async with make_app(processes=1, max_parked=1) as app:
        tasks = process_bodies.register(app)

        @app.task
        async def starts() -> str:
            with allowed():
                return await tasks.wait_for_above.call()

        async with at_work(app):
            assert await tasks.nested.options(wait=30).call(1) == 2
            with pytest.raises(WouldDeadlock, match="max_parked"):
                await tasks.nested.options(wait=30).call(2)
            assert "-> wait_for_above:" in await starts.options(wait=30).call(), "the path to the parent"


async def test_all_slots_are_released_after_a_process_is_killed_while_its_job_waits(make_app):
    async with make_app(processes=1) as app:
        tasks = process_bodies.register(app)
        target = await tasks.pid.options(countdown=3600).delay()
        async with at_work(app) as worker:
            waits = await tasks.waits.delay(target.id)
            await until(lambda: slots_of(worker).released == 1, "the job to wait")
            await waits.revoke(terminate=True, signal="SIGKILL")
            with pytest.raises(TaskRevoked):
                await waits.get(timeout=30)
            waits = await tasks.waits.options(timeout=0.3).delay(target.id)
            with pytest.raises(TimeLimitExceeded):
                await waits.get(timeout=30)
            assert await tasks.double.options(wait=30).call([1]) == [2]
        await target.revoke()


async def test_a_job_in_its_last_attempt_waits_for_jobs_that_the_same_worker_runs(make_app):
    """A job in its last attempt runs alone, but the jobs that it waits for must run."""
    async with make_app(max_crashes=2, lease=0.6) as app:

        @app.task
        async def child() -> int:
            return asyncq.current().attempt

        @app.task
        async def parent() -> list[int]:
            with allowed():
                return [asyncq.current().attempt, await child.call()]

        result = await parent.delay()
        gone = Consumer(app.sessions.current().broker.commands, "gone", ["default"])
        await gone.make_groups()
        beating = gone.beating()
        assert await asyncio.to_thread(beating.beat, 1) == []
        assert len(await gone.read(list(gone.served.streams), 1, block=True)) == 1
        beating.close()
        gone.close()
        async with at_work(app):
            assert await result.get(timeout=30) == [2, 1]


async def test_a_plain_function_releases_its_slot_when_it_waits_on_another_loop(app, make_app):
    """The function's own client has a loop in a background thread."""
    gate = asyncio.Event()

    @app.task(name="child")
    async def child() -> int:
        await gate.wait()
        return 1

    @app.task
    def parent() -> int:
        with make_app() as client, allowed():
            return client.send_sync("child").get_sync()

    async with at_work(app) as worker:
        result = await parent.delay()
        await until(
            lambda: slots_of(worker).released == slots_of(worker).busy == 1,
            "the child to run",
        )
        gate.set()
        assert await result.get(timeout=30) == 1


async def test_all_slots_are_released_after_a_wait_that_ends_because_its_app_is_closed(app, make_app):
    @app.task
    async def waits(id_: str) -> str:
        client = make_app()
        await client.open()  # needed, because the worker's block belongs to another app
        closing = asyncio.create_task(_close_when(client, lambda: slots_of(worker).released))
        with allowed():
            try:
                await client.AsyncResult(id_).get()
            except BrokerUnavailable as error:
                return f"{await closing} {error}"
        return "waited"

    target = await waits.options(countdown=3600).delay("")
    async with at_work(app) as worker:
        assert (await waits.options(wait=30).call(target.id)).startswith("closed")
    await target.revoke()


async def _close_when(client: AsyncQ, condition) -> str:
    await until(condition, "the condition for closing")
    await client.close()
    return "closed"
