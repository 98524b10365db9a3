"""Bodies of tasks that run in processes: they sleep, crash, ignore signals, wait for other jobs.

`register` makes tasks of them. The functions are at module level, for child processes import them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import asyncq
from asyncq import AsyncQ, Retry, SoftTimeLimitExceeded, WorkerLost, WouldDeadlock
from asyncq.client import sessions
from asyncq.client.deadlock import check_join
from helpers.notes import note

seen: list[int] = []


def nested(depth: int) -> int:
    """Starts a job below this one, `depth` times. Returns the number of jobs from here down."""
    if not depth:
        return 1
    task = sessions.the_only_app().task_named(asyncq.current().name)
    with asyncq.allow_join_result():
        return 1 + task.delay_sync(depth - 1).get_sync(timeout=30)


def waits(id_: str) -> None:
    asyncq.AsyncResult(id_).get_sync(disable_sync_subtasks=False)


def wait_for_above() -> str:
    job = asyncq.current()
    try:
        asyncq.AsyncResult(job.parent_id or job.id).get_sync(timeout=30, disable_sync_subtasks=False)
    except WouldDeadlock as error:
        return str(error)
    return "waited"


def pid() -> int:
    return os.getpid()


def state() -> Any:
    return asyncq.current().state


def double(values: list[int]) -> list[int]:
    return [2 * value for value in values]


def fail(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as error:
        problem = ValueError(text, 7)
        problem.add_note("a note")
        raise problem from error


def leave(code: int) -> None:
    os._exit(code)


def crash() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(10)


def quit_politely() -> None:
    sys.exit(3)


def remember(value: int) -> list[int]:
    """Returns the values that this job and jobs before it left in the same process."""
    seen.append(value)
    return seen


def sleep(log: str, text: str, seconds: float = 60.0) -> int:
    note(log, f"start {text} {os.getpid()}")
    time.sleep(seconds)
    note(log, f"end {text}")
    return os.getpid()


def clean_up(log: str) -> str:
    try:
        note(log, f"start {os.getpid()}")  # inside: the signal may come right after it
        time.sleep(60)
    except KeyboardInterrupt:
        note(log, "interrupted")
    finally:
        note(log, "cleaned up")
    return "value"


def ignore_signals(log: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: note(log, signal.Signals(number).name))
    note(log, f"start {os.getpid()}")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)


def with_child(log: str) -> None:
    """Starts a process that would outlive the job."""
    import subprocess

    child = subprocess.Popen(["sleep", "60"])
    note(log, f"start {child.pid}")
    child.wait()


def hold(log: str, gate: str) -> None:
    """Runs until a file appears."""
    note(log, "begin")
    while not os.access(gate, os.F_OK):
        time.sleep(0.005)
    note(log, "end")


def soft(log: str) -> str:
    note(log, "start")
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded as error:
        return str(error)
    return "late"


def loses_a_signal(log: str) -> None:
    """Misses the first signal, as if it came just before `time.sleep` blocks."""
    send, sent = signal.pthread_kill, []

    def send_all_but_the_first(thread: int, number: int) -> None:
        sent.append(number)
        if len(sent) > 1:
            send(thread, number)

    signal.pthread_kill = send_all_but_the_first  # type: ignore[assignment]
    note(log, f"start {os.getpid()}")
    time.sleep(60)


def loses_an_alarm() -> str:
    """Misses the first alarm of its soft time limit."""
    handle = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: signal.signal(signal.SIGALRM, handle))
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded as error:
        return str(error)
    return "late"


def fails_once(log: str) -> int:
    note(log, f"attempt {asyncq.current().attempt}")
    if asyncq.current().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return asyncq.current().attempt


def about_me(extra: int, *, named: str) -> dict[str, Any]:
    job = asyncq.current()
    try:
        check_join("here")
        guarded = False
    except WouldDeadlock:
        guarded = True
    return {
        "id": job.id,
        "name": job.name,
        "args": list(job.args),
        "kwargs": job.kwargs,
        "queue": job.queue,
        "attempt": job.attempt,
        "root": job.root_id,
        "headers": dict(job.headers),
        "worker": job.worker,
        "deadline": job.deadline_ms,
        "guarded": guarded,
        "on the main thread": threading.current_thread() is threading.main_thread(),
        "extra": extra,
        "named": named,
    }


def until_cancelled() -> str:
    job = asyncq.current()
    job.progress_sync(1, 2, "half")
    while not job.cancelled:
        time.sleep(0.01)
    return "cancelled"


def reports_until_cancelled(log: str) -> None:
    job = asyncq.current()
    while not job.cancelled:
        note(log, "at it")
        job.progress_sync(1, 2)
    note(log, "cancelled")


def says_too_much() -> None:
    asyncq.current().update_state_sync("BIG", "x" * 2_000_000)


POLICY = Retry(max_retries=1, on=(WorkerLost,), backoff=0)
PLAIN = (
    pid,
    double,
    fail,
    leave,
    crash,
    quit_politely,
    remember,
    sleep,
    clean_up,
    ignore_signals,
    loses_a_signal,
    with_child,
    until_cancelled,
    reports_until_cancelled,
    says_too_much,
)


def register(app: AsyncQ) -> SimpleNamespace:
    """Registers the functions above as tasks of an app, under names without their module."""
    tasks = {
        function.__name__: app.task(name=function.__name__, executor="process")(function)
        for function in PLAIN
    }
    tasks["nested"] = app.task(name="nested", executor="process")(nested)
    tasks["waits"] = app.task(name="waits", executor="process")(waits)
    tasks["wait_for_above"] = app.task(name="wait_for_above", executor="process")(wait_for_above)
    tasks["about_me"] = app.task(name="about_me", executor="process")(about_me)
    tasks["soft"] = app.task(name="soft", executor="process", soft_timeout=0.3)(soft)
    tasks["loses_an_alarm"] = app.task(name="loses_an_alarm", executor="process", soft_timeout=0.3)(
        loses_an_alarm
    )
    tasks["fails_once"] = app.task(name="fails_once", executor="process", retry=POLICY)(fails_once)
    return SimpleNamespace(**tasks)


def headers() -> dict[str, Any]:
    return dict(asyncq.current().headers)
