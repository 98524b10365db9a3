"""Tasks in processes, in a program of its own: how a process finds them, and that it dies with its worker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
from helpers.notes import lines
from helpers.processes import is_gone
from helpers.waiting import until

HELPERS = Path(helpers.__file__).parent


def environment(url: str, namespace: str) -> dict[str, str]:
    return {
        **os.environ,
        "ASYNCQ_PROCESSES": "1",
        "ASYNCQ_URL": url,
        "ASYNCQ_NAMESPACE": namespace,
        "ASYNCQ_LEASE": "2",
        "PYTHONPATH": str(HELPERS.parent),
    }


@pytest.mark.parametrize(
    ("command", "target", "name"),
    [
        pytest.param(["first_script.py"], "-", "__asyncq_main__", id="a script"),
        pytest.param(["-m", "first_script"], "-", "first_script", id="a module", marks=pytest.mark.trial),
        pytest.param(
            ["first_script.py"], "first_script:app", "first_script", id="a target", marks=pytest.mark.trial
        ),
    ],
)
def test_a_script_runs_its_tasks_in_processes(server_url, namespace, tmp_path, command, target, name):
    log = tmp_path / "log"
    ran = subprocess.run(
        [sys.executable, *command, target, str(log)],
        cwd=HELPERS,
        env=environment(server_url, namespace),
        capture_output=True,
        timeout=170,
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
        "its error is ours": True,
        "replaced": 3,
        "died": "WorkerLost",
        "the dead names its children": lines(log),
    }


UNGUARDED = """
import asyncio
from pathlib import Path
from asyncq import AsyncQ, Worker

app = AsyncQ("memory://")
with open("runs", "a") as log:
    print("run", file=log)
assert len(Path("runs").read_text().split()) < 5, "processes that start processes"

@app.task(executor="process")
def add(x: int, y: int) -> int:
    return x + y

async def main() -> None:
    async with app, Worker(app):
        print(repr(await (await add.delay(1, 2)).get(timeout=30, propagate=False)))

asyncio.run(main())
"""


def test_a_script_that_starts_its_worker_on_import_gets_an_error_and_starts_no_process_twice(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    ran = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("WorkerLost(")
    assert 'under `if __name__ == "__main__":`' in ran.stdout
    assert len(lines(tmp_path / "runs")) == 2


@pytest.mark.anyio
async def test_a_process_dies_with_its_worker(server_url, namespace, tmp_path):
    log = tmp_path / "log"
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "first_script.py", "serve", str(log)),
        cwd=HELPERS,
        env=environment(server_url, namespace),
    )
    try:
        pid = int((await until(lambda: lines(log), "the body to start"))[0])
        assert not is_gone(pid)
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: is_gone(pid), "the process to end")
