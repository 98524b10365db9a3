"""Jobs of tasks that a worker does not know: they wait for a worker that knows the task,
while there is one.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from helpers.claiming import ClaimingConsumer
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq import NotRegistered, TaskRevoked, Worker
from asyncq.worker import unknown_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio


def _knowing(app: AsyncQ, *names: str) -> AsyncQ:
    """Registers tasks with these names, which return the name of their worker. Returns the app."""
    for name in names:

        @app.task(name=name)
        async def whoever(value: str) -> str:
            return value

    return app


async def test_a_job_of_a_new_task_waits_for_a_worker_that_knows_it(make_app, caplog):
    old, new = _knowing(make_app(unknown_task_wait=20), "old"), _knowing(make_app(), "old", "new")
    async with Worker(old, name="old-worker"):
        result = await old.send("new", ("value",))
        plain = [await old.send("old", (str(number),)) for number in range(3)]
        assert [await each.get(timeout=10) for each in plain] == ["0", "1", "2"]
        again = await old.send("new", ("again",))
        await until(lambda: "does not know the task 'new'" in caplog.text, "the log record about it")
        assert await result.refresh() == "PENDING"
        async with Worker(new, name="new-worker"):
            assert await result.get(timeout=10) == "value"
            assert await again.get(timeout=10) == "again"
            outcome = await result.outcome()
    assert (outcome.worker, outcome.attempts) == ("new-worker", 1)
    output = [record for record in caplog.records if record.name == unknown_tasks.__name__]
    assert [record.levelname for record in output] == ["WARNING"], "once for each task"
    assert "unknown_task_wait=20 s" in output[0].getMessage()


async def test_two_services_may_share_a_queue(make_app):
    shop = _knowing(make_app(unknown_task_wait=20), "shop.one", "shop.two")
    mail = _knowing(make_app(unknown_task_wait=20), "mail.one")
    async with Worker(shop), Worker(mail):
        calls = [(app, name) for app in (shop, mail) for name in ("shop.one", "shop.two", "mail.one")] * 3
        handles = [await app.send(name, (name,)) for app, name in calls]
        # Also a batch of calls of another service's task, in one job.
        batch_task = await shop.send("mail.one*", ([("a",), ("b",)],))
        assert [await each.get(timeout=20) for each in handles] == [name for _, name in calls]
        assert await batch_task.get(timeout=20) == ["a", "b"]


async def test_a_job_fails_if_no_worker_of_its_queue_knows_its_task_for_the_configured_time(make_app, caplog):
    app, elsewhere = _knowing(make_app(unknown_task_wait=0.5), "known"), _knowing(make_app(), "nobody's")
    stopwatch = Stopwatch()
    async with Worker(app), Worker(elsewhere, queues=["another"]):
        result = await app.send("nobody's", ("value",))
        with pytest.raises(NotRegistered, match="it knows known"):
            await result.get(timeout=10)
        took = stopwatch.took
        outcome = await result.outcome()
        [letter] = await app.control.dead.list()
    assert took >= 0.5
    assert outcome.attempts == 1, "a deferral is not counted as an attempt"
    assert (letter.reason, letter.job_id) == ("not registered", result.id)
    assert "so far no worker of the queue knows it" in caplog.text


async def test_tasks_of_a_dead_worker_count_as_known_no_longer_than_its_lease(make_app, raw, namespace):
    app = _knowing(make_app(unknown_task_wait=0.3, lease=0.6), "known")
    async with app, _beating_once(app, "new") as dead, Worker(app):
        result = await app.send("new", ("value",))
        stopwatch = Stopwatch()
        with pytest.raises(NotRegistered):
            await result.get(timeout=20)
    assert stopwatch.took > 0.6, "it was deferred for as long as the other worker seemed alive"
    assert not await raw.exists(f"{{{namespace}:0}}:a:{dead.name}")


@asynccontextmanager
async def _beating_once(app: AsyncQ, task: str) -> AsyncIterator[ClaimingConsumer]:
    """A worker that knows a task, and freezes after its first heartbeat."""
    commands = app.sessions.current().broker.commands
    consumer = ClaimingConsumer(commands, "dead", ("default",))
    await consumer.make_groups()
    for keys, command in consumer.beat_commands(1):
        await commands.send(keys, *command)
    await consumer.announcements.of_tasks([task])
    await consumer.read(list(consumer.served.streams), 1, block=False)
    yield consumer
    consumer.close()


async def test_a_deferred_job_of_an_unknown_task_can_be_revoked(make_app, caplog):
    app = _knowing(make_app(unknown_task_wait=20), "known")
    async with Worker(app):
        result = await app.send("new", ("value",))
        await until(lambda: "does not know the task" in caplog.text, "the job to be deferred")
        await result.revoke()
        with pytest.raises(TaskRevoked):
            await result.get(timeout=10)


async def test_a_task_that_is_registered_while_the_worker_runs_is_announced(make_app, raw, namespace):
    app = _knowing(make_app(lease=0.6), "old")
    async with Worker(app):
        [key] = await until(lambda: raw.keys(f"{{{namespace}:0}}:a:*"), "the session to be announced")
        _knowing(app, "new")
        await until(lambda: raw.hexists(key, "tnew"), "the new task to be announced")


@pytest.mark.reads_bytes
async def test_a_worker_that_stops_withdraws_the_tasks_that_it_announced(make_app, raw, namespace):
    app = _knowing(make_app(), "known")
    async with Worker(app):
        [key] = await until(lambda: raw.keys(f"{{{namespace}:0}}:a:*"), "the session to be announced")
        announced = await raw.hgetall(key)
        assert announced.pop(b"i"), "what the worker says of itself"
        assert announced == {b"tknown": b"1", b"qdefault": b"1"}
        assert 0 < await raw.ttl(key) <= 86_400
    assert not await raw.exists(key)
