"""Workers that die, or freeze and go on: what is promised about them, with real processes and signals."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest
from helpers.figures import report
from helpers.notes import lines
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

from asyncq import Worker, WorkerLost

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

LEASE = 2.0
BOUND = LEASE * 1.34 + 1.0
"""Heartbeats and observations come every third of a lease: a death is found in 1.33 leases, plus a second."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_jobs_of_a_killed_worker_run_again_within_the_bound_on_every_queue(
    make_app, server_url, namespace, log, tmp_path
):
    app = make_app()
    jobs = register(app)
    gate = tmp_path / "gate"
    async with app:
        with worker_process(server_url, namespace, queues=("default", "second")) as victim:
            results = [
                await jobs.wait_for_file.options(queue=queue).delay(str(log), f"{queue}{i}", str(gate))
                for queue in ("default", "second")
                for i in range(3)
            ]
            await until(lambda: len(lines(log)) == 6, "all six jobs to run on the victim")
            async with Worker(app, queues=["default", "second"]):
                await asyncio.sleep(LEASE / 3)  # the observer has observed at least once
                victim.kill()
                killed = time.monotonic()
                gate.touch()
                outcomes = await asyncio.gather(*(result.outcome(timeout=30) for result in results))
                took = [
                    outcome.finished_at.timestamp() - (time.time() - (time.monotonic() - killed))
                    for outcome in outcomes
                ]
    report(f"redelivered after {', '.join(f'{t:.2f}' for t in took)} s; bound {BOUND:.2f} s")
    assert [outcome.attempts for outcome in outcomes] == [2] * 6
    assert max(took) <= BOUND


async def test_an_outcome_of_a_worker_that_was_frozen_longer_than_its_lease_is_refused(
    make_app, server_url, namespace, log, tmp_path
):
    app = make_app()
    jobs = register(app)
    gate = tmp_path / "gate"
    async with app:
        with worker_process(server_url, namespace) as zombie:
            result = await jobs.wait_for_file.delay(str(log), "job", str(gate))
            await until(lambda: lines(log), "the job to start on the process")
            zombie.send(signal.SIGSTOP)
            async with Worker(app, name="successor"):
                await until(lambda: len(lines(log)) == 2, "the job to be taken over", timeout=BOUND + 5)
                gate.touch()
                value = await result.get(timeout=30)
                record = await _record(app, result.id)
                zombie.send(signal.SIGCONT)
                # The stopped worker has noticed it when it serves the queue again, with a new session id.
                await until(lambda: lines(log).count("end job") >= 1, "the successor to end the job")
            fresh = await jobs.logged.delay(str(log), "fresh")
            assert await fresh.get(timeout=30) == "fresh"
            assert fresh.worker.endswith(str(zombie.pid))
            assert await _record(app, result.id) == record
        outcome = await app.AsyncResult(result.id).outcome(timeout=30)
        assert outcome.value == value
        assert outcome.worker == "successor"
        assert not value.endswith(str(zombie.pid))


async def _record(app, id_):
    return await app.sessions.current().broker.state(id_)


async def test_a_job_that_kills_its_worker_three_times_is_lost_and_no_other_job_is(
    make_app, server_url, namespace, log, tmp_path
):
    app = make_app(lease=1)
    jobs = register(app)
    gate = tmp_path / "gate"
    gate.touch()
    settings = {"lease": 1, "concurrency": 4}
    async with app:
        bad = await jobs.poison.delay(str(log))
        innocent = await jobs.wait_for_file.delay(str(log), "innocent", str(tmp_path / "later"))
        for attempt in (1, 2, 3):
            with worker_process(server_url, namespace, **settings) as worker:
                await until(
                    lambda n=attempt: sum(line.startswith("poison") for line in lines(log)) == n,
                    f"try {attempt} of the poison",
                    timeout=12,
                )
                await asyncio.to_thread(worker.process.wait, 30)
        (tmp_path / "later").touch()
        with worker_process(server_url, namespace, **settings):
            with pytest.raises(WorkerLost):
                await bad.get(timeout=30)
            assert (await innocent.get(timeout=30)).startswith("innocent")
    tries = [line.split() for line in lines(log) if line.startswith("poison")]
    assert [line[1] for line in tries] == ["1", "2", "3"]
    assert [line[2] for line in tries] == ["default"] * 3, "the user does not see the last-attempt queue"


async def test_a_stopping_worker_hands_back_jobs_that_do_not_end_within_its_grace(
    make_app, server_url, namespace, log, tmp_path
):
    app = make_app()
    jobs = register(app)
    gate = tmp_path / "gate"
    async with app:
        with worker_process(server_url, namespace, grace=0.2) as leaving:
            result = await jobs.wait_for_file.delay(str(log), "job", str(gate))
            await until(lambda: lines(log), "the job to start")
            leaving.send(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.process.wait, 30) == 0
        assert await result.refresh() == "PENDING"
        gate.touch()
        async with Worker(app):
            stopwatch = Stopwatch()
            await result.get(timeout=30)
            assert stopwatch.took < LEASE / 2, "handed back, not waited for until the lease is over"
        assert (await result.outcome()).attempts == 1, "a hand-back is no crash"


async def test_a_stopping_worker_lets_running_jobs_end_within_its_grace(make_app, server_url, namespace, log):
    app = make_app()
    jobs = register(app)
    async with app:
        with worker_process(server_url, namespace, grace=10) as leaving:
            result = await jobs.logged.delay(str(log), "job", 0.5)
            await until_state(result, "STARTED")
            leaving.send(signal.SIGTERM)
            assert await result.get(timeout=30) == "job"
            assert await asyncio.to_thread(leaving.process.wait, 30) == 0
    assert lines(log) == ["start job", "end job"]


async def test_nothing_is_left_of_a_worker_that_stopped_normally(make_app, server_url, namespace, raw, log):
    app = make_app()
    jobs = register(app)
    async with app:
        with worker_process(server_url, namespace) as worker:
            assert await jobs.add.call(1, 2) == 3
            worker.send(signal.SIGTERM)
            assert await asyncio.to_thread(worker.process.wait, 30) == 0
        assert await raw.hgetall(app.sessions.shards[0].beats) == {}
        assert await raw.xinfo_consumers(app.sessions.shards[0].stream("default"), "g") == []
        assert await raw.xlen(app.sessions.shards[0].stream("default")) == 0
