"""A wait inside a task whose app is on another loop than the worker. Slots are released and reacquired on the
worker's loop.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers.inside import reacquire_slot, release_slot

from asyncq.execution.executors import CANCELLING, JobControl
from asyncq.execution.slots import Slots
from asyncq.worker.wait_slots import WaitSlot

pytestmark = pytest.mark.anyio


class Job(JobControl):
    """The worker's part of a job, with a loop of its own in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.worker_loop = asyncio.new_event_loop()
        self.slots = Slots(1, most_released=10)
        self.slots.take_now()
        self.wait_slot = WaitSlot(self, self.slots)
        self.thread = threading.Thread(target=self.worker_loop.run_forever)
        self.thread.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.worker_loop

    async def release_slot(self, wait: asyncio.Task[object] | None) -> None:
        self.wait_slot.release_slot(wait)

    async def reacquire_slot(self, wait: asyncio.Task[object] | None) -> None:
        await self.wait_slot.reacquire_slot(wait)

    def on_worker_loop(self, call):
        """Makes a call on the worker's loop and waits for it."""

        async def made():
            return call()

        return asyncio.run_coroutine_threadsafe(made(), self.worker_loop).result(5)

    def end(self) -> None:
        if self.thread.is_alive():
            self.worker_loop.call_soon_threadsafe(self.worker_loop.stop)
            self.thread.join()
        self.worker_loop.close()


@pytest.fixture
def job():
    job = Job()
    yield job
    job.end()


async def _wait_for_slot(job: Job) -> asyncio.Task[None]:
    """Ends the wait of a job while another job has the slot."""
    await release_slot(job)
    job.on_worker_loop(job.slots.take_now)
    reacquiring = asyncio.create_task(reacquire_slot(job))
    while job.wait_slot._reacquiring is None:  # noqa: ASYNC110  another loop sets it
        await asyncio.sleep(0.001)
    return reacquiring


async def test_a_slot_is_released_and_reacquired_on_the_loop_of_the_worker(job):
    await release_slot(job)
    assert (job.slots.busy, job.slots.released) == (0, 1)
    await reacquire_slot(job)
    assert (job.slots.busy, job.slots.released) == (1, 0)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_job_that_is_cancelled_while_it_reacquires_its_slot_gets_the_slot_first(job, times):
    await release_slot(job)
    job.on_worker_loop(job.slots.take_now)  # another job has the slot now
    reacquiring = asyncio.create_task(reacquire_slot(job))
    for _ in range(times):
        await asyncio.sleep(0)
        reacquiring.cancel()
    await asyncio.sleep(0.02)
    assert not reacquiring.done()
    job.on_worker_loop(job.slots.give)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reacquiring, 5)
    assert (job.slots.busy, job.slots.released) == (1, 0)


async def test_a_job_that_is_cancelled_at_the_start_of_a_wait_gets_its_slot_back(job):
    releasing = asyncio.create_task(release_slot(job))
    await asyncio.sleep(0)
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(releasing, 5)
    assert (job.slots.busy, job.slots.released) == (1, 0)


async def test_a_job_that_is_being_cancelled_does_not_wait_for_a_slot(job):
    reacquiring = await _wait_for_slot(job)
    job.state = CANCELLING
    reacquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reacquiring, 5)
    assert (job.slots.busy, job.slots.released) == (2, 0)


async def test_a_wait_ends_although_the_loop_of_the_worker_has_ended(job):
    reacquiring = await _wait_for_slot(job)
    for task in job.on_worker_loop(asyncio.all_tasks):
        task._log_destroy_pending = False  # the test leaves this task pending
    job.end()
    await asyncio.wait_for(reacquiring, 5)
    await reacquire_slot(job)
