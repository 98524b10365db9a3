"""Slots: which job gets the next one, and that no cancellation loses a slot or adds one."""

from __future__ import annotations

import asyncio
import random

import pytest

from asyncq import WouldDeadlock
from asyncq.execution.executors import CANCELLING, RUNNING, JobControl
from asyncq.execution.slots import Slots
from asyncq.worker.wait_slots import WaitSlot

pytestmark = pytest.mark.anyio


async def _run_loop(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_job_that_reacquires_a_slot_comes_first_and_then_the_oldest_job():
    slots, order = Slots(1), []

    async def job(name: str, *, first: bool) -> None:
        await slots.take(first=first)
        order.append(name)
        slots.give()

    slots.take_now()
    jobs = [
        asyncio.create_task(job(name, first=first))
        for name, first in (("new 1", False), ("new 2", False), ("resumed 1", True), ("resumed 2", True))
    ]
    await _run_loop()
    slots.give()
    await asyncio.gather(*jobs)
    assert order == ["resumed 1", "resumed 2", "new 1", "new 2"]
    assert slots.busy == 0


async def test_a_slot_that_is_given_to_a_cancelled_job_goes_to_the_next_job():
    slots = Slots(1)
    slots.take_now()
    first, second = (asyncio.create_task(slots.take()) for _ in range(2))
    await _run_loop()
    first.cancel()
    slots.give()
    await second
    assert slots.busy == 1
    third = asyncio.create_task(slots.take())
    await _run_loop()
    slots.give()  # the waiting task has the slot now, and has not run since
    third.cancel()
    await asyncio.wait([first, third])
    assert [first.cancelled(), third.cancelled(), slots.busy] == [True, True, 0]


async def test_a_job_beyond_the_maximum_of_released_slots_is_refused_and_keeps_its_slot():
    slots = Slots(2, most_released=1)
    slots.take_now()
    slots.take_now()
    slots.release()
    with pytest.raises(WouldDeadlock, match="max_parked"):
        slots.release()
    assert (slots.busy, slots.released) == (1, 1)


async def test_a_job_with_two_waits_reacquires_its_slot_after_the_last_one():
    slots = Slots(1, most_released=10)
    slots.take_now()
    wait_slot = WaitSlot(JobControl(), slots)
    wait_slot.release_slot(None)
    wait_slot.release_slot(None)
    await wait_slot.reacquire_slot(None)
    assert (slots.busy, slots.released) == (0, 1)
    await wait_slot.reacquire_slot(None)
    assert (slots.busy, slots.released) == (1, 0)


async def test_a_wait_that_outlives_its_job_takes_no_slot_when_it_ends():
    slots = Slots(1, most_released=10)
    slots.take_now()
    wait_slot = WaitSlot(JobControl(), slots)
    wait_slot.release_slot(None)
    wait_slot.end()
    assert (slots.busy, slots.released) == (0, 0)
    await wait_slot.reacquire_slot(None)
    assert (slots.busy, slots.released) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_cancellation_loses_or_adds_a_slot(seed):
    """Jobs wait, in one asyncio task or several, and waits and jobs are cancelled. The slots are compared
    with a count of the bodies that run.
    """
    rng = random.Random(seed)
    slots, capacity = Slots(3, most_released=1000), Slots(2)
    bodies: set[JobControl] = set()
    most = 0

    def enter(control: JobControl) -> None:
        nonlocal most
        bodies.add(control)
        # Jobs that are being cancelled take slots beyond the limit, and take none from other jobs.
        most = max(most, sum(body.is_wanted for body in bodies))

    async def body(wait_slot: WaitSlot, control: JobControl) -> None:
        for _ in range(rng.randrange(4)):
            bodies.remove(control)
            wait_slot.release_slot(None)
            try:
                await asyncio.sleep(rng.random() / 500)
            finally:
                try:
                    await wait_slot.reacquire_slot(None)
                finally:
                    enter(control)
            await asyncio.sleep(0)

    async def job(*, takes_capacity: bool) -> None:
        control = JobControl()
        await slots.take()
        wait_slot = WaitSlot(control, slots)
        if takes_capacity:
            await capacity.take()
            control.threads = capacity
        enter(control)
        work = asyncio.create_task(body(wait_slot, control))
        await asyncio.wait([work], timeout=rng.choice([None, 0.001]))
        if not work.done():
            control.state = rng.choice([RUNNING, CANCELLING])
            work.cancel()
            await asyncio.wait([work])
        bodies.remove(control)
        if control.threads is not None:
            control.threads = None
            capacity.give()
        wait_slot.end()

    async with asyncio.timeout(10):
        await asyncio.gather(*(job(takes_capacity=rng.random() < 0.3) for _ in range(60)))
    assert (slots.busy, slots.released, capacity.busy) == (0, 0, 0)
    assert 0 < most <= 3
