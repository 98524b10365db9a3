"""Revocation signals find their jobs without a search through all other jobs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncq import wire
from asyncq.worker.held_jobs import HeldJobs
from asyncq.worker.revocation import RevocationSignals

if TYPE_CHECKING:
    from asyncq.worker.attempt import RunningJob

pytestmark = pytest.mark.anyio


class Job:
    """A held job, which keeps the signals that it got."""

    def __init__(self, entry: str, id: str) -> None:
        job = wire.Job(id, "task", "default", b"", "n", "", 1, 1)
        self.delivery = wire.Delivery(entry, "stream", 0, 0, job)
        self.signals: list[str] = []

    def signal(self, signal: str) -> None:
        self.signals.append(signal)


def hold(held: HeldJobs, *jobs: Job) -> None:
    for job in cast("tuple[RunningJob, ...]", jobs):
        id_ = job.delivery.job.id
        held.jobs[job.delivery.entry, id_] = job
        if id_ in held.newest:
            held.make_older(id_)
        held.newest[id_] = job


def signals_of(held: HeldJobs) -> RevocationSignals:
    return RevocationSignals(held, cast("Any", None))


async def test_the_time_of_five_thousand_revocations_does_not_grow_quadratically():
    held = HeldJobs(5000, 0, asyncio.Event())
    jobs = [Job(f"{n}-0", f"job.{n}") for n in range(5000)]
    hold(held, *jobs)
    signals = signals_of(held)
    started = time.process_time()
    for job in jobs:
        signals.on_message(f"t{job.delivery.job.id} too late".encode())
    took = time.process_time() - started
    assert [job.signals for job in jobs] == [["t"]] * 5000
    assert took < 0.5


async def test_all_held_jobs_with_one_id_get_the_signal_and_each_is_dropped_separately():
    held = HeldJobs(5, 0, asyncio.Event())
    first, second, third, other = Job("1-0", "a"), Job("2-0", "a"), Job("3-0", "a"), Job("4-0", "b")
    hold(held, first, second, third, other)
    signals = signals_of(held)
    signals.apply(["ca"])
    assert [job.signals for job in (first, second, third, other)] == [["c"]] * 3 + [[]]
    held.drop(second.delivery)
    held.drop(third.delivery)
    signals.apply(["ta", "kb"])
    assert [job.signals for job in (first, second, third, other)] == [["c", "t"], ["c"], ["c"], ["k"]]
    held.drop(first.delivery)
    held.drop(other.delivery)
    assert not held.with_id("a")
    assert not held.with_id("b")
    assert (held.jobs, held.newest, held.older) == ({}, {}, {})


@pytest.mark.parametrize("bad", ["", "t", "xa", "\ufffd a"])
async def test_an_invalid_signal_reaches_no_job(bad):
    held = HeldJobs(5, 0, asyncio.Event())
    job = Job("1-0", "a")
    hold(held, job)
    signals_of(held).apply([bad])
    assert job.signals == []
