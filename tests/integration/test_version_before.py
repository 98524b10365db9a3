"""Workers and clients of the version before, beside those of this one, on one namespace. Real processes.

The version before is the newest tag before this commit; as long as there is none, a commit that is named
here. Its package is taken from git, and runs with the libraries of this environment.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "helpers" / "version_jobs.py"
UNTAGGED = "926de45014c2b56122d61b609b2b0a0516cc70ce"
"""Stands for the version before as long as there is no tag: it has no schedules and no history."""

pytestmark = pytest.mark.trial

SEEN = {
    "plain": 5,
    "many": 2450,
    "by id": "ABC",
    "delayed": 9,
    "failed": ["ValueError", "no luck"],
    "retried": 3,
    "child": 2,
    "priority": 13,
    "key": [True, 3],
    "chain": 10,
    "group": [0, 2, 4, 6, 8],
    "chord": 10,
    "broken chain": ["ValueError", "first"],
    "running": "TaskRevoked",
    "later": "TaskRevoked",
    "items": [*range(30)],
    "states": ["PROGRESS", "SUCCESS"],
    "end": "arrived",
}


def _git(*words: str) -> bytes | None:
    """Returns the output of a git command; None if it fails, as without history."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders from which the two versions of the package are imported."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed, so the version before cannot be had")
    tag = _git("describe", "--tags", "--abbrev=0", "HEAD^")
    commit = UNTAGGED if tag is None else tag.decode().strip()
    packed = _git("archive", "--format=tar", commit, "asyncq")
    if packed is None:
        pytest.skip(f"this clone has no history: git does not know {commit}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return {"before": folder, "now": ROOT}


class Fleet:
    """Starts programs of both versions, and ends them."""

    def __init__(self, versions: dict[str, Path], url: str, namespace: str, folder: Path) -> None:
        self._versions = versions
        self._folder = folder
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")},
            "ASYNCQ_URL": url,
            "ASYNCQ_NAMESPACE": namespace,
            "ASYNCQ_LEASE": "2",
            "FOLDER": str(folder),
        }
        self._running: list[subprocess.Popen[str]] = []

    def start(self, version: str, role: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), role],
            cwd=self._folder,
            env={**self._environ, "PYTHONPATH": str(self._versions[version])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def worker(self, version: str) -> subprocess.Popen[str]:
        """Starts a worker, and returns it when it reads jobs."""
        process = self.start(version, "worker")
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        self._check(version, json.loads(line))
        return process

    def answer(self, version: str, client: subprocess.Popen[str]) -> Any:
        """Returns what a client has seen, at its end."""
        output, errors = client.communicate(timeout=120)
        assert client.returncode == 0, errors
        answer = json.loads(output)
        self._check(version, answer)
        return answer["seen"]

    def _check(self, version: str, answer: dict[str, Any]) -> None:
        assert Path(answer["asyncq"]).is_relative_to(self._versions[version]), "another version runs"

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@contextmanager
def _closed(fleet: Fleet) -> Iterator[Fleet]:
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(versions, server_url, namespace, tmp_path) -> Iterator[Fleet]:
    with _closed(Fleet(versions, server_url, namespace, tmp_path)) as fleet:
        yield fleet


@pytest.mark.parametrize(
    ("workers", "client"),
    [
        (["before"], "now"),
        (["now"], "before"),
        (["before", "now"], "now"),
        (["before", "now"], "before"),
    ],
    ids=lambda names: names if isinstance(names, str) else "+".join(names),
)
def test_a_client_sees_the_same_whichever_version_runs_its_jobs(fleet, workers, client):
    for version in workers:
        fleet.worker(version)
    assert fleet.answer(client, fleet.start(client, "client")) == SEEN


@pytest.mark.parametrize(("first", "second"), [("before", "now"), ("now", "before")])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_job_of_a_worker_that_is_replaced_runs_on_the_other_version(fleet, tmp_path, first, second, end):
    leaving = fleet.worker(first)
    client = fleet.start(first, "sender")
    until_sync((tmp_path / "mark").exists, "the job to run")
    coming = fleet.worker(second)
    (tmp_path / "mark").unlink()
    leaving.send_signal(end)
    if end == signal.SIGTERM:
        leaving.send_signal(end)  # the second signal hands the job back
    until_sync((tmp_path / "mark").exists, "the job to run again")
    (tmp_path / "gate").touch()
    assert fleet.answer(first, client) == coming.pid
