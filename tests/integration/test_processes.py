"""Tasks with `executor="process"`: which data crosses, what ends them, and what their deaths do to other
jobs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import process_bodies
from helpers.figures import report
from helpers.notes import lines
from helpers.processes import is_gone
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

from asyncq import (
    PayloadTooLarge,
    RemoteTraceback,
    SoftTimeLimitExceeded,
    TaskExpired,
    TaskRevoked,
    TimeLimitExceeded,
    Worker,
    WorkerLost,
)
from asyncq.worker.processes import frames
from asyncq.worker.processes.child import Child, _JobControl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import SimpleNamespace

    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio

SIGNALS = ["SIGINT", "SIGTERM", "SIGKILL"]


@pytest.fixture
async def app(make_app) -> AsyncIterator[AsyncQ]:
    async with make_app(processes=2) as app:
        yield app


@pytest.fixture
def tasks(app) -> SimpleNamespace:
    return process_bodies.register(app)


@pytest.fixture
def log(tmp_path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
async def worker(app, tasks) -> AsyncIterator[Worker]:
    async with Worker(app) as worker:
        yield worker


async def started(path: str) -> int:
    """Waits until a body has noted that it started. Returns the number that it noted."""
    output = await until(lambda: lines(Path(path)), "the body to start")
    return int(output[0].split()[-1])


def text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


# -- what crosses ----------------------------------------------------------------------------------


async def _the_body_runs_in_another_process(tasks, worker, log):
    assert await tasks.pid.call() != os.getpid()


async def _values_cross_in_both_directions(tasks, worker, log):
    assert await tasks.double.call([1, 2, 3]) == [2, 4, 6]


async def _a_failure_keeps_notes_cause_and_traceback(tasks, worker, log):
    with pytest.raises(ValueError) as caught:
        await tasks.fail.call("no")
    assert caught.value.args == ("no", 7)
    assert caught.value.__notes__ == ["a note"]
    remote = caught.value.__cause__
    assert isinstance(remote, RemoteTraceback)
    assert 'process_bodies.py", line' in remote.traceback
    assert "asyncq/worker" not in remote.traceback
    assert isinstance(remote.__cause__, KeyError)


async def _the_job_context_is_the_same_as_on_the_loop(tasks, worker, log):
    result = await tasks.about_me.options(headers={"a": 1}, deadline=100).delay(1, named="x")
    there = await result.get(timeout=30)
    deadline = there.pop("deadline")
    assert 90 < deadline / 1000 - time.time() <= 100
    assert there == {
        "id": result.id,
        "name": "about_me",
        "args": [1],
        "kwargs": {"named": "x"},
        "queue": "default",
        "attempt": 1,
        "root": result.id,
        "headers": {"a": 1},
        "worker": worker.name,
        "guarded": True,
        "on the main thread": True,
        "extra": 1,
        "named": "x",
    }


async def _several_calls_run_in_one_process(tasks, worker, log):
    first, second = await tasks.remember.starmap([(1,), (2,)]).call()
    assert (first, second) == ([1, 2], [1, 2])  # the list is in one process


async def _a_process_runs_one_job_after_the_other(tasks, worker, log):
    assert await tasks.remember.call(3) == [1, 2, 3]
    assert await tasks.remember.call(4) == [1, 2, 3, 4]


async def _a_body_reports_progress_and_sees_that_it_is_revoked(tasks, worker, log):
    result = await tasks.until_cancelled.delay()
    await until_state(result, "PROGRESS")
    assert result.info == {"done": 1, "total": 2, "message": "half"}
    await result.revoke()
    assert await result.get(timeout=30) == "cancelled"


async def _reports_have_the_size_limit_of_results(tasks, worker, log):
    with pytest.raises(PayloadTooLarge):
        await tasks.says_too_much.call()


async def _a_body_that_exits_fails_and_keeps_its_process(tasks, worker, log):
    pid = await tasks.pid.call()
    with pytest.raises(Exception, match="SystemExit"):
        await tasks.quit_politely.call()
    assert await tasks.pid.call() == pid


async def _the_soft_limit_is_raised_inside_the_body(tasks, worker, log):
    assert "soft_timeout of 0.3 s" in await tasks.soft.call(log)


async def _an_alarm_just_before_a_blocking_call_is_sent_again(tasks, worker, log):
    assert "soft_timeout of 0.3 s" in await tasks.loses_an_alarm.call()


async def _without_terminate_a_running_process_goes_on(tasks, worker, log):
    result = await tasks.sleep.delay(log, "long", 0.3)
    pid = await started(log)
    assert await result.revoke() == "STARTED"
    assert await result.get(timeout=30) == pid


SHARE_ONE_PROCESS = [
    _the_body_runs_in_another_process,
    _values_cross_in_both_directions,
    _a_failure_keeps_notes_cause_and_traceback,
    _the_job_context_is_the_same_as_on_the_loop,
    _several_calls_run_in_one_process,
    _a_process_runs_one_job_after_the_other,
    _a_body_reports_progress_and_sees_that_it_is_revoked,
    _reports_have_the_size_limit_of_results,
    _a_body_that_exits_fails_and_keeps_its_process,
    _the_soft_limit_is_raised_inside_the_body,
    _an_alarm_just_before_a_blocking_call_is_sent_again,
    _without_terminate_a_running_process_goes_on,
]


async def test_bodies_that_do_not_end_their_process_run_in_one_process(tasks, worker, log):
    """All cases use one process, because the start of a process takes half a second of a core."""
    for check in SHARE_ONE_PROCESS:
        await check(tasks, worker, f"{log}.{check.__name__}")


async def test_no_more_processes_run_jobs_at_the_same_time_than_configured(tasks, worker, log):
    most = 0
    for seconds in (0.2, 1, 5):  # on a busy machine, the first may end before the second starts
        results = [await tasks.sleep.delay(log, f"{seconds} {number}", seconds) for number in range(4)]
        pids = {await result.get(timeout=60) for result in results}
        assert len(pids) <= 2
        running = 0
        for line in lines(Path(log)):
            running += 1 if line.startswith("start") else -1
            most = max(most, running)
        if most == len(pids) == 2:
            return
        assert most <= 2
    pytest.fail("no two jobs ran at the same time")


async def test_a_body_whose_job_was_taken_over_learns_it_after_a_report(app, tasks, worker, log, raw):
    result = await tasks.reports_until_cancelled.delay(log)
    await until(lambda: text(log), "the body to report")
    await raw.delete(app.sessions.shards.of(result.id).records + result.id)
    await until(lambda: text(log).endswith("cancelled\n"), "the body to see that it has lost its job")


# -- deaths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "how"),
    [
        pytest.param("leave", (0,), "exit code 0", marks=pytest.mark.trial),
        pytest.param("leave", (7,), "exit code 7", marks=pytest.mark.trial),
        ("crash", (), "SIGSEGV"),
    ],
)
async def test_the_death_of_a_process_affects_only_its_own_job(tasks, worker, log, name, args, how):
    beside = await tasks.sleep.delay(log, "beside", 0.5)
    with pytest.raises(WorkerLost, match=how):
        await getattr(tasks, name).call(*args)
    assert await beside.get(timeout=30)
    assert await tasks.double.call([1]) == [2]


async def test_a_job_whose_process_is_killed_from_outside_is_lost(tasks, worker, log):
    result = await tasks.sleep.delay(log, "victim")
    os.kill(await started(log), signal.SIGKILL)
    with pytest.raises(WorkerLost, match="SIGKILL"):
        await result.get(timeout=30)


async def test_no_job_is_lost_when_an_idle_process_is_killed(tasks, worker):
    pid = await tasks.pid.call()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: is_gone(pid), "the process to end")
    assert await tasks.pid.call() != pid


async def test_a_job_is_retried_if_its_policy_covers_the_death_of_its_process(tasks, worker, log):
    assert await tasks.fails_once.call(log) == 2


# -- time limits -----------------------------------------------------------------------------------


async def test_a_process_is_killed_at_its_time_limit(tasks, worker, log):
    result = await tasks.sleep.options(timeout=0.3).delay(log, "long")
    pid = await started(log)
    with pytest.raises(TimeLimitExceeded):
        await result.get(timeout=30)
    await until(lambda: is_gone(pid), "the process to end")


async def test_a_process_is_killed_at_the_deadline_of_its_job(tasks, worker, log):
    await tasks.pid.call()
    with pytest.raises(TimeLimitExceeded, match="before its deadline"):
        await tasks.sleep.options(deadline=0.5).call(log, "long")


async def test_a_job_that_waits_for_a_process_ends_at_its_deadline(tasks, worker, log):
    busy = [await tasks.sleep.delay(log, "busy") for _ in range(2)]
    await until(lambda: text(log).count("start") == 2, "both jobs to run")
    stopwatch = Stopwatch()
    with pytest.raises(TaskExpired):
        await tasks.sleep.options(deadline=0.3).call(log, "waits")
    assert stopwatch.took < 5, "it does not wait for the others"
    for result in busy:
        await result.revoke(terminate=True, wait=True, timeout=30)
    assert "waits" not in text(log)


async def test_a_job_fails_if_its_body_does_not_catch_the_soft_limit(app, worker, log):
    napper = app.task(name="napper", executor="process", soft_timeout=0.2)(process_bodies.sleep)
    with pytest.raises(SoftTimeLimitExceeded):
        await napper.call(log, "long")


# -- revocation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param("SIGINT", marks=pytest.mark.trial), "SIGTERM", "SIGKILL"])
async def test_a_terminated_process_ends_and_the_worker_goes_on(tasks, worker, log, name):
    result = await tasks.sleep.delay(log, "long")
    pid = await started(log)
    assert await result.revoke(terminate=True, signal=name, wait=True, timeout=30) == "REVOKED"
    with pytest.raises(TaskRevoked):
        await result.get(timeout=1)
    await until(lambda: is_gone(pid), "the process to end")
    assert "end" not in text(log)
    assert await tasks.double.call([1]) == [2]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
async def test_a_terminated_body_may_clean_up_and_its_value_is_dropped(tasks, worker, log, name):
    result = await tasks.clean_up.delay(log)
    await started(log)
    assert await result.revoke(terminate=True, signal=name, wait=True, timeout=30) == "REVOKED"
    expected = ["interrupted"] * (name == "SIGINT") + ["cleaned up"]
    assert text(log).splitlines()[1:] == expected


async def test_a_signal_that_arrives_just_before_a_blocking_call_is_sent_again(tasks, worker, log):
    result = await tasks.loses_a_signal.delay(log)
    await started(log)
    assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"


async def test_a_body_that_does_not_end_gets_a_stronger_signal(tasks, worker, log):
    result = await tasks.ignore_signals.delay(log)
    await started(log)
    for name in ("SIGTERM", "SIGINT", "SIGTERM"):  # SIGINT is weaker than SIGTERM
        assert await result.revoke(terminate=True, signal=name) == "STARTED"
    await until(lambda: "SIGTERM" in text(log), "the signal to arrive")
    assert await result.revoke(terminate=True, signal="SIGKILL", wait=True, timeout=30) == "REVOKED"
    assert text(log).splitlines()[1:] == ["SIGTERM"]


async def test_sigkill_also_ends_the_processes_that_the_body_started(tasks, worker, log):
    result = await tasks.with_child.delay(log)
    pid = await started(log)
    await result.revoke(terminate=True, signal="SIGKILL", wait=True, timeout=30)
    await until(lambda: is_gone(pid), "the end of the process that the body started")


async def test_a_signal_from_another_source_does_not_end_the_job(tasks, worker, log):
    result = await tasks.sleep.delay(log, "long", 0.5)
    pid = await started(log)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert await result.get(timeout=30) == pid


async def test_a_revoked_job_that_waits_for_a_process_never_starts(make_app, log):
    async with make_app(processes=1) as app:
        tasks = process_bodies.register(app)
        async with Worker(app):
            first = await tasks.sleep.delay(log, "first")
            await started(log)
            second = await tasks.sleep.delay(log, "second")
            stopwatch = Stopwatch()
            assert await second.revoke(wait=True, timeout=30) == "REVOKED"
            assert stopwatch.took < 5, "it does not wait for the first"
            await first.revoke(terminate=True, wait=True, timeout=30)
            await tasks.pid.call()
    assert "second" not in text(log)


@pytest.mark.parametrize("signal", ["SIGHUP", "sigterm", "", 15])
async def test_an_unsupported_signal_is_refused_and_the_error_names_the_supported_ones(app, signal):
    with pytest.raises(ValueError, match="SIGINT, SIGTERM, SIGKILL"):
        await app.AsyncResult("x").revoke(terminate=True, signal=signal)


@pytest.mark.trial
async def test_the_waiter_of_a_killed_process_wakes_soon(tasks, worker, tmp_path):
    took = []
    for number in range(5):  # each needs a new process: half a second of CPU
        log = str(tmp_path / str(number))
        result = await tasks.sleep.delay(log, "long")
        waiter = asyncio.create_task(result.get(timeout=10, propagate=False))
        await started(log)
        stopwatch = Stopwatch()
        await result.revoke(terminate=True, signal="SIGKILL")
        assert isinstance(await waiter, TaskRevoked)
        took.append(float(stopwatch.took))
    report(
        f"kill: median {statistics.median(took) * 1000:.2f} ms (promise: 100), "
        f"worst {max(took) * 1000:.2f} ms"
    )
    assert statistics.median(took) < 0.5, "by push, not by the next heartbeat"


# -- the worker's own end --------------------------------------------------------------------------


async def test_a_stopping_worker_lets_processes_end_within_the_grace(app, tasks, log):
    async with Worker(app, grace=5):
        result = await tasks.sleep.delay(log, "long", 0.5)
        pid = await started(log)
    assert await result.get(timeout=1) == pid
    assert is_gone(pid)


@pytest.mark.parametrize("name", ["sleep", "ignore_signals"])
async def test_a_job_that_does_not_end_within_the_grace_is_stopped_and_handed_back(app, tasks, log, name):
    stopwatch = Stopwatch()
    async with Worker(app, grace=0.3) as worker:
        args = (log, "long") if name == "sleep" else (log,)
        result = await getattr(tasks, name).delay(*args)
        pid = await started(log)
    assert is_gone(pid)
    assert worker.handed_back == 1
    assert await result.refresh() == "PENDING"
    assert stopwatch.took < 6


async def test_an_idle_process_ends_after_a_while(app, tasks, worker, monkeypatch):
    monkeypatch.setattr("asyncq.worker.processes.pool.IDLE", 0.05)
    pid = await tasks.pid.call()
    await until(lambda: is_gone(pid), "the process to end")


# -- registration ----------------------------------------------------------------------------------


async def test_an_executor_is_refused_for_a_coroutine_function(app):
    with pytest.raises(TypeError, match="async function"):

        @app.task(executor="process")
        async def never() -> None: ...


async def test_an_unknown_executor_is_refused(app):
    with pytest.raises(ValueError, match='use "thread" or "process"'):
        app.task(executor="loop")(process_bodies.pid)


async def test_a_worker_does_not_start_with_a_process_task_that_cannot_be_imported(app):
    @app.task(executor="process")
    def hidden() -> None: ...

    with pytest.raises(ValueError, match="inside another function"):
        async with Worker(app):
            pass


async def test_the_default_of_a_plain_function_is_a_thread(app):
    assert app.task(process_bodies.pid).executor == "thread"


@pytest.mark.trial
async def test_the_cost_of_a_job_in_a_process_is_bounded(tasks, worker):
    await tasks.double.call([1])
    start = time.perf_counter()
    for _ in range(200):
        await tasks.double.call([1])
    one = (time.perf_counter() - start) / 200
    start = time.perf_counter()
    await (await tasks.double.map([([1],)] * 500)).get(timeout=30)
    report(f"a job in a process: {one * 1e6:.0f} us one by one, {500 / (time.perf_counter() - start):.0f}/s")


async def test_a_wait_that_is_cancelled_at_its_start_reacquires_the_slot():
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)  # the data here is too short to block
    with ours, theirs:
        child = Child(theirs)
        leaving = asyncio.create_task(_JobControl(child).release_slot(None))
        await asyncio.sleep(0)
        asked = []

        def receive(answer: bool) -> None:
            frame = frames.unpack(ours.recv(1000)[frames.LENGTH :])
            asked.append(frame[2])
            if answer:
                child._answer(frame[1], None)

        receive(answer=False)
        leaving.cancel()
        await asyncio.sleep(0)
        assert not leaving.done(), "whether the worker counts the wait is not known yet"
        child._answer(0, None)
        await until(lambda: child._answers, "the next question")
        receive(answer=True)
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert asked == ["release slot", "reacquire slot"]
