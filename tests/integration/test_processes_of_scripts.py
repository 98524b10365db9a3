"""Tasks in processes, in a program of its own: how a process finds them, and that it dies with its worker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import lines, until
from test_processes import is_gone

HERE = Path(__file__).parent


def environment(url: str, namespace: str) -> dict[str, str]:
    return {
        **os.environ,
        "ASYNCQ_PROCESSES": "1",
        "ASYNCQ_URL": url,
        "ASYNCQ_NAMESPACE": namespace,
        "ASYNCQ_LEASE": "2",
    }


@pytest.mark.parametrize(
    ("command", "target", "name"),
    [
        (["script.py"], "-", "__asyncq_main__"),
        (["-m", "script"], "-", "script"),
        (["script.py"], "script:app", "script"),
    ],
    ids=["a script", "a module", "a target"],
)
def test_a_program_runs_its_tasks_in_processes(server_url, namespace, tmp_path, command, target, name):
    log = tmp_path / "log"
    ran = subprocess.run(
        [sys.executable, *command, target, str(log)],
        cwd=HERE,
        env=environment(server_url, namespace),
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    answers = json.loads(ran.stdout)
    assert answers == {
        "imported": f"imported as {name}",
        "names its children": True,
        "ran its child": 2,
        "nested": 3,
        "waited": 2,
        "its error is ours": name == "__asyncq_main__",
        "replaced": 3,
        "died": "WorkerLost",
        "the dead names its children": lines(log),
    }


@pytest.mark.anyio
async def test_a_process_dies_with_its_worker(server_url, namespace, tmp_path):
    log = tmp_path / "log"
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "script.py", "serve", str(log), cwd=HERE, env=environment(server_url, namespace)
    )
    try:
        pid = int((await until(lambda: lines(log), "the body to start"))[0])
        assert not is_gone(pid)
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: is_gone(pid), "the process to be gone", 5)
