"""Dead letters: jobs that were given up are kept with the data to understand them,
and sent again on request.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import NotRegistered, QueueFull, ResultNotFound, Retry, TaskRevoked, Worker, WorkerLost
from asyncq.broker.schema.keys import GROUP

pytestmark = pytest.mark.anyio

ONCE_MORE = Retry(max_retries=1, backoff=0)


@pytest.fixture
def failing(app):
    """A task that fails until the test repairs it."""

    @app.task(name="failing", retry=ONCE_MORE)
    async def failing(number: int = 0) -> list[object]:
        if not mended:
            raise KeyError(f"lost {number}")
        context = asyncq.current()
        return [number, context.attempt, context.queue, dict(context.headers), context.deadline is None]

    mended: list[bool] = []
    failing.mended = mended
    return failing


async def _given_up(app, task, *args, **options):
    """Makes a call that becomes a dead letter. Returns its handle and the letter."""
    result = await task.options(**options).delay(*args)
    outcome = await result.outcome(timeout=30)
    assert outcome.state == "FAILURE"
    letters = [letter for letter in await app.control.dead.list() if letter.job_id == result.id]
    return result, letters[0]


async def test_a_job_without_retries_left_is_kept_as_a_dead_letter_with_its_error_and_history(app, failing):
    before = datetime.now(UTC)
    async with Worker(app, queues=["second"]):
        result, letter = await _given_up(app, failing, 7, queue="second")
    assert (letter.task, letter.queue, letter.job_id) == ("failing", "second", result.id)
    assert (letter.reason, letter.retries, letter.crashes) == ("retries used up", 1, 0)
    assert isinstance(letter.error, KeyError)
    assert letter.error.args == ("lost 7",)
    assert "raise KeyError" in (letter.traceback or "")
    assert before - timedelta(seconds=1) < (letter.at or before) < datetime.now(UTC) + timedelta(seconds=1)


async def test_a_failed_job_without_a_retry_policy_is_no_dead_letter(app):
    @app.task
    async def fails() -> None:
        raise KeyError

    async with Worker(app):
        for task in (fails, fails.options(retry=Retry(on=(OSError,)))):
            with pytest.raises(KeyError):
                await task.call()
    assert await app.control.dead.list() == []


async def test_a_job_of_an_unknown_task_is_kept_as_a_dead_letter(app):
    async with Worker(app):
        result = await app.send("nobody.knows", (1,))
        with pytest.raises(NotRegistered):
            await result.get(timeout=30)
    (letter,) = await app.control.dead.list()
    assert (letter.task, letter.reason) == ("nobody.knows", "not registered")
    assert isinstance(letter.error, NotRegistered)


async def test_an_entry_without_a_valid_message_is_kept_but_cannot_be_replayed(app, raw):
    await raw.xadd(app.sessions.shards[0].stream("default"), {"not": "ours"})
    async with Worker(app):
        letters = await until(app.control.dead.list, "the entry to be quarantined")
    assert (letters[0].job_id, letters[0].task) == ("", "")
    assert "no job" in letters[0].reason
    with pytest.raises(ValueError, match="no message"):
        await app.control.dead.replay(letters[0].id)
    assert await app.control.dead.delete([letters[0].id]) == 1


async def test_a_job_that_killed_its_workers_is_kept_with_the_number_of_crashes(
    make_app, server_url, namespace, tmp_path
):
    async with make_app(lease=1, max_crashes=1) as app:
        jobs = register(app)
        bad = await jobs.poison.delay(str(tmp_path / "log"))
        with worker_process(server_url, namespace, lease=1, max_crashes=1) as victim:
            await asyncio.to_thread(victim.process.wait, 30)
        async with Worker(app):
            with pytest.raises(WorkerLost):
                await bad.get(timeout=30)
        (letter,) = await app.control.dead.list()
    assert (letter.task, letter.queue, letter.crashes) == ("poison", "default", 1)
    assert letter.reason == "took its worker down"
    assert letter.error is None


async def test_a_replay_returns_a_handle_and_the_job_counts_its_attempts_from_one(app, failing):
    async with Worker(app, queues=["second"]):
        old, letter = await _given_up(app, failing, 7, queue="second", headers={"who": "me"}, deadline=60)
        failing.mended.append(True)
        again = await app.control.dead.replay(letter.id)
        assert await again.get(timeout=30) == [7, 1, "second", {"who": "me"}, True]
        assert again.id != old.id
        assert await app.AsyncResult(again.id).get(timeout=1) == await again
    with pytest.raises(KeyError):
        await old.get(timeout=1)
    assert await app.control.dead.list() == []
    with pytest.raises(LookupError):
        await app.control.dead.replay(letter.id)


async def test_a_replayed_job_that_fails_again_is_a_dead_letter_again(app, failing):
    async with Worker(app):
        _, letter = await _given_up(app, failing, 7)
        again = await app.control.dead.replay(letter.id)
        with pytest.raises(KeyError):
            await again.get(timeout=30)
        (second,) = await app.control.dead.list()
        assert second.job_id == again.id
        failing.mended.append(True)
        assert (await (await app.control.dead.replay(second.id)).get(timeout=30))[0] == 7


async def test_a_process_that_does_not_know_the_task_may_replay_its_dead_letter(app, make_app, failing):
    async with Worker(app):
        _, letter = await _given_up(app, failing, 7)
        failing.mended.append(True)
        async with make_app() as elsewhere:
            again = await elsewhere.control.dead.replay(letter.id)
            assert (await again.get(timeout=30))[0] == 7


async def test_two_concurrent_replays_of_one_dead_letter_make_one_job(app, failing):
    async with Worker(app):
        _, letter = await _given_up(app, failing, 7)
        failing.mended.append(True)
        replays = await asyncio.gather(
            *(app.control.dead.replay(letter.id) for _ in range(5)), return_exceptions=True
        )
        handles = [replay for replay in replays if not isinstance(replay, LookupError)]
        assert len({handle.id for handle in handles}) == 1
        await handles[0].get(timeout=30)


@pytest.mark.one_shard
async def test_a_dead_letter_is_kept_if_the_queue_is_full_at_its_replay(make_app, app, failing):
    async with Worker(app):
        _, letter = await _given_up(app, failing, 7)
    await failing.delay(8)
    async with make_app(max_length=1) as full:
        with pytest.raises(QueueFull):
            await full.control.dead.replay(letter.id)
    assert [kept.id for kept in await app.control.dead.list()] == [letter.id]


async def test_a_replayed_job_still_ignores_its_result(app, failing):
    async with Worker(app):
        await failing.options(ignore_result=True).delay(7)
        (letter,) = await until(app.control.dead.list, "the letter")
        failing.mended.append(True)
        again = await app.control.dead.replay(letter.id)
        with pytest.raises(ResultNotFound):
            await again.get(timeout=30)
    assert await app.control.dead.list() == []


async def test_a_revoked_job_is_no_dead_letter(app, failing):
    async with Worker(app):
        result = await failing.options(retry=Retry(backoff=30, jitter=False)).delay()
        await until_state(result, "RETRY")
        await result.revoke()
        with pytest.raises(TaskRevoked):
            await result.get(timeout=30)
    assert await app.control.dead.list() == []


async def test_dead_letters_are_listed_newest_first_up_to_the_requested_number(app, failing):
    async with Worker(app, concurrency=1):
        for number in range(5):
            await _given_up(app, failing, number)
    letters = await app.control.dead.list(limit=3)
    assert [letter.error.args for letter in letters] == [("lost 4",), ("lost 3",), ("lost 2",)]
    assert len(await app.control.dead.list()) == 5


async def test_delete_returns_how_many_dead_letters_there_were_and_accepts_any_id(app, failing):
    async with Worker(app):
        letters = [(await _given_up(app, failing, number))[1] for number in range(3)]
    ids = [letter.id for letter in letters]
    assert await app.control.dead.delete(ids[:2]) == 2
    assert await app.control.dead.delete(ids) == 1
    assert await app.control.dead.delete(["1-1", *ids]) == 0
    assert await app.control.dead.delete([]) == 0
    assert await app.control.dead.list() == []


@pytest.mark.parametrize("id_", ["nonsense", "", "1-2-3", "no letter\n", f"1-{2**64}"])
async def test_an_id_without_a_dead_letter_is_a_lookup_error_and_nothing_is_deleted(app, failing, id_):
    async with Worker(app):
        _, letter = await _given_up(app, failing)
    with pytest.raises(LookupError):
        await app.control.dead.replay(id_)
    assert await app.control.dead.delete([id_]) == 0
    assert [kept.id for kept in await app.control.dead.list()] == [letter.id]


async def test_one_id_instead_of_a_list_is_refused(app, failing):
    async with Worker(app):
        _, letter = await _given_up(app, failing)
    with pytest.raises(TypeError):
        await app.control.dead.delete(letter.id)


@pytest.mark.one_shard
async def test_no_more_dead_letters_are_kept_than_the_limit(make_app, raw):
    async with make_app(dead_cap=20) as app:

        @app.task(retry=ONCE_MORE)
        async def fails(number: int) -> None:
            raise KeyError(number)

        async with Worker(app):
            results = await fails.map([(n,) for n in range(60)])
            for result in results:
                assert (await result.outcome(timeout=30)).state == "FAILURE"
        assert await raw.xlen(app.sessions.shards[0].dead) == 20
        assert len(await app.control.dead.list(limit=1000)) == 20


async def test_a_dead_letter_is_deleted_when_its_time_is_over(make_app):
    async with make_app(dead_ttl=0.4) as app:

        @app.task(retry=ONCE_MORE)
        async def fails(number: int) -> None:
            raise KeyError(number)

        async with Worker(app):
            _, old = await _given_up(app, fails, 1)
            await asyncio.sleep(0.6)  # its time is over
            _, new = await _given_up(app, fails, 2)
        assert old.id not in [letter.id for letter in await app.control.dead.list()]
        assert new.error is not None


async def test_the_blocking_variants_do_the_same(app, failing):
    def blocking() -> list[object]:
        (letter,) = app.control.dead.list_sync()
        result = app.control.dead.replay_sync(letter.id)
        assert app.control.dead.delete_sync([letter.id]) == 0
        return result.get_sync(timeout=30)

    async with Worker(app):
        await _given_up(app, failing, 3)
        failing.mended.append(True)
        assert (await asyncio.to_thread(blocking))[0] == 3


async def test_a_dead_letter_holds_no_claim(app, raw, failing):
    async with Worker(app):
        await _given_up(app, failing)
        stream = app.sessions.shards[0].stream("default")
        assert await raw.xlen(stream) == 0
        assert (await raw.xpending(stream, GROUP))["pending"] == 0
