"""Running jobs change their state only as `NEXT_STATES` allows, whatever ends them."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers import process_bodies
from helpers.inside import session_of
from helpers.waiting import until

from asyncq import RetryLater, Worker
from asyncq.execution.executors import (
    CANCELLED,
    CANCELLING,
    DROPPED,
    ENDED,
    FETCHED,
    NEXT_STATES,
    RUNNING,
    STARTING,
    AttemptState,
    JobControl,
)
from asyncq.worker.attempt import Attempts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

Path = tuple[AttemptState, ...]

SUCCESS: Path = (FETCHED, STARTING, RUNNING, ENDED)
TERMINATED: Path = (FETCHED, STARTING, RUNNING, CANCELLING, CANCELLED)


class Histories:
    """The states that each attempt went through, in order."""

    def __init__(self) -> None:
        self._histories: dict[int, list[AttemptState]] = {}
        self._claims: list[object] = []  # kept, so that no `id()` is used again

    def note(self, claim: object, state: AttemptState) -> None:
        if id(claim) not in self._histories:
            self._claims.append(claim)
        history = self._histories.setdefault(id(claim), [])
        if not history or history[-1] is not state:
            history.append(state)

    def of_jobs(self) -> list[Path]:
        """The states of the worker's jobs. A new `JobControl` is `STARTING`, and a running job then becomes
        `FETCHED`.

        """
        return [tuple(history[1:]) for history in self._histories.values() if FETCHED in history]


@pytest.fixture
def histories(monkeypatch) -> Iterator[Histories]:
    histories = Histories()
    slot: Any = JobControl.__dict__["state"]

    def write(claim: JobControl, state: AttemptState) -> None:
        histories.note(claim, state)
        slot.__set__(claim, state)

    monkeypatch.setattr(JobControl, "state", property(slot.__get__, write))
    yield histories
    for history in histories.of_jobs():
        for before, after in itertools.pairwise(history):
            assert after in NEXT_STATES[before], history


async def test_the_states_of_a_job_that_runs_to_its_end(app, add, histories):
    async with Worker(app):
        await add.call(1, 2)
    assert histories.of_jobs() == [SUCCESS]


async def test_the_states_of_an_attempt_that_is_retried(app, histories):
    runs = []

    @app.task
    def later() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RetryLater(0.01)

    async with Worker(app):
        await later.call()
    assert histories.of_jobs() == [SUCCESS] * 2


async def test_a_job_that_has_expired_never_runs(app, add, histories):
    result = await add.options(expires=0.001).delay(1, 2)
    await asyncio.sleep(0.01)
    async with Worker(app):
        await result.outcome(timeout=20)
    assert histories.of_jobs() in ([], [(FETCHED, STARTING, ENDED)])


async def test_the_states_of_a_revoked_coroutine(app, nap, histories):
    async with Worker(app) as worker:
        result = await nap.delay(30)
        await until(lambda: SUCCESS[:-1] in histories.of_jobs(), "the job to run")
        await result.revoke(terminate=True)
        await until(lambda: not session_of(worker).held, "the worker to release the job")
    assert histories.of_jobs() == [TERMINATED]


async def test_the_states_of_a_revoked_thread_that_returns_later(app, histories):
    @app.task
    def block(seconds: float) -> None:
        time.sleep(seconds)

    async with Worker(app) as worker:
        result = await block.delay(0.3)
        await until(lambda: SUCCESS[:-1] in histories.of_jobs(), "the job to run")
        await result.revoke(terminate=True)
        await until(lambda: TERMINATED[:-1] in histories.of_jobs(), "the signal to arrive")
        await until(lambda: not session_of(worker).held.slots.busy, "the thread to return")
    assert histories.of_jobs() == [TERMINATED]


async def test_the_states_of_a_revoked_process(app, histories, tmp_path):
    tasks = process_bodies.register(app)
    async with Worker(app) as worker:
        result = await tasks.sleep.delay(str(tmp_path / "log"), "a")
        await until((tmp_path / "log").exists, "the body to start")
        await result.revoke(terminate=True)
        await until(lambda: not session_of(worker).held, "the worker to release the job")
    assert histories.of_jobs() == [TERMINATED]


async def test_the_states_of_jobs_of_a_worker_that_stops_at_once(app, nap, histories):
    async with Worker(app, concurrency=2, grace=0):
        await nap.map([(30,)] * 2)
        await until(lambda: histories.of_jobs() == [SUCCESS[:-1]] * 2, "both jobs to run")
    assert histories.of_jobs() == [TERMINATED] * 2


async def test_the_states_of_a_job_that_is_revoked_before_its_first_step(app, nap, histories, monkeypatch):
    """The asyncio task of the job ends by itself, and gives its slot back."""
    start = Attempts.start

    async def start_and_revoke(attempts: Attempts, entries: list[Any]) -> None:
        await start(attempts, entries)
        for job in list(attempts.held.jobs.values()):
            job.signal("t")

    monkeypatch.setattr(Attempts, "start", start_and_revoke)
    async with Worker(app) as worker:
        outcome = await (await nap.delay(30)).outcome(timeout=20)
        assert outcome.state == "REVOKED"
        await until(lambda: not session_of(worker).held.slots.busy, "its slot to be free")
    assert histories.of_jobs() == [(FETCHED, DROPPED, CANCELLED)]


async def test_the_states_of_a_job_that_a_limit_defers(app, histories):
    runs = []

    @app.task(concurrency=1)
    async def alone() -> None:
        runs.append(1)
        await asyncio.sleep(0.2)

    results = await alone.map([()] * 2)
    async with Worker(app):
        await results.get(timeout=20)
    assert sorted(histories.of_jobs(), key=len) == [(FETCHED, STARTING, ENDED), SUCCESS, SUCCESS]
