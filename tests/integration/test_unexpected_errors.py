"""A worker goes on if one of its background tasks raises an unexpected error."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

import pytest
from helpers import outboxes, process_bodies
from helpers.inside import session_of
from helpers.waiting import until

from asyncq import Retry, Worker
from asyncq.broker.claims import UNDER_WAY, Claims
from asyncq.broker.commands import Commands
from asyncq.broker.consumer import Beating, Consumer
from asyncq.broker.entry_reader import EntryReader
from asyncq.broker.job_output import JobOutput
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.worker.job_log import JobLog
from asyncq.worker.stream_writer import ItemSender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio

LEASE = 1.0


@pytest.fixture
async def app(make_app):
    async with make_app(lease=LEASE) as app:
        yield app


@pytest.fixture
def break_once(monkeypatch) -> Callable[..., list[str]]:
    """Makes a method raise at its first calls, or at those for a script.
    Each such call is added to a list.
    """

    def break_once(owner: type, name: str, times: int = 1, script: str = "") -> list[str]:
        whole = getattr(owner, name)
        raised: list[str] = []

        def check(args: tuple[Any, ...]) -> None:
            if len(raised) < times and (not script or args[0].scripts[script].sha in args):
                raised.append(name)
                raise RuntimeError(f"{name} is broken")

        def broken(*args: Any, **kwargs: Any) -> Any:
            check(args)
            return whole(*args, **kwargs)

        async def broken_later(*args: Any, **kwargs: Any) -> Any:
            check(args)
            return await whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken_later if inspect.iscoroutinefunction(whole) else broken)
        return raised

    return break_once


@pytest.fixture
def lose_answers(monkeypatch) -> Callable[[type, int], list[int]]:
    """Drops the first answers to the calls of a writer. Returns a list to which each of them is added."""

    def lose_answers(writer: type, times: int) -> list[int]:
        whole = writer._answered
        lost: list[int] = []

        def answered(*args: Any) -> None:
            *before, answer = args
            if len(lost) < times:
                lost.append(len(lost) + 1)
                answer = PipeBroken("lost")
            whole(*before, answer)

        monkeypatch.setattr(writer, "_answered", answered)
        return lost

    return lose_answers


@pytest.mark.one_server("breaks the read of its only reader")
async def test_jobs_run_after_a_read_that_failed(app, add, break_once, caplog):
    raised = break_once(EntryReader, "read", times=2)
    async with Worker(app):
        assert await add.call(1, 2) == 3
    assert len(raised) == 2
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.exc_info is not None for record in errors] == [True]  # once, and with its traceback


async def test_the_job_of_an_entry_that_cannot_be_started_is_found_again(app, add, break_once):
    async with Worker(app):
        raised = break_once(JobLog, "refresh", times=2)
        assert await add.call(1, 2) == 3
    assert len(raised) == 2


async def test_an_entry_whose_message_breaks_the_decoder_is_quarantined(app, add, break_once):
    async with Worker(app) as worker:
        broken = break_once(Consumer, "delivery")
        failed = await (await add.delay(1, 2)).outcome(timeout=20)
        assert (broken, failed.state, worker.malformed) == (["delivery"], "FAILURE", 1)
        assert await add.call(1, 2) == 3


async def test_delayed_jobs_become_due_after_a_poll_that_failed(app, add, break_once):
    raised = break_once(Consumer, "promote")
    async with Worker(app):
        await until(lambda: raised, "the poll to fail")
        result = await add.options(countdown=0.2).delay(1, 2)
        assert await result.get(timeout=5) == 3  # sooner than the longest pause between two polls


async def test_jobs_of_a_dead_worker_run_after_a_recovery_that_failed(app, add, break_once):
    gone = Consumer(app.sessions.current().broker.commands, "gone", ["default"])
    await gone.make_groups()
    result = await add.delay(1, 2)
    assert len(await gone.read(list(gone.served.streams), 1, block=False)) == 1
    gone.close()
    raised = [break_once(Consumer, "check_in"), break_once(Claims, "take")]
    async with Worker(app):
        assert await result.get(timeout=20) == 3
    assert raised == [["check_in"], ["take"]]


async def test_outbox_entries_are_forwarded_after_a_try_that_failed(make_app, break_once, raw):
    async with make_app(lease=LEASE, shards=2) as app:
        for keys in app.sessions.shards:
            await raw.xadd(keys.outbox, {"nothing": "that anybody can read"})  # the forwarder drops it
        raised = break_once(Commands, "forward", times=2)
        async with Worker(app):
            await until(lambda: len(raised) == 2, "the tries to fail")
            await until(lambda: outboxes.are_empty(raw, app), "the outboxes to be empty")


async def test_the_lease_is_kept_after_a_heartbeat_that_failed(app, nap, break_once):
    async with Worker(app) as worker, Worker(app, name="observer"):
        session = session_of(worker)
        raised = break_once(Beating, "beat", times=2)
        await until(lambda: len(raised) == 2, "two heartbeats to fail")
        assert await nap.call(2 * LEASE) == 2 * LEASE
        assert session_of(worker) is session  # the session was not taken for dead


async def test_a_worker_starts_after_a_first_heartbeat_that_failed(app, add, break_once):
    raised = break_once(Beating, "beat")
    async with Worker(app):
        assert await add.call(1, 2) == 3
    assert raised


async def test_a_job_whose_outcome_cannot_be_sent_runs_again(app, add, break_once):
    raised = break_once(Claims, "_finish_command")
    async with Worker(app):
        assert await (await add.delay(1, 2)).get(timeout=20) == 3
    assert raised


async def test_outcomes_are_stored_after_earlier_ones_could_not_be_stored(app, add, break_once, lose_answers):
    lost = lose_answers(Claims, UNDER_WAY)
    raised = break_once(Commands, "send", UNDER_WAY, script="finish")
    async with Worker(app):
        assert [await add.call(n, n) for n in range(5)] == [0, 2, 4, 6, 8]
    assert (len(lost), len(raised)) == (UNDER_WAY, UNDER_WAY)


async def test_a_job_whose_retry_could_not_be_stored_runs_again(app, break_once):
    runs = []

    @app.task(retry=Retry(max_retries=1, backoff=0.01))
    async def fails_once() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")
        return len(runs)

    raised = break_once(Claims, "retry")
    async with Worker(app) as worker:
        assert await (await fails_once.delay()).get(timeout=20) == 2
        await until(lambda: not session_of(worker).held, "the worker to release the job")
    assert raised


async def test_a_generator_learns_of_items_that_cannot_be_sent(app, break_once, lose_answers):
    @app.task
    async def count(to: int) -> AsyncIterator[int]:
        for n in range(to):
            yield n

    lost = lose_answers(ItemSender, 1)
    raised = break_once(Commands, "send", script="append_items")
    async with Worker(app):
        outcome = await (await count.delay(2000)).outcome(timeout=20)
    assert (lost, raised) == ([1], ["send"])
    assert (outcome.state, str(outcome.error)) == ("FAILURE", "send is broken")


async def test_a_request_of_a_process_that_fails_gets_an_answer(app, break_once):
    tasks = process_bodies.register(app)
    raised = break_once(JobOutput, "report")
    async with Worker(app):
        outcome = await (await tasks.until_cancelled.delay()).outcome(timeout=30)
    assert (outcome.state, raised) == ("FAILURE", ["report"])
    assert "report is broken" in str(outcome.error)
