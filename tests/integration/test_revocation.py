"""A revocation, whatever state its job is in: all waiters get the same outcome,
and no body starts after it.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from helpers.notes import lines, note
from helpers.process_bodies import hold
from helpers.waiting import until, until_state

from asyncq import Retry, Worker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

ALWAYS = Retry(max_retries=5, backoff=60, jitter=False)


async def hold_on_the_loop(log: str, gate: str) -> None:
    note(log, "begin")
    while not os.access(gate, os.F_OK):  # noqa: ASYNC110  the gate is a file
        await asyncio.sleep(0.005)
    note(log, "end")


async def fail(log: str, gate: str) -> None:
    note(log, "begin")
    raise ValueError(gate)


FUNCTIONS = {
    "queued": {"function": hold_on_the_loop},
    "delayed": {"function": hold_on_the_loop, "countdown": 60},
    "waits for its next try": {"function": fail, "retry": ALWAYS},
    "waits for a thread": {"function": hold},
    "waits for a process": {"function": hold, "executor": "process"},
    "on the loop": {"function": hold_on_the_loop},
    "in a thread": {"function": hold},
    "in a process": {"function": hold, "executor": "process"},
    "succeeded": {"function": hold_on_the_loop},
}
STARTED = {"on the loop", "in a thread", "in a process"}
STATES = {
    "queued": "PENDING",
    "delayed": "SCHEDULED",
    "waits for its next try": "RETRY",
    "waits for a thread": "PENDING",
    "waits for a process": "PENDING",
    "succeeded": "SUCCESS",
}


class Setup:
    """Brings jobs into a state, and keeps what their bodies noted."""

    def __init__(self, app: Any, folder: Path, where: str) -> None:
        self.where = where
        self.log, self.gate = folder / "log", folder / "gate"
        given = dict(FUNCTIONS[where])
        function, countdown = given.pop("function"), given.pop("countdown", None)
        executor = {"executor": given["executor"]} if "executor" in given else {}
        self.task = app.task(name="held", **given)(function).options(countdown=countdown)
        self.other = app.task(name="other", **executor)(hold)

    async def start_job(self) -> Any:
        """Starts a job and waits until it is in the state of `where`."""
        if self.where in {"waits for a thread", "waits for a process"}:
            # There is one thread and one process, and another job uses it.
            await self.other.delay(str(self.log.with_name("other")), str(self.gate))
            await until(lambda: lines(self.log.with_name("other")), "the other job to run")
        result = await self.task.delay(str(self.log), str(self.gate))
        if self.where == "succeeded":
            self.gate.touch()
        if self.where in STARTED:
            await until(lambda: lines(self.log), "the body to start")
        await until_state(result, STATES.get(self.where, "STARTED"))
        return result


@pytest.mark.parametrize("terminate", [False, True], ids=["revoked", "terminated"])
@pytest.mark.parametrize("where", FUNCTIONS)
async def test_every_waiter_of_a_revoked_job_gets_the_same_outcome_in_each_state_of_the_job(
    make_app, tmp_path, where, terminate
):
    async with make_app(threads=1, processes=1) as app, AsyncExitStack() as workers:
        setup = Setup(app, tmp_path, where)
        if where != "queued":
            await workers.enter_async_context(Worker(app))
        result = await setup.start_job()
        waiter = asyncio.create_task(result.outcome(timeout=20))
        received = app.AsyncResult(result.id).revoke(
            terminate=terminate, wait=True, timeout=20, reason="nobody wants it"
        )
        revoking = asyncio.create_task(received)
        before = lines(setup.log)
        runs_on = where in STARTED and not terminate
        if runs_on:
            await until(lambda: _is_signalled(app, result.id), "the revocation signal to be in the record")
            assert not revoking.done()
            setup.gate.touch()
        expected = "SUCCESS" if runs_on or where == "succeeded" else "REVOKED"
        assert await revoking == expected
        setup.gate.touch()  # a body in a thread ends, and jobs that wait for the thread go on
        assert (await waiter).state == expected
        if expected == "REVOKED":
            assert "nobody wants it" in str(await result.get(propagate=False)), "also if it was running"
        assert await app.AsyncResult(result.id).refresh() == expected
        if where == "queued":
            await workers.enter_async_context(Worker(app))
        await setup.other.options(wait=30).call(str(tmp_path / "last"), str(setup.gate))
        ends = runs_on or where == "in a thread"
        await until(
            lambda: lines(setup.log) == [*before, *["end"] * ends], "the body to end, or not to start"
        )


async def _is_signalled(app: Any, id_: str) -> bool:
    state = await app.sessions.current().broker.state(id_)
    return state.flags[1:2] == "c"
