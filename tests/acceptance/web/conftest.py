"""A worker in a process of its own, and sites and scripts as real processes beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SITES = Path(__file__).parent / "sites"


class Program:
    """A Python process whose faults are seen: what was left open, and whatever else it says on stderr."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "always::ResourceWarning", *arguments],
            cwd=SITES,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def first_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1]
        return line

    def end(self) -> str:
        """What it printed. It must have ended by itself, well, and without a word on stderr."""
        output, errors = self.process.communicate(timeout=30)
        assert (self.process.returncode, errors) == (0, "")
        return output

    def stop(self) -> tuple[int, str]:
        """Asks it to end; its status and what it said on stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="session")
def shared_namespace() -> str:
    """One for all of these tests: they share a worker."""
    return f"web{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def environ(server_url: str, shared_namespace: str) -> dict[str, str]:
    return {
        **os.environ,
        "ASYNCQ_URL": server_url,
        "ASYNCQ_NAMESPACE": shared_namespace,
        "PYTHONPATH": str(SITES),
    }


@pytest.fixture(scope="module")  # not for the whole run: other tests cut every connection of the server
def worker(environ: dict[str, str]) -> Iterator[Program]:
    program = Program(["-c", "import asyncio, tasks; asyncio.run(tasks.work())"], environ)
    assert program.first_line() == "ready"
    yield program
    status, errors = program.stop()
    program.close()
    assert (status, errors) == (0, "")


@pytest.fixture
def start(environ: dict[str, str], worker: Program) -> Iterator[Callable[..., Program]]:
    """Starts a program beside the worker: a file of `sites`, or a script given as text."""
    programs = []

    def start(what: str) -> Program:
        program = Program([what] if what.endswith(".py") else ["-c", what], environ)
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.close()
