"""The supervisor of worker processes: restarts, rollovers, steps of stopping, exit codes. The processes are
real ones, but they run no jobs, see `helpers.supervised_program`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from helpers.forked import TESTS
from helpers.notes import lines
from helpers.processes import is_gone
from helpers.stopwatch import Stopwatch
from helpers.waiting import until

from asyncq.worker import supervisor as supervision
from asyncq.worker.processes import supervised
from asyncq.worker.supervisor import KILL, Supervisor, WorkerStartError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


class Group:
    """Workers with a supervisor, which runs on the test's loop."""

    def __init__(self, folder: Path, count: int, grace: float) -> None:
        self.folder = folder
        names = [f"w-{number}" for number in range(1, count + 1)]
        setup = {"folder": str(folder), "grace": grace}
        self.supervisor = Supervisor("helpers.supervised_program", setup, names)
        self.ready_calls: list[dict[str, int]] = []
        self.task = asyncio.create_task(self.supervisor.run(self._on_ready))

    def _on_ready(self, children: list[Any]) -> None:
        self.ready_calls.append({child.name: child.pid for child in children})

    def set(self, file: str) -> None:
        (self.folder / file).touch()

    def unset(self, file: str) -> None:
        (self.folder / file).unlink()

    def pids(self, what: str, name: str) -> list[int]:
        """Returns the processes that have noted this, in this order."""
        notes = [line.split() for line in lines(self.folder / "log")]
        return [int(pid) for noted, noter, pid in notes if (noted, noter) == (what, name)]

    def order(self, *whats: str) -> list[str]:
        """Returns the notes about these things as `what name`, in the order of the log."""
        return [line.rpartition(" ")[0] for line in lines(self.folder / "log") if line.split()[0] in whats]

    async def until_ready(self) -> Group:
        await until(lambda: self.ready_calls or self.task.done(), "all workers to be ready")
        return self

    async def until_count(self, count: int, what: str, name: str) -> int:
        """Waits until so many processes have noted this, and returns the last of them."""
        found: list[int] = await until(
            lambda: (pids := self.pids(what, name))[count - 1 :] and pids, f"{count} of {what!r} by {name}"
        )
        return found[-1]

    async def code(self) -> int:
        return await asyncio.wait_for(self.task, 30)


@pytest.fixture
async def group(tmp_path, monkeypatch):
    """Starts workers with a supervisor."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    groups = []

    def start(count: int = 2, grace: float = 5.0) -> Group:
        groups.append(Group(tmp_path, count, grace))
        return groups[-1]

    yield start
    for each in groups:
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)


def messages(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == level]


async def test_all_workers_are_ready_once_and_end_with_exit_code_0_when_they_are_asked_to_stop(group):
    workers = await group(3).until_ready()
    assert [list(each) for each in workers.ready_calls] == [["w-1", "w-2", "w-3"]]
    workers.supervisor.stop()
    assert await workers.code() == 0
    assert sorted(workers.order("step-1", "end")) == sorted(
        f"{what} w-{number}" for what in ("step-1", "end") for number in (1, 2, 3)
    )


async def test_a_worker_that_dies_is_restarted_after_pauses_that_double(group, caplog):
    workers = await group().until_ready()
    for death in (1, 2, 3):
        os.kill(await workers.until_count(death, "ready", "w-1"), signal.SIGKILL)
    await workers.until_count(4, "ready", "w-1")
    pids = workers.pids("start", "w-1")
    assert len(set(pids)) == 4
    assert messages(caplog, "WARNING") == [
        f"worker 'w-1' (pid {pid}) has ended: SIGKILL; it is restarted in {pause} s"
        for pid, pause in zip(pids[:3], (0.1, 0.2, 0.4), strict=True)
    ]
    assert len(workers.pids("start", "w-2")) == 1, "the other one goes on"
    workers.supervisor.stop()
    assert await workers.code() == 0, "deaths before the stop do not count"


async def test_a_worker_that_has_run_for_long_is_restarted_after_the_first_pause(group, caplog, monkeypatch):
    monkeypatch.setattr(supervision, "STABLE_AFTER", 0.0)
    workers = await group(1).until_ready()
    for death in (1, 2, 3):
        os.kill(await workers.until_count(death, "ready", "w-1"), signal.SIGKILL)
    await workers.until_count(4, "ready", "w-1")
    assert [text.rpartition(" in ")[2] for text in messages(caplog, "WARNING")] == ["0.1 s"] * 3


async def test_the_pause_grows_to_a_limit(group, caplog, monkeypatch):
    monkeypatch.setattr(supervision, "LONGEST_PAUSE", 0.2)
    workers = await group(1).until_ready()
    for death in (1, 2, 3):
        os.kill(await workers.until_count(death, "ready", "w-1"), signal.SIGKILL)
    await workers.until_count(4, "ready", "w-1")
    assert messages(caplog, "WARNING")[-1].endswith("it is restarted in 0.2 s")


async def test_a_worker_that_ends_by_itself_with_exit_code_0_is_restarted(group, caplog):
    workers = await group(1).until_ready()
    os.kill(await workers.until_count(1, "ready", "w-1"), signal.SIGTERM)
    await workers.until_count(2, "ready", "w-1")
    assert "exit code 0; it is restarted in" in messages(caplog, "WARNING")[0]


async def test_a_first_start_that_fails_ends_all_workers_with_its_error(group):
    workers = group(2)
    workers.set("broken-w-2")
    with pytest.raises(WorkerStartError) as caught:
        await workers.code()
    assert (caught.value.args[0], caught.value.hint, caught.value.code) == ("it is broken", "mend it", 78)
    assert (len(workers.pids("start", "w-1")), len(workers.pids("start", "w-2"))) == (1, 1), "no restart"
    assert not workers.ready_calls
    assert all(map(is_gone, workers.pids("start", "w-1")))


async def test_a_worker_that_dies_at_its_first_start_is_not_restarted(group):
    workers = group(1)
    workers.set("crashes")
    with pytest.raises(WorkerStartError, match=r"'w-1' ended while it started: SIGSEGV") as caught:
        await workers.code()
    assert caught.value.code == 128 + signal.SIGSEGV
    assert len(workers.pids("start", "w-1")) == 1


async def test_a_process_that_cannot_be_made_is_a_start_error(tmp_path):
    missing = Supervisor("helpers.supervised_program", {}, ["w-1"], str(tmp_path / "missing"))
    with pytest.raises(WorkerStartError, match=r"no process could be started for 'w-1': .*missing"):
        await missing.run(lambda _: None)


async def test_a_restart_that_fails_is_logged_and_tried_again(group, caplog):
    workers = await group(1).until_ready()
    workers.set("broken")
    os.kill(await workers.until_count(1, "ready", "w-1"), signal.SIGKILL)
    await until(lambda: messages(caplog, "ERROR"), "the failure to be logged")
    workers.unset("broken")
    assert messages(caplog, "ERROR")[0] == (
        "worker 'w-1' could not be started: it is broken (mend it); trying again in 0.2 s"
    )
    await workers.until_count(2, "ready", "w-1")


async def test_a_rollover_replaces_one_worker_after_the_other_and_never_has_fewer(group, caplog):
    caplog.set_level("INFO")
    workers = await group(2).until_ready()
    workers.supervisor.roll_over()
    await until(lambda: "rolled over 2 workers" in caplog.messages, "the end of the rollover")
    for name in ("w-1", "w-2"):
        await workers.until_count(2, "ready", name)
    assert workers.order("start", "step-1", "end")[2:] == [
        *("start w-1", "step-1 w-1", "end w-1"),
        *("start w-2", "step-1 w-2", "end w-2"),
    ]
    for name in ("w-1", "w-2"):
        old, new = workers.pids("ready", name)
        assert workers.pids("end", name) == [old]
        assert f"worker {name!r} runs in process {new} now; process {old} drains" in caplog.messages
    assert not messages(caplog, "WARNING")


async def test_rollovers_that_are_asked_for_during_a_rollover_become_one(group, caplog):
    caplog.set_level("INFO")
    workers = await group(2).until_ready()
    workers.supervisor.roll_over()
    await workers.until_count(2, "start", "w-1")
    for _ in range(3):
        workers.supervisor.roll_over()
    await until(lambda: caplog.messages.count("rolled over 2 workers") == 2, "two rollovers")
    workers.supervisor.stop()
    assert await workers.code() == 0
    assert len(workers.pids("start", "w-2")) == 3


async def test_a_rollover_whose_worker_cannot_start_leaves_the_old_ones_running(group, caplog):
    caplog.set_level("INFO")
    workers = await group(2).until_ready()
    workers.set("broken-w-2")
    workers.supervisor.roll_over()
    await until(lambda: messages(caplog, "ERROR"), "the failure to be logged")
    (error,) = messages(caplog, "ERROR")
    assert error == (
        "the rollover ends, and the workers go on as they are, because a new worker 'w-2' could not start: "
        "it is broken (mend it)"
    )
    assert (len(workers.pids("end", "w-1")), len(workers.pids("end", "w-2"))) == (1, 0)
    workers.unset("broken-w-2")
    workers.supervisor.roll_over()
    await until(lambda: "rolled over 2 workers" in caplog.messages, "the next rollover")
    workers.supervisor.stop()
    assert await workers.code() == 0


async def test_a_stop_during_a_rollover_ends_old_and_new_workers(group, caplog):
    workers = await group(2).until_ready()
    workers.set("slow")
    workers.supervisor.roll_over()
    await workers.until_count(2, "start", "w-1")
    workers.supervisor.stop()
    await workers.until_count(1, "end", "w-1")
    workers.unset("slow")
    assert await workers.code() == 0
    assert not messages(caplog, "ERROR")
    assert all(is_gone(pid) for name in ("w-1", "w-2") for pid in workers.pids("start", name))


async def test_a_worker_that_dies_while_its_replacement_starts_is_not_restarted_as_well(group, caplog):
    caplog.set_level("INFO")
    workers = await group(2).until_ready()
    workers.set("slow-w-1")
    workers.supervisor.roll_over()
    await workers.until_count(2, "start", "w-1")
    os.kill(workers.pids("start", "w-1")[0], signal.SIGKILL)
    await until(lambda: messages(caplog, "WARNING"), "the death to be noticed")
    keeper = workers.supervisor._keepers[0]
    await until(lambda: keeper._starting._waiters, "the restart to wait for the replacement")
    workers.unset("slow-w-1")
    await until(lambda: "rolled over 2 workers" in caplog.messages, "the rollover")
    assert len(workers.pids("start", "w-1")) == 2


async def test_a_rollover_does_not_wait_for_the_pause_before_a_restart(group, caplog, monkeypatch):
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 60.0)
    caplog.set_level("INFO")
    workers = await group(1).until_ready()
    os.kill(await workers.until_count(1, "ready", "w-1"), signal.SIGKILL)
    await until(lambda: messages(caplog, "WARNING"), "the death to be noticed")
    workers.supervisor.roll_over()
    await until(lambda: "rolled over 1 workers" in caplog.messages, "the rollover")
    workers.supervisor.stop()
    assert await workers.code() == 0


async def test_the_second_stop_hands_back_and_the_exit_code_is_the_highest(group):
    workers = await group(2).until_ready()
    workers.set("busy-w-1")
    workers.supervisor.stop()
    await workers.until_count(1, "end", "w-2")
    assert not workers.pids("end", "w-1")
    workers.supervisor.stop()
    assert await workers.code() == 75
    assert workers.order("step-2") == ["step-2 w-1"]


async def test_a_worker_that_a_signal_ends_during_the_stop_counts_as_128_and_its_number(group):
    workers = await group(2).until_ready()
    workers.set("busy-w-1")
    workers.supervisor.stop()
    os.kill(await workers.until_count(1, "step-1", "w-1"), signal.SIGKILL)
    assert await workers.code() == 128 + signal.SIGKILL


async def test_a_third_stop_kills_the_workers(group):
    workers = await group(2, grace=60.0).until_ready()
    workers.set("deaf")
    stopwatch = Stopwatch()
    for _ in range(4):
        workers.supervisor.stop()
    await workers.code()
    assert workers.supervisor.step == KILL
    assert stopwatch.took < 2


async def test_a_worker_that_does_not_end_within_its_grace_and_some_seconds_is_killed(
    group, caplog, monkeypatch
):
    monkeypatch.setattr(supervised, "END_TIMEOUT", 0.2)
    workers = await group(2, grace=0.1).until_ready()
    workers.set("deaf-w-1")
    workers.supervisor.roll_over()
    await workers.until_count(2, "ready", "w-2")
    (pid,) = workers.pids("step-1", "w-1")
    (error,) = messages(caplog, "ERROR")
    assert error == (
        f"worker 'w-1' (pid {pid}) does not end and is killed; its jobs run elsewhere when the lease is over"
    )


async def test_a_supervisor_that_is_cancelled_kills_its_workers(group):
    workers = await group(2).until_ready()
    workers.set("deaf")
    workers.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await workers.task
    assert all(is_gone(pid) for name in ("w-1", "w-2") for pid in workers.pids("start", name))
