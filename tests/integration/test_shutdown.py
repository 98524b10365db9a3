"""Workers that stop: running jobs may end within the grace, others are handed back, and no job is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from helpers.figures import report
from helpers.inside import ended, session_of
from helpers.notes import lines, note
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import WorkerProcess, worker_process

from asyncq import Retry, TimeLimitExceeded, Worker, wire

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def nap_task(app, log):
    @app.task(name="nap")
    async def nap(seconds: float) -> str:
        note(str(log), "start")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            note(str(log), "cancelled")
            raise
        return "slept"

    return nap


async def test_a_job_that_does_not_end_within_the_grace_is_cancelled_and_handed_back(app, log):
    nap = nap_task(app, log)
    async with Worker(app, grace=0.3) as worker:
        result = await nap.delay(30)
        await until(lambda: lines(log), "the job to start")
        stopwatch = Stopwatch()
        worker.stop()
        await ended(worker)
    took = stopwatch.took
    report(f"a grace of 0.3 s took {took:.2f} s")
    assert 0.3 <= took < 0.8
    assert lines(log) == ["start", "cancelled"]
    assert await result.refresh() == "PENDING"


async def test_the_second_stop_does_not_wait_for_the_grace(app, log):
    nap = nap_task(app, log)
    async with Worker(app, grace=60) as worker:
        result = await nap.delay(30)
        await until(lambda: lines(log), "the job to start")
        worker.stop()
        await asyncio.sleep(0.1)
        assert lines(log) == ["start"], "the first stop lets it run"
        stopwatch = Stopwatch()
        worker.stop()
        await ended(worker)
        assert stopwatch.took < 0.5
    assert await result.refresh() == "PENDING"


async def test_a_worker_that_is_cancelled_hands_its_jobs_back_at_once(app, log):
    nap = nap_task(app, log)
    running = asyncio.create_task(Worker(app, grace=60).run())
    result = await nap.delay(30)
    await until(lambda: lines(log), "the job to start")
    stopwatch = Stopwatch()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopwatch.took < 0.5
    assert await result.refresh() == "PENDING"


async def test_a_job_that_is_handed_back_again_and_again_never_counts_as_poison(app, log):
    nap = nap_task(app, log)
    result = await nap.delay(0.5)
    for stops in range(1, 6):
        async with Worker(app, grace=0):
            await until(lambda n=stops: lines(log).count("start") == n, "the job to start")
    async with Worker(app):
        assert await result.get(timeout=30) == "slept"
    assert (await result.outcome()).attempts == 1
    assert await app.control.dead.list() == []


async def test_a_stopping_worker_starts_no_more_jobs(app, log):
    nap = nap_task(app, log)
    async with Worker(app, concurrency=1, grace=5) as worker:
        first = await nap.delay(0.4)
        await until(lambda: lines(log), "the job to start")
        second = await nap.delay(0)
        worker.stop()
        third = await nap.delay(0)
        assert await first.get(timeout=30) == "slept"
    assert [await result.refresh() for result in (second, third)] == ["PENDING", "PENDING"]
    async with Worker(app):
        assert await second.get(timeout=30) == await third.get(timeout=30) == "slept"


async def test_a_revoked_job_ends_instead_of_being_handed_back(app, log):
    nap = nap_task(app, log)
    async with Worker(app, grace=0):
        result = await nap.delay(30)
        await until(lambda: lines(log), "the job to start")
        await result.revoke()
        assert await result.refresh() == "STARTED", "without terminate it is only not run again"
    assert await result.refresh() == "REVOKED"


async def test_outcomes_and_retries_just_before_the_end_are_stored(app, log):
    nap = nap_task(app, log)
    started = asyncio.Event()

    # Not due at once: the worker that ends could still move it into the queue, where it is PENDING.
    @app.task(retry=Retry(max_retries=1, backoff=30, jitter=False))
    async def fails() -> None:
        started.set()
        await asyncio.sleep(0.2)
        raise OSError

    async with Worker(app, grace=5) as worker:
        ended = [await nap.delay(0.2) for _ in range(20)]
        retried = await fails.delay()
        await asyncio.wait_for(started.wait(), 20)
        worker.stop()
    assert [await result.refresh() for result in ended] == ["SUCCESS"] * 20
    assert await retried.refresh() == "RETRY"


async def test_a_job_in_a_thread_is_handed_back_at_once_and_its_body_goes_on_beside_the_second_run(app, log):
    """As docs/guarantees.md says: a thread cannot be cancelled, so its body may run twice at the
    same time.
    """

    @app.task(name="blocked")
    def blocked(seconds: float) -> str:
        note(str(log), "start")
        time.sleep(seconds)
        note(str(log), "end")
        return "blocked"

    async with Worker(app, grace=0, name="first"):
        result = await blocked.delay(1.0)
        await until(lambda: lines(log) == ["start"], "the thread to start")
        stopwatch = Stopwatch()
    assert stopwatch.took < 0.6, "the worker does not wait for it"
    assert await result.refresh() == "PENDING"
    async with Worker(app, name="second"):
        assert await result.get(timeout=30) == "blocked"
    assert result.worker == "second"
    assert (await result.outcome()).attempts == 1
    await until(lambda: sorted(lines(log)) == ["end", "end", "start", "start"], "both threads to end")


async def test_a_worker_ends_and_names_the_body_that_ignores_its_cancellation(app, caplog):
    gate = asyncio.Event()

    @app.task(name="deaf")
    async def deaf() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    @app.task(name="overdue", timeout=0.1)
    async def overdue() -> None:
        await deaf()

    async with Worker(app, grace=0.1):
        received = await overdue.delay()
        with pytest.raises(TimeLimitExceeded):
            await received.get(timeout=30)
        result = await deaf.delay()
        await until_state(result, "STARTED")
        stopwatch = Stopwatch()
    assert stopwatch.took < 2.5
    assert await result.refresh() == "PENDING"
    assert f"{received.id!r} of task 'overdue'" in caplog.text
    assert f"{result.id!r} of task 'deaf'" in caplog.text
    gate.set()


async def test_a_second_sigterm_ends_a_worker_process_at_once_and_its_jobs_are_handed_back(
    make_app, server_url, namespace, log, tmp_path
):
    async with make_app() as app:
        jobs = register(app)
        with worker_process(server_url, namespace, grace=60) as leaving:
            result = await jobs.wait_for_file.delay(str(log), "job", str(tmp_path / "gate"))
            await until(lambda: lines(log), "the job to start")
            leaving.send(signal.SIGTERM)
            await asyncio.sleep(0.2)
            assert leaving.process.poll() is None, "the first waits for the job"
            stopwatch = Stopwatch()
            leaving.send(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.process.wait, 30) == 0
        took = stopwatch.took
        report(f"a second SIGTERM ended the process in {took:.2f} s")
        assert took < 1.5
        assert await result.refresh() == "PENDING"
        (tmp_path / "gate").touch()
        async with Worker(app):
            await result.get(timeout=30)
        assert (await result.outcome()).attempts == 1


async def test_a_rolling_restart_of_four_workers_under_load_runs_every_job_once(
    make_app, server_url, namespace, log
):
    """A small form: 250 jobs a second for as long as it takes to replace four workers one by one."""
    settings = {"grace": 10, "concurrency": 50, "lease": 5}
    async with make_app(lease=5) as app:
        jobs = register(app)
        workers = [WorkerProcess(server_url, namespace, **settings) for _ in range(4)]
        try:
            for worker in workers:
                await asyncio.to_thread(worker.wait_until_ready)
            restarted = asyncio.Event()
            load = asyncio.create_task(_steady_load(jobs.logged, str(log), 250, restarted))
            await until(lambda: load.done() or len(lines(log)) > 100, "the load to run")
            for number, old in enumerate(list(workers)):
                old.send(signal.SIGTERM)
                assert await asyncio.to_thread(old.process.wait, 30) == 0
                old.kill()
                workers[number] = WorkerProcess(server_url, namespace, **settings)
                await asyncio.to_thread(workers[number].wait_until_ready)
            restarted.set()
            results = await load
            values = await asyncio.gather(*(result.get(timeout=30) for result in results))
        finally:
            for worker in workers:
                worker.kill()
    started = [line for line in lines(log) if line.startswith("start")]
    report(f"{len(results)} jobs while 4 workers were replaced: {len(started)} starts")
    assert len(set(values)) == len(results) > 100
    assert len(started) == len(results), "nothing ran twice"
    assert sorted(started) == sorted(f"start {value}" for value in values)


async def _steady_load(task, log: str, rate: int, until_set: asyncio.Event) -> list:
    """Enqueues jobs of 20 ms at a rate, by the clock and not by the answers."""
    results: list = []
    start = time.monotonic()
    while not until_set.is_set():
        due = int((time.monotonic() - start) * rate) - len(results)
        results += await asyncio.gather(*(task.delay(log, str(len(results) + n), 0.02) for n in range(due)))
        await asyncio.sleep(0.01)
    return results


async def test_a_worker_that_stops_during_the_pause_before_a_write_still_sends_the_outcomes(app):
    answered = asyncio.Event()

    async def call() -> int:
        await answered.wait()
        return 1

    async with Worker(app) as worker:
        session = session_of(worker)
        outcomes = session.attempts.outcomes
        job = wire.Job("id", "nap", "default", b"", "", "", 0, 1)
        outcomes.report(wire.Delivery("1-1", next(iter(session.consumer.served.streams)), 0, 0, job), call())
        [sending] = outcomes.reports._tasks
        quiet = asyncio.create_task(session.fetchers[0]._until_quiet())
        await until(lambda: quiet._fut_waiter is not None, "the job to wait")
        quiet.cancel()
        await asyncio.wait({quiet})
        answered.set()
        await asyncio.wait({sending})
        assert not sending.cancelled()


async def test_the_grace_accepts_the_same_values_as_any_duration(app):
    assert Worker(app, grace=timedelta(minutes=1)).grace == 60
    with pytest.raises(ValueError, match="grace=-1 is not a duration"):
        Worker(app, grace=-1)
