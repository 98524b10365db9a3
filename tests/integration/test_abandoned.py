"""Waits and blocks that end jobs which nobody needs any more: `revoke_on_abandon` and scopes."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading

import pytest
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

import asyncq
from asyncq import ResultTimeout, Scope, TaskRevoked, Worker
from asyncq.client import session
from asyncq.sync_bridge import wait

pytestmark = pytest.mark.anyio


@pytest.fixture
def log():
    """What the jobs did."""
    return []


@pytest.fixture
def nap(app, log):
    @app.task(name="nap")
    async def nap(seconds: float, name: str = "nap") -> float:
        log.append(f"start {name}")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            log.append(f"cancelled {name}")
            raise
        log.append(f"end {name}")
        return seconds

    return nap


async def until_revoked(app, *ids: str) -> None:
    """Asks with new handles, which know only the ids."""
    for id_ in ids:
        await until_state(app.AsyncResult(id_), "REVOKED")


# -- revoke_on_abandon -----------------------------------------------------------------------------


async def test_a_wait_that_times_out_ends_a_running_job(app, nap, log):
    async with Worker(app):
        result = await nap.delay(60)
        with pytest.raises(ResultTimeout, match=r"within 0\.2 s, and is being revoked"):
            await result.get(timeout=0.2, revoke_on_abandon=True)
        with pytest.raises(TaskRevoked):
            await result.get(timeout=60)
        await until(lambda: log == ["start nap", "cancelled nap"], "the body to be cancelled")


async def test_a_wait_that_times_out_ends_a_queued_job_and_gives_the_reason(app, nap, log):
    result = await nap.delay(0)
    with pytest.raises(ResultTimeout):
        await result.wait(timeout=0.05, revoke_on_abandon=True)
    with pytest.raises(TaskRevoked, match="abandoned"):
        await result.get(timeout=60)
    assert log == []


async def _itself(waiting):
    return await waiting


async def _wait_for(waiting):
    return await asyncio.wait_for(waiting, 0.05)


async def _timeout(waiting):
    async with asyncio.timeout(0.05):
        return await waiting


@pytest.mark.parametrize("how", [_itself, _wait_for, _timeout])
async def test_a_wait_that_is_cancelled_ends_the_job(app, nap, how):
    result = await nap.delay(60)
    waiting = asyncio.create_task(how(result.get(revoke_on_abandon=True)))
    if how is _itself:
        await asyncio.sleep(0.05)
        waiting.cancel()
    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        await waiting
    await until_revoked(app, result.id)


async def test_other_waits_do_not_end_the_job(app, nap):
    async with Worker(app):
        result = await nap.delay(0.3)
        with pytest.raises(ResultTimeout):
            await result.get(timeout=0.05)
        assert await result.get(timeout=5, revoke_on_abandon=True) == 0.3


async def test_a_cancelled_wait_ends_at_once_though_the_server_does_not_answer(app, nap, raw):
    result = await nap.delay(60)
    task = asyncio.create_task(result.get(revoke_on_abandon=True))
    await asyncio.sleep(0.05)
    await raw.execute_command("CLIENT", "PAUSE", "800", "ALL")
    stopwatch = Stopwatch()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopwatch.took < 0.3
    await until_revoked(app, result.id)


async def test_closing_the_app_waits_for_the_revocation(make_app, app, nap):
    async with make_app() as other:
        result = await other.task_named("nap").delay(60)
        with pytest.raises(ResultTimeout):
            await result.get(timeout=0.01, revoke_on_abandon=True)
    assert await app.AsyncResult(result.id).refresh() == "REVOKED"


async def test_closing_the_app_does_not_wait_forever(make_app, nap, raw, monkeypatch, caplog):
    monkeypatch.setattr(session, "BACKGROUND_TIMEOUT", 0.1)
    async with make_app() as other:
        result = await other.task_named("nap").delay(60)
        await raw.execute_command("CLIENT", "PAUSE", "1500", "ALL")
        stopwatch = Stopwatch()
        with pytest.raises(ResultTimeout), caplog.at_level(logging.WARNING, "asyncq"):
            await result.get(timeout=0.01, revoke_on_abandon=True)
    assert stopwatch.took < 1.4
    assert "given up" in caplog.text
    await raw.ping()


async def test_a_wait_on_another_loop_that_times_out_ends_the_job(app, nap):
    first, second = await nap.delay(60), await nap.delay(60)

    def elsewhere() -> None:
        async def give_up() -> None:
            with pytest.raises(ResultTimeout):
                await first.get(timeout=0.05, revoke_on_abandon=True)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(second.get(revoke_on_abandon=True), 0.05)

        asyncio.run(give_up())

    await asyncio.to_thread(elsewhere)
    await until_revoked(app, first.id, second.id)


def test_a_blocking_wait_that_times_out_ends_the_job(make_app):
    app = make_app()
    with app:
        result = app.send_sync("nobody.knows")
        with pytest.raises(ResultTimeout):
            result.get_sync(timeout=0.05, revoke_on_abandon=True)
        with pytest.raises(TaskRevoked):
            result.get_sync(timeout=5)


INTERRUPTED = """
import sys
from asyncq import AsyncQ
app = AsyncQ(sys.argv[1], namespace=sys.argv[2])
with app:
    {block}
"""
WAITING = """
    result = app.send_sync("nobody.knows", task_id="mine")
    print("waiting", flush=True)
    result.get_sync(revoke_on_abandon=True)
"""
IN_SCOPE = """
    with app.scope():
        app.send_sync("nobody.knows", task_id="mine")
        print("waiting", flush=True)
        while True:
            pass
"""


@pytest.mark.parametrize("block", [WAITING, IN_SCOPE])
async def test_ctrl_c_in_blocking_code_ends_the_job(app, server_url, namespace, block):
    program = INTERRUPTED.format(block=block.strip())
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, server_url, namespace),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"waiting\n"
        await asyncio.sleep(0.1)  # time from the output to the wait
        child.send_signal(signal.SIGINT)
        _, output = await asyncio.wait_for(child.communicate(), 30)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert output.rstrip().endswith(b"KeyboardInterrupt")
    assert await app.AsyncResult("mine").refresh() == "REVOKED"


# -- scopes ----------------------------------------------------------------------------------------


async def test_a_scope_revokes_at_its_end_the_jobs_that_it_did_not_wait_for(app, nap, log):
    async with Worker(app):
        async with app.scope() as scope:
            assert isinstance(scope, Scope)
            seen = await nap.delay(0, "seen")
            running = await nap.delay(60, "running")
            await seen.get(timeout=30)
            await until_state(running, "STARTED")
            queued = await nap.options(queue="nobody").delay(0, "queued")
            delayed = await nap.options(countdown=60).delay(0, "delayed")
        assert await seen.get(timeout=1) == 0
        for result in (running, queued, delayed):
            with pytest.raises(TaskRevoked):
                await result.get(timeout=30)
        await until(lambda: "cancelled running" in log, "the running job to be cancelled")
    assert "start queued" not in log


async def test_a_job_enqueued_in_any_way_belongs_to_the_scope(app, nap):
    async with app.scope():
        handles = [
            await nap.delay(1),
            await nap.apply_async((1,)),
            await app.send("nap", (1,)),
            await nap.options(ignore_result=True).delay(1),
            await nap.options(key="k").delay(1),
            *(await nap.map([(1,), (2,)])),
            *(await app.submit([nap.s(1), nap.s(2)])),
        ]
        with pytest.raises(ResultTimeout):
            await nap.options(wait=0.01, task_id="called").call(1)
    await until_revoked(app, *(handle.id for handle in handles if not handle.ignored), "called")


async def test_jobs_of_dropped_handles_belong_to_the_scope_and_their_ends_are_noticed(app, nap, raw, log):
    async with Worker(app):
        async with app.scope():
            for n in range(20):
                await nap.delay(0, f"{n}")
            lost = (await nap.options(queue="nobody").delay(0)).id
            await until(lambda: len(log) == 40, "the jobs to run")
            await asyncio.sleep(0.1)
            before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        calls = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
    assert calls <= 4, "one revocation and its query; the worker may send a heartbeat meanwhile"
    await until_revoked(app, lost)


async def test_a_job_that_is_kept_runs_after_the_scope(app, nap):
    async with app.scope() as scope:
        kept = scope.keep(await nap.delay(0, "kept"))
        group = scope.keep(await nap.map([(0,), (0,)]))
        assert scope.keep(kept) is kept
        lost = await nap.delay(0)
    async with Worker(app):
        assert await kept.get(timeout=30) == 0
        assert await group.get(timeout=30) == [0, 0]
        with pytest.raises(TaskRevoked, match="scope"):
            await lost.get(timeout=30)


async def test_the_parents_of_a_kept_job_are_kept(app, nap):
    async with app.scope() as scope:
        first, second = await nap.delay(0), await nap.delay(0)
        second.parent = first
        scope.keep(second)
    assert [await result.refresh() for result in (first, second)] == ["PENDING", "PENDING"]
    await app.ResultSet([first, second]).revoke()


async def test_all_members_of_a_workflow_belong_to_the_scope(app, nap):
    async with app.scope() as scope:
        lost = await (nap.si(0) | asyncq.group(nap.si(0), nap.si(0)) | nap.si(0)).delay()
        kept = scope.keep(await (nap.si(0) | asyncq.group(nap.si(0), nap.si(0)) | nap.si(0)).delay())
    members = [lost, *lost.parent.results, lost.parent.parent]
    for member in members:
        with pytest.raises(TaskRevoked, match=rf"job {member.id} was revoked: the scope"):
            await member.get(timeout=30)
    async with Worker(app):
        assert await kept.get(timeout=30) == 0


async def test_a_refused_workflow_does_not_revoke_the_job_that_has_its_id(app, nap):
    theirs = await nap.options(task_id="mine").delay(0)
    async with app.scope():
        with pytest.raises(ValueError, match="'mine'"):
            await (nap.si(0) | nap.si(0).options(task_id="mine")).delay()
    assert await theirs.refresh() == "PENDING"
    await theirs.revoke()


async def test_a_scope_that_raises_revokes_its_jobs_and_raises_its_own_error(app, nap):
    results = []

    async def block() -> None:
        async with app.scope():
            results.append(await nap.delay(0))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()
    assert await results[0].refresh() == "REVOKED"


async def test_a_cancelled_scope_revokes_its_jobs_and_ends_without_delay(app, nap, raw):
    results = []

    async def block() -> None:
        async with app.scope():
            results.append(await nap.delay(60))
            await raw.execute_command("CLIENT", "PAUSE", "600", "ALL")
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await until(lambda: results, "the job to be enqueued")
    await asyncio.sleep(0.1)
    stopwatch = Stopwatch()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopwatch.took < 0.3
    await until_revoked(app, results[0].id)


async def test_a_scope_that_is_cancelled_at_its_end_still_revokes_its_jobs(app, nap, raw):
    results, at_its_end = [], asyncio.Event()

    async def block() -> None:
        async with app.scope():
            results.append(await nap.delay(60))
            await raw.execute_command("CLIENT", "PAUSE", "3000", "ALL")
            at_its_end.set()

    running = asyncio.create_task(block())
    await at_its_end.wait()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_revoked(app, results[0].id)


async def test_a_job_whose_enqueue_was_cancelled_in_the_scope_is_revoked(app, nap, raw):
    async with app.scope():
        sending = asyncio.create_task(nap.options(task_id="half").delay(0))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert await app.AsyncResult("half").refresh() in {"REVOKED", "UNKNOWN"}
    assert await raw.xlen(app.sessions.shards[0].stream("default")) == 0


async def test_scopes_nest_and_a_job_belongs_to_the_innermost(app, nap):
    async with app.scope():
        outer = await nap.delay(0)
        async with app.scope() as scope:
            inner, kept = await nap.delay(0), await nap.delay(0)
            scope.keep(kept)
        assert [await r.refresh() for r in (outer, inner, kept)] == ["PENDING", "REVOKED", "PENDING"]
        later = await nap.delay(0)
    assert [await r.refresh() for r in (outer, later, kept)] == ["REVOKED", "REVOKED", "PENDING"]
    outside = await nap.delay(0)
    await asyncio.sleep(0.05)
    assert await outside.refresh() == "PENDING"
    await app.ResultSet([kept, outside]).revoke()


async def test_a_scope_includes_asyncio_tasks_and_threads_that_it_starts(app, nap):
    async with app.scope():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(nap.delay(0))
        threaded = await asyncio.to_thread(lambda: nap.delay_sync(0))
    assert [await r.refresh() for r in (task.result(), threaded)] == ["REVOKED", "REVOKED"]


async def test_jobs_that_an_asyncio_task_enqueues_after_the_scope_do_not_belong_to_it(app, nap):
    go = asyncio.Event()

    async def later() -> asyncq.AsyncResult[float]:
        await go.wait()
        return await nap.delay(0)

    async with app.scope():
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
    go.set()
    result = await task
    assert await result.refresh() == "PENDING"
    await result.revoke()


async def test_jobs_of_another_app_belong_to_that_apps_scope(make_app, app, nap):
    async with make_app() as other:
        theirs = other.task_named("nap")
        async with app.scope():
            free = await theirs.delay(0)
            async with other.scope():
                mine, bound = await nap.delay(0), await theirs.delay(0)
            assert [await r.refresh() for r in (mine, bound, free)] == ["PENDING", "REVOKED", "PENDING"]
        assert [await r.refresh() for r in (mine, free)] == ["REVOKED", "PENDING"]
        await free.revoke()


async def test_a_scope_does_not_revoke_an_existing_job_that_a_key_found(app, nap):
    keyed = nap.options(key="k")
    theirs = await keyed.delay(0)
    async with app.scope():
        assert await keyed.delay(0) == theirs
        both = await asyncio.gather(*(nap.options(key="l").delay(0) for _ in range(3)))
        with pytest.raises(ValueError, match="other arguments"):
            await keyed.delay(1)
        with pytest.raises(ValueError, match="other arguments"):
            await nap.options(key="l").delay(1)
    assert await theirs.refresh() == "PENDING"
    assert await both[0].refresh() == "REVOKED"
    await theirs.revoke()


async def test_a_scope_does_not_revoke_the_job_that_has_a_refused_id(app, nap):
    theirs = await nap.options(task_id="mine").delay(0)
    async with app.scope():
        with pytest.raises(ValueError, match="exists already"):
            await nap.options(task_id="mine").delay(0)
        with pytest.raises(ValueError, match="exists already"):
            await app.submit([nap.options(task_id="mine").s(0), nap.options(task_id="mine").s(1)])
    assert await theirs.refresh() == "PENDING"
    await theirs.revoke()


async def test_a_scope_inside_a_task_revokes_the_jobs_that_the_task_did_not_wait_for(app, nap):
    @app.task
    async def first_of(count: int) -> list[str]:
        async with app.scope():
            return [(await nap.options(queue="nobody").delay(0)).id for _ in range(count)]

    async with Worker(app):
        ids = await first_of.call(3)
    assert {await app.AsyncResult(id_).refresh() for id_ in ids} == {"REVOKED"}


async def test_jobs_enqueued_by_a_worker_that_runs_in_the_scope_do_not_belong_to_it(app, nap):
    @app.task
    async def start() -> str:
        return (await nap.options(queue="nobody").delay(0)).id

    async with app.scope():
        async with Worker(app):
            id_ = await start.call()
        mine = await nap.delay(0)
    child = app.AsyncResult(id_)
    assert (await child.refresh(), await mine.refresh()) == ("PENDING", "REVOKED")
    await child.revoke()


async def test_a_scope_can_be_entered_only_once(app):
    scope = app.scope()
    async with scope:
        with pytest.raises(RuntimeError, match="before"):
            async with scope:
                pass
    with pytest.raises(RuntimeError, match="before"):
        async with scope:
            pass
    assert "closed" in repr(scope)


async def test_a_blocking_scope_on_a_running_loop_is_refused(app):
    with pytest.raises(asyncq.SyncInAsyncContext, match="async with"), app.scope():
        pass


async def test_a_scope_whose_server_does_not_answer_raises_its_own_error_or_else_the_timeout(make_app, raw):
    async with make_app(operation_timeout=0.5) as app:
        task = app.task_named("nap")

        async def block(error: Exception | None) -> None:
            async with app.scope():
                await task.delay(0)
                await raw.execute_command("CLIENT", "PAUSE", "1200", "ALL")
                if error is not None:
                    raise error

        with pytest.raises(asyncq.BrokerUnavailable):
            await block(None)
        await raw.ping()
        with pytest.raises(KeyError):
            await block(KeyError("mine"))
        await raw.ping()


@pytest.mark.one_shard
def test_blocking_code_can_use_scopes(make_app):
    app = make_app()
    with app:
        with app.scope() as scope:
            lost = app.send_sync("nobody.knows")
            kept = scope.keep(app.send_sync("nobody.knows"))
            threads = [threading.Thread(target=app.send_sync, args=("nobody.knows",)) for _ in range(2)]
            for thread in threads:
                thread.start()
                thread.join()
        assert [lost.refresh_sync(), kept.refresh_sync()] == ["REVOKED", "PENDING"]
        with pytest.raises(KeyError), app.scope():
            app.send_sync({}[app.send_sync("nobody.knows", task_id="other")])
        assert app.AsyncResult("other").refresh_sync() == "REVOKED"

        async def left() -> int:
            return await app.sessions.current().broker.commands.send(
                app.sessions.shards[0], "XLEN", app.sessions.shards[0].stream("default")
            )

        assert wait(app.sessions, app.sessions.run_on_app_loop(left())) == 3, (
            "a new thread has its own context"
        )
        kept.revoke_sync()


async def test_thousands_of_jobs_are_revoked_at_once(app, nap, raw):
    async with app.scope():
        await nap.map([(0,)] * 2000)
    assert await raw.xlen(app.sessions.shards[0].stream("default")) == 0
