"""Runs every example as a user would and compares what it prints with the `# Output:` block at its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pytest
from helpers.quiet import without_job_log, without_late_worker

from asyncq import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

    Started = dict[str, tuple[subprocess.Popen[str], Path]]

EXAMPLES = Path(__file__).parents[3] / "examples"
PARTS = {"tasks.py", "worker.py"}  # imported by the others, and print nothing
RUNNABLE = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in PARTS)
UNFIT = {"django_app.py"} if django.VERSION < (6,) else set()
"""Those that this version of Python cannot run."""


def _expected(source: str) -> str:
    _, _, block = source.partition("\n# Output:\n")
    return "".join(line.removeprefix("# ") for line in block.splitlines(keepends=True))


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Started]:
    """Starts all examples at once, because they mostly wait. Each has its own project and its own server."""
    quiet = without_job_log(tmp_path_factory.mktemp("quiet"))
    # No warning: what is on stderr is a fault.
    environ = {**os.environ, "ASYNCQ_EMBEDDED": "always", "PYTHONPATH": quiet}
    running = {}
    for name in RUNNABLE:
        if name in UNFIT:
            continue
        project = tmp_path_factory.mktemp(name.removesuffix(".py"))
        (project / "pyproject.toml").touch()
        shutil.copytree(EXAMPLES, project / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, f"examples/{name}"]
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running[name] = process, project
    yield running
    for process, project in running.values():
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.communicate()
            embedded.stop(project, force=True)
        for pipe in (process.stdout, process.stderr):
            # Under pytest-xdist, the test of this example may run in another process.
            assert pipe is not None
            pipe.close()


@pytest.mark.parametrize("name", RUNNABLE)
def test_an_example_prints_its_output_block_and_leaves_nothing_running(name: str, started: Started) -> None:
    if name in UNFIT:
        pytest.skip("django.tasks came with Django 6, which needs Python 3.12")
    process, project = started[name]

    output, errors = process.communicate(timeout=60)

    assert (process.returncode, without_late_worker(errors)) == (0, [])
    assert output == _expected((EXAMPLES / name).read_text())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not embedded.status(project).running


def test_every_example_has_an_output_block() -> None:
    assert len(RUNNABLE) >= 6
    assert [name for name in RUNNABLE if not _expected((EXAMPLES / name).read_text())] == []
