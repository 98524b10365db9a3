"""How long jobs of unknown tasks are deferred: services that share a queue must soon get their own jobs."""

from __future__ import annotations

import heapq
import random
from types import SimpleNamespace

import pytest

from asyncq.worker import unknown_tasks
from asyncq.worker.unknown_tasks import UnknownTasks

pytestmark = pytest.mark.anyio


class Announcements:
    """Of a worker that knows no task, beside another worker that knows them all."""

    async def is_task_known(self, *_: object) -> bool:
        return True


class Consumer:
    """Of the same worker."""

    settings = SimpleNamespace(unknown_task_wait=30)
    announcements = Announcements()


async def _time_until_both_run(worker: UnknownTasks) -> float:
    """Seconds until two jobs have reached the worker that knows their task, each another one.

    The server gives each job to the worker that has waited longest, and puts that worker last.
    """
    waiting = [0, 1]
    due = sorted((random.random() / 20, number, b"") for number in (0, 1))
    while due:
        now, number, so_far = heapq.heappop(due)
        waiting.reverse()
        if waiting[1] != number:
            job = SimpleNamespace(queue="default", name="task", id="job")
            put_off = await worker.put_off(SimpleNamespace(job=job, put_off=so_far))
            assert put_off is not None
            heapq.heappush(due, (now + put_off.wait / 1000, number, put_off.so_far))
    return now


async def test_two_deferred_jobs_soon_reach_the_workers_that_know_their_tasks(monkeypatch):
    random.seed(5)
    monkeypatch.setattr(unknown_tasks.log, "disabled", True)
    worker = UnknownTasks(Consumer(), lambda: 0.0)
    times = sorted([await _time_until_both_run(worker) for _ in range(1000)])
    assert times[989] < 6, "of 100 such pairs, one took 19 s when pauses were at least half of their bound"
