"""How each option of a task or of a call changes the job that is enqueued."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from asyncq import PayloadTooLarge, Retry, SerializationError, wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def sent(hand):
    """Enqueues a call, and returns the job as a worker gets it."""

    async def send(task, *args) -> wire.Job:
        await task.delay(*args)
        return (await hand.take()).delivery.job

    return send


def is_due_in(timestamp: int | None, seconds: float) -> bool:
    """Whether a time in ms is so many seconds away."""
    return timestamp is not None and abs(timestamp / 1000 - time.time() - seconds) < 5


async def test_the_message_of_a_plain_call_has_no_optional_fields(app, add, sent):
    job = await sent(add, 1, 2)
    assert (job.name, job.queue, job.channel) == (add.name, "default", app.sessions.current().channel)
    fresh = wire.Job("", "", "", b"", "", "", 0, 0)
    for extra in wire.EXTRAS:
        assert getattr(job, extra.field) == getattr(fresh, extra.field), extra.text
    assert is_due_in(job.enqueued, 0)


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"task_id": "order-17"}, "id", "order-17"),
        ({"priority": 0}, "priority", 0),
        ({"ignore_result": True}, "ignore_result", True),
        ({"headers": {"tenant": "x"}}, "headers", {"tenant": "x"}),
        ({"result_ttl": 90}, "result_ttl", 90_000),
        ({"result_ttl": timedelta(hours=1)}, "result_ttl", 3_600_000),
        ({"timeout": 2.5}, "timeout", 2_500),
    ],
)
async def test_an_option_of_a_call_is_in_its_message(add, sent, options, field, value):
    assert getattr(await sent(add.options(**options), 1, 2), field) == value


async def test_expires_and_deadline_may_be_seconds_from_now_or_a_date(add, sent):
    date = datetime.now(UTC) + timedelta(seconds=600)
    assert is_due_in((await sent(add.options(expires=60), 1, 2)).expires, 60)
    assert is_due_in((await sent(add.options(deadline=60), 1, 2)).deadline, 60)
    job = await sent(add.options(expires=date), 1, 2)
    assert job.expires == int(date.timestamp() * 1000)


async def test_a_job_with_a_countdown_waits_for_that_many_seconds(add, hand, server):
    await add.options(countdown=60).delay(1, 2)
    server.advance(59)
    await hand.promote()
    assert await hand.take_all() == []
    server.advance(2)
    await hand.promote()
    assert [job.args for job in await hand.take_all()] == [[1, 2]]


async def test_a_job_with_an_eta_waits_until_that_time(add, hand, server):
    await add.options(eta=datetime.now(UTC) + timedelta(hours=1)).delay(1, 2)
    server.advance(3590)
    await hand.promote()
    assert await hand.take_all() == []
    server.advance(20)
    await hand.promote()
    assert len(await hand.take_all()) == 1


async def test_a_call_has_the_options_of_its_task_unless_it_overrides_them(app, sent):
    @app.task(ignore_result=True, timeout=5, retry=Retry(max_retries=2))
    async def mine() -> None:
        """Does nothing."""

    job = await sent(mine)
    assert (job.ignore_result, job.timeout) == (True, None)
    job = await sent(mine.options(ignore_result=False, retry=Retry(max_retries=5)))
    assert job.ignore_result is False
    assert job.retry is not None


async def test_jobs_go_to_the_queue_of_their_call_or_task(app, add, server):
    await add.options(queue="urgent").delay(1, 2)
    await app.task(name="mine", queue="own")(_nothing).delay()
    assert {key.partition(":q:")[2] for key in server.keys(":q:")} >= {"urgent", "own"}


async def test_a_job_with_a_priority_waits_in_the_stream_of_its_level(add, server):
    await add.options(priority=5).delay(1, 2)
    assert any(key.endswith(":q:default^5") for key in server.keys(":q:"))


async def test_a_call_can_be_sent_by_the_name_of_its_task(app, hand):
    await app.send("elsewhere.task", (1, 2), {"z": 3})
    job = (await hand.take()).delivery.job
    assert job.name == "elsewhere.task"


async def test_equal_calls_with_a_key_are_one_job(add, hand):
    first = await add.options(key="order-17").delay(1, 2)
    second = await add.options(key="order-17").delay(1, 2)
    assert first == second
    assert len(await hand.take_all()) == 1


async def test_a_different_call_with_the_same_key_is_refused(add):
    await add.options(key="order-17").delay(1, 2)
    with pytest.raises(ValueError, match="order-17"):
        await add.options(key="order-17").delay(3, 4)


async def test_arguments_that_cannot_be_serialized_are_refused_before_anything_is_sent(add, server):
    server.calls.clear()
    with pytest.raises(SerializationError, match=r"args\[0\]"):
        await add.delay(object(), 2)
    with pytest.raises(TypeError, match="argument"):
        await add.delay(1)
    with pytest.raises(TypeError, match="headers"):
        add.options(headers=5)
    assert not server.calls


async def test_a_call_that_is_too_large_is_refused_before_anything_is_sent(make_app, server):
    async with make_app(max_payload=1000) as app:
        task = app.task(name="task")(_one_argument)
        server.calls.clear()
        with pytest.raises(PayloadTooLarge):
            await task.delay("x" * 2000)
        assert not server.calls


async def _nothing() -> None:
    """The body of a task. No worker runs it."""


async def _one_argument(value: str) -> None:
    """The body of a task. No worker runs it."""
