"""Waits that would never end: for the job itself, for one of its ancestors,
and in a cycle of jobs on any workers.
"""

from __future__ import annotations

import asyncio
import re

import pytest
from helpers import servers
from helpers.inside import slots_of
from helpers.notes import lines
from helpers.own_server import own_server
from helpers.waiting import until
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import AsyncQ, ResultTimeout, Worker, WouldDeadlock, allow_join_result as allowed
from asyncq.client import deadlock

pytestmark = pytest.mark.anyio


@pytest.fixture
def add(app):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    return add


async def _completed(handle) -> list[str]:
    return [one.id async for one in asyncq.as_completed([handle])]


WAYS = {
    "get": lambda handle: handle.get(),
    "outcome": lambda handle: handle.outcome(),
    "set": lambda handle: handle.app.ResultSet([handle]).get(),
    "gather": asyncq.gather,
    "wait": lambda handle: asyncq.wait([handle]),
    "completed": _completed,
    "events": lambda handle: handle.get(on_event=print),
    "revoke": lambda handle: handle.revoke(wait=True),
    "thread": lambda handle: asyncio.to_thread(handle.get_sync),
}


def _waits_for(app: AsyncQ, gates: dict[str, asyncio.Event] | None = None):
    """Registers a task that waits for a job by its id, in one of several ways.
    First it waits for its gate.
    """

    @app.task(name="waits_for")
    async def waits_for(id_: str, how: str = "get") -> object:
        if gates is not None:
            await gates[asyncq.current().id].wait()
        with allowed():
            value = await WAYS[how](app.AsyncResult(id_))
        return value if how in {"get", "thread"} else str(value)

    return waits_for


@pytest.mark.parametrize("how", WAYS)
async def test_a_job_that_waits_for_itself_gets_an_error_with_the_path(app, how):
    waits_for = _waits_for(app)
    async with Worker(app):
        with pytest.raises(WouldDeadlock, match=re.escape("waits_for:me -> waits_for:me")):
            await waits_for.options(task_id="me", wait=30).call("me", how)
        assert await app.AsyncResult("me").refresh() == "FAILURE", "it was not revoked"


async def test_waiting_for_an_ancestor_three_levels_up_is_always_refused(app):
    @app.task(name="down")
    async def down(depth: int, top: str) -> list[str]:
        output = []
        if depth:
            return await (await down.delay(depth - 1, top)).get(disable_sync_subtasks=False)
        for wait in (
            app.AsyncResult(top).get(disable_sync_subtasks=False),
            app.AsyncResult(top).get(timeout=0, disable_sync_subtasks=False),
            down.options(task_id=top).call(0, top),
        ):
            try:
                await wait
            except WouldDeadlock as error:
                output.append(str(error))
        return [*output, *asyncq.current().ancestors]

    async with Worker(app, concurrency=1):
        *output, a, b, top = await down.options(task_id="top", wait=30).call(3, "top")
    assert top == "top"
    assert len(output) == 3
    path = re.compile(rf"top -> {b} -> {a} -> down:[\w.]+ -> (down:)?top$")
    assert [bool(path.search(text)) for text in output] == [True] * 3, output


async def test_a_job_with_more_than_64_ancestors_knows_the_nearest_ones_and_the_root(app):
    @app.task(name="deep")
    async def deep(depth: int) -> tuple[int, str]:
        job = asyncq.current()
        if depth:
            return await (await deep.delay(depth - 1)).get(disable_sync_subtasks=False)
        with pytest.raises(WouldDeadlock, match=r"^.*: top -> \.\.\. -> "), allowed():
            await app.AsyncResult("top").get()
        return len(job.ancestors), job.root_id or ""

    async with Worker(app, concurrency=1):
        assert await deep.options(task_id="top", wait=30).call(70) == (64, "top")


async def test_a_job_of_another_app_with_the_same_id_is_another_job(app, make_app, namespace):
    async with make_app(namespace=f"{namespace}-other") as other, Worker(other):

        @other.task(name="theirs")
        async def theirs() -> int:
            return 1

        @app.task(name="ours")
        async def ours() -> int:
            with allowed():
                return await theirs.options(task_id=asyncq.current().id).call()

        async with Worker(app, concurrency=1):
            assert await ours.options(task_id="same", wait=30).call() == 1


async def test_one_of_two_jobs_that_wait_for_each_other_gets_an_error_and_the_other_goes_on(app, make_app):
    """The jobs run on two workers with one slot each."""
    async with make_app() as second:
        ways = [_waits_for(app), _waits_for(second)]
        async with Worker(app, concurrency=1), Worker(second, concurrency=1):
            for number in range(20):
                first, other = f"a{number}", f"b{number}"
                results = await asyncio.gather(
                    ways[0].options(task_id=first).delay(other), ways[0].options(task_id=other).delay(first)
                )
                async with asyncio.timeout(10):
                    errors = [await result.get(propagate=False) for result in results]
                assert {type(error) for error in errors} == {WouldDeadlock}
                assert re.search(rf"(waits_for:)?({first}|{other}) -> \S+ -> \S+$", str(errors[0]))
    await until(lambda: _are(app, 0), "every recorded wait to be removed")


async def _keys(app: AsyncQ, kind: str):
    async with servers.async_client(app.settings.url) as client:
        async for key in client.scan_iter(match=f"{app.sessions.shards[0].tag}:{kind}*", count=1000):
            yield key


async def test_the_job_that_completes_a_wait_cycle_of_three_gets_an_error_with_the_path(app):
    gates = {id_: asyncio.Event() for id_ in ("one", "two", "three")}
    waits_for = _waits_for(app, gates)
    path = re.escape("waits_for:three -> one -> two -> waits_for:three")
    async with Worker(app, concurrency=3) as worker:
        one, two, three = await asyncio.gather(
            waits_for.options(task_id="one").delay("two"),
            waits_for.options(task_id="two").delay("three", "set"),
            waits_for.options(task_id="three").delay("one", "wait"),
        )
        for count, gate in enumerate(gates.values()):
            await until(lambda count=count: slots_of(worker).released == count, "the jobs before to wait")
            gate.set()
        with pytest.raises(WouldDeadlock, match=path):
            await three.get(timeout=30)
        for result in (two, one):
            with pytest.raises(WouldDeadlock):  # the job that they waited for failed with it
                await result.get(timeout=30)


async def test_a_job_of_a_workflow_waits_for_its_parents(app):
    waits_for = _waits_for(app)

    @app.task(name="end")
    async def end(value: object) -> None:
        pass

    async with Worker(app, concurrency=1):
        first = waits_for.options(task_id="first").s("last")
        last = await (first | end.options(task_id="last").s()).delay()
        assert last.id == "last"
        with pytest.raises(WouldDeadlock, match=re.escape("waits_for:first -> last -> waits_for:first")):
            await last.get(timeout=30)


async def test_a_wait_for_the_first_of_several_jobs_makes_no_wait_cycle(app, add):
    gate = asyncio.Event()
    waits_for = _waits_for(app)

    @app.task(name="first_of")
    async def first_of(ids: list[str]) -> list[str]:
        await gate.wait()
        with allowed():
            done, _ = await asyncq.wait(
                [app.AsyncResult(id_) for id_ in ids], return_when=asyncio.FIRST_COMPLETED
            )
        return [one.id for one in done]

    async with Worker(app, concurrency=2) as worker:
        late = await add.options(task_id="late", countdown=0.5).delay(1, 2)
        chooser = await first_of.options(task_id="chooser").delay(["circle", "late"])
        in_cycle = await waits_for.options(task_id="circle").delay("chooser")
        await until(lambda: slots_of(worker).released == 1, "the job to wait")
        gate.set()
        assert await chooser.get(timeout=30) == ["late"]
        assert await in_cycle.get(timeout=30) == ["late"]
        assert await late.get(timeout=30) == 3
        with pytest.raises(WouldDeadlock):
            await first_of.options(task_id="again", wait=30).call(["again"])


@pytest.mark.one_shard
async def test_the_record_of_a_wait_is_removed_however_the_wait_ends(app, add):
    notes: list[int] = []

    @app.task(name="tries")
    async def tries(ids: list[str]) -> None:
        handles = [app.AsyncResult(id_) for id_ in ids]
        with allowed():
            for attempt in range(2):
                waiting = asyncio.create_task(app.ResultSet(handles).get(timeout=1.0))
                notes.append(await until(lambda: _notes(app), "the wait to be recorded"))
                if attempt:
                    waiting.cancel()
                with pytest.raises(asyncio.CancelledError if attempt else ResultTimeout):
                    await waiting
                await until(lambda: _are(app, 0), "the recorded wait to be removed")

    results = await add.options(countdown=3600).map([(1, 2)] * 1000)
    async with Worker(app, concurrency=1):
        await tries.options(wait=60).call([result.id for result in results])
    assert notes == [1000, 1000]
    await results.revoke()


@pytest.mark.one_shard
async def test_a_wait_that_ends_keeps_the_record_of_another_wait_for_the_same_job(app):
    output: list[object] = []

    @app.task(name="asks")
    async def asks(id: str) -> None:
        with allowed(), pytest.raises(WouldDeadlock) as caught:
            await app.AsyncResult(id).get()
        output.append(caught.value)

    @app.task(name="waits")
    async def waits(id: str) -> None:
        with allowed():
            other = await asks.options(countdown=3600, task_id=id).delay(asyncq.current().id)
            long = asyncio.create_task(other.get())
            await until(lambda: _are(app, 1), "the first wait to be recorded")
            with pytest.raises(ResultTimeout):
                await other.get(timeout=0.05)
            await until(lambda: _are(app, 1), "the record of the second wait to be removed")
            long.cancel()
            with pytest.raises(asyncio.CancelledError):
                await long
            await until(lambda: _are(app, 0), "the last recorded wait to be removed")
            await other.revoke()

    async with Worker(app):
        await waits.options(wait=30).call("other")


async def _notes(app: AsyncQ) -> int:
    async with servers.async_client(app.settings.url) as client:
        return sum([await client.scard(key) async for key in _keys(app, "b:")])


async def _are(app: AsyncQ, notes: int) -> bool:
    return await _notes(app) == notes


@pytest.mark.one_shard
async def test_recorded_waits_of_an_attempt_whose_worker_died_are_ignored(
    app, server_url, namespace, tmp_path
):
    """The job runs again and waits for no job. The job that it waited for at first may now wait for it."""
    tasks = register(app)
    log, gate = tmp_path / "log", tmp_path / "gate"
    with worker_process(server_url, namespace, concurrency=1, queues=["default"]) as doomed:
        second = await tasks.waits_at_first.options(task_id="second", queue="later").delay(
            str(log), "second", "first", str(gate)
        )
        first = await tasks.waits_at_first.options(task_id="first").delay(
            str(log), "first", "second", str(gate)
        )
        await until(lambda: _notes(app), "the wait to be recorded")
        doomed.kill()
    with worker_process(server_url, namespace, queues=["default"]):
        await until(lambda: "start first 2" in lines(log), "the job to run again", timeout=20)
        with worker_process(server_url, namespace, queues=["later"]):
            await until(
                lambda: _are(app, 2), "the other job to wait, beside the recorded wait of the first attempt"
            )
            gate.touch()
            assert [await first.get(timeout=30), await second.get(timeout=30)] == ["first", "first"]
    assert await _notes(app) == 1, "it is kept for a day"


async def test_a_job_may_wait_though_the_server_does_not_answer_the_deadlock_guard(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(deadlock, "CYCLE_CHECK_TIMEOUT", 0.2)
    monkeypatch.setattr(deadlock, "_has_warned", False)
    started, go = asyncio.Event(), asyncio.Event()
    with own_server(tmp_path) as server:
        async with AsyncQ(server.url, operation_timeout=10, lease=5) as app:

            @app.task(name="child")
            async def child() -> int:
                return 1

            @app.task(name="parent")
            async def parent() -> int:
                handles = [await child.delay(), await child.delay()]
                started.set()
                await go.wait()
                with allowed():
                    return sum([await handle.get() for handle in handles])

            async with Worker(app, concurrency=1):
                result = await parent.delay()
                await started.wait()
                with server.hanging():
                    go.set()
                    await until(
                        lambda: "cannot check waits between jobs" in caplog.text,
                        "the job to wait without the check",
                    )
                assert await result.get(timeout=30) == 2
    assert caplog.text.count("cannot check waits between jobs") == 1
