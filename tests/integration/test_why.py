"""`why`: for each thing that a job may wait for, a job that waits for it, and the answer."""

from __future__ import annotations

import asyncio

import pytest
from helpers.waiting import until, until_state

from asyncq import ResultNotFound, Retry, Worker, chain, group

pytestmark = pytest.mark.anyio


async def kinds(app, result) -> list[str]:
    return [reason.kind for reason in (await app.control.why(result.id)).reasons]


async def test_a_queue_that_no_worker_serves(app, add):
    result = await add.options(queue="lonely").delay(1, 1)
    why = await app.control.why(result.id)
    assert (why.id, why.task, why.queue, why.state) == (result.id, add.name, "lonely", "PENDING")
    assert [reason.kind for reason in why.reasons] == ["no worker"]
    assert str(why) == "no worker serves queue 'lonely'; no worker lives"
    async with Worker(app, name="w1"):
        assert str(await app.control.why(result.id)) == "no worker serves queue 'lonely'; live workers: w1"
    await app.control.purge("lonely")


async def test_a_paused_queue(app, add):
    await app.control.pause("default")
    async with Worker(app):
        result = await add.delay(1, 1)
        assert await kinds(app, result) == ["paused"]
        await app.control.resume("default")
        assert await result.get(timeout=30) == 2
        why = await app.control.why(result.id)
        assert (why.state, [reason.kind for reason in why.reasons]) == ("SUCCESS", ["ended"])


async def test_its_time_and_then_its_queue(app, add):
    result = await add.options(countdown=600).delay(1, 1)
    why = await app.control.why(result.id)
    assert (why.state, [reason.kind for reason in why.reasons]) == ("SCHEDULED", ["time", "no worker"])
    assert "it waits for its time: 20" in str(why)
    assert why.reasons[0].until is not None
    await result.revoke()


async def test_its_next_try(app):
    @app.task(retry=Retry(max_retries=3, backoff=600))
    async def fails() -> None:
        raise KeyError

    async with Worker(app):
        result = await fails.delay()
        await until_state(result, "RETRY")
        why = await app.control.why(result.id)
        assert (why.state, [reason.kind for reason in why.reasons]) == ("RETRY", ["retry"])
        assert "waits for its retry 1: 20" in str(why)
        await result.revoke()


async def test_other_jobs_of_its_workflow(app, add, nap):
    @app.task
    async def total(values: list[float]) -> float:
        return sum(values)

    async with Worker(app):
        last = await chain(add.options(countdown=600).s(1, 1), add.s(1)).delay()
        why = await app.control.why(last.id)
        assert [reason.kind for reason in why.reasons] == ["parents"]
        assert why.reasons[0].jobs == (last.parent.id,)
        assert str(why) == f"the job before it has not ended: {last.parent.id} (SCHEDULED)"
        await last.parent.revoke()
        chord = await (group(nap.s(0.01), nap.s(600)) | total.s()).delay()

        async def one_left():
            reason = (await app.control.why(chord.id)).reasons[0]
            return reason if len(reason.jobs) == 1 and "STARTED" in reason.text else None

        reason = await until(one_left, "one of the two jobs to end")
        assert reason.text.startswith("of the 2 jobs before it, these have not ended: ")
        await app.control.revoke(reason.jobs, terminate=True)


async def test_a_permit_and_who_has_it(app):
    go = asyncio.Event()

    @app.task(name="alone", concurrency=1)
    async def alone() -> None:
        await go.wait()

    async with Worker(app, name="w1"):
        first = await alone.delay()
        await until_state(first, "STARTED")
        second = await alone.delay()

        async def waits_for_a_permit():
            why = await app.control.why(second.id)
            return why if why.reasons[0].kind == "permit" else None

        why = await until(waits_for_a_permit, "the second job to ask for a permit")
        assert why.state == "PENDING"
        assert (why.reasons[0].jobs, why.reasons[0].workers) == ((first.id,), ("w1",))
        assert f"{first.id} (on worker w1)" in str(why)
        go.set()
        await second.get(timeout=30)


async def test_why_names_the_slot_and_the_permit_of_a_job_that_waits_for_a_slot_and_will_need_a_permit(app):
    go = asyncio.Event()

    @app.task(name="alone", concurrency=1)
    async def alone() -> None:
        await go.wait()

    async with Worker(app, name="w1", concurrency=1):
        first = await alone.delay()

        async def has_a_permit():
            return await app.sessions.current().broker.commands.send(
                app.sessions.shards.of("alone"),
                "HLEN",
                app.sessions.shards.of("alone").permits_held + "alone",
            )

        await until(has_a_permit, "the first job to have the permit")
        second = await alone.delay()
        why = await app.control.why(second.id)
        assert [reason.kind for reason in why.reasons] == ["turn", "permit"]
        assert "other jobs have permits" in why.reasons[1].text
        assert (why.reasons[1].jobs, why.reasons[1].workers) == ((first.id,), ("w1",))
        go.set()
        await second.get(timeout=30)


async def test_the_rate_of_its_task(app):
    @app.task(name="slowly", rate_limit="1/m")
    async def slowly() -> None: ...

    async with Worker(app):
        first, second = await slowly.delay(), await slowly.delay()
        await first.get(timeout=30)

        async def is_put_off():
            why = await app.control.why(second.id)
            return why if why.reasons[0].kind == "rate" else None

        why = await until(is_put_off, "the second job to get a time")
        assert why.reasons[0].until is not None
        await second.revoke()


async def test_a_task_that_no_worker_of_its_queue_knows(make_app):
    async with make_app(unknown_task_wait=60) as app, Worker(app, name="w1"):
        result = await app.send("nobody.knows")

        async def is_known_to_wait():
            found = await kinds(app, result)
            return found if found[0] == "unknown task" else None

        await until(is_known_to_wait, "the job to be put off")
        assert "nobody.knows" in str(await app.control.why(result.id))
        await result.revoke()


async def test_quiet_workers(app, add):
    async with Worker(app, name="w1"):
        await app.control.quiet("w1")

        async def is_listed_as_quiet():
            return (await app.control.workers())[0].quiet

        await until(is_listed_as_quiet, "the worker to report that it is quiet")
        result = await add.delay(1, 1)
        assert str(await app.control.why(result.id)) == "its workers are quiet: w1"
        await app.control.quiet("w1", on=False)
        assert await result.get(timeout=30) == 2


async def test_its_turn_and_a_thread(app, nap):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.task(name="blocks")
    def blocks() -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)

    async with Worker(app, concurrency=1, name="w1"):
        running = await nap.delay(600)
        await until_state(running, "STARTED")
        waiting = await nap.delay(0)
        why = await app.control.why(waiting.id)
        assert [reason.kind for reason in why.reasons] == ["turn"]
        assert "1 jobs wait in queue 'default'" in str(why)
        assert why.reasons[0].workers == ("w1",)
        why = await app.control.why(running.id)
        assert (why.state, why.reasons[0].kind, why.reasons[0].workers) == ("STARTED", "running", ("w1",))
        await running.revoke(terminate=True)
        await waiting.get(timeout=30)


async def test_a_running_job_that_waits_for_another_one(app, nap):
    @app.task(name="outer")
    async def outer(id_: str) -> float:
        return await app.AsyncResult(id_).get(disable_sync_subtasks=False)

    async with Worker(app):
        inner = await nap.options(countdown=600).delay(0)
        running = await outer.delay(inner.id)

        async def waits():
            reasons = (await app.control.why(running.id)).reasons
            return reasons[-1].jobs == (inner.id,) and reasons[-1].kind == "jobs"

        await until(waits, "the wait to be noted")
        await inner.revoke()
        await running.outcome(timeout=30)


async def test_a_job_that_does_not_exist(app):
    with pytest.raises(ResultNotFound, match="no job 'nobody'"):
        await app.control.why("nobody")
