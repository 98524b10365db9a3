"""Commands that read: into a pipe that nobody reads, into one that somebody reads, without a terminal, with
NO_COLOR, and in 60 columns. Each is a process of its own on a real server.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from asyncq import Worker

pytestmark = pytest.mark.anyio

READING = [
    ("inspect",),
    ("queues", "ls"),
    ("queues", "show", "default"),
    ("workers", "ls"),
    ("workers", "ping"),
    ("workers", "stacks", "w1"),
    ("jobs", "ls"),
    ("jobs", "show", "waiting-1"),
    ("result", "get", "ended-1"),
    ("result", "watch", "ended-1"),
    ("why", "waiting-1"),
    ("schedule", "ls"),
    ("schedule", "next"),
    ("completion", "bash"),
    ("version",),
]
CHANGING = [
    ("jobs", "retry", "ended-1"),
    ("revoke", "gone-1"),
    ("result", "forget", "ended-1"),
    ("dlq", "show", "1-1"),
    ("shell", "shop"),
]


@pytest.fixture
async def served(app, project, server_url, namespace):
    """The project, on a server with a worker, a schedule, a job that has ended and one that waits."""
    project.environ |= {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}

    @app.task(name="add", every=3600)
    async def add(x: int = 1, y: int = 1) -> int:
        return x + y

    async with Worker(app, name="w1"):
        ended = await add.options(task_id="ended-1").delay(1, 2)
        await ended.get(timeout=30)
        waiting = await add.options(task_id="waiting-1", queue="other").delay(1, 2)
        await app.control.queues()
        yield project
        await waiting.revoke()


async def _run_all(project, commands, **streams):
    """Runs commands side by side, and returns their exit codes and texts."""

    def run(words):
        process = subprocess.run(
            [sys.executable, "-m", "asyncq", *words],
            cwd=project.folder,
            env=project.environ,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=60,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        return words, process

    return [await asyncio.to_thread(run, words) for words in commands]


async def test_commands_that_read_print_plain_lines_without_a_terminal(served):
    served.environ |= {"COLUMNS": "60", "NO_COLOR": "1", "TERM": "xterm-256color"}
    for words, ended in await _run_all(served, READING):
        assert (ended.returncode, bool(ended.stdout)) == (0, True), (words, ended)
        assert "\x1b" not in ended.stdout + ended.stderr, words
        assert "Traceback" not in ended.stderr, words


async def test_commands_that_read_end_quietly_if_nobody_reads_them(served):
    reader, writer = os.pipe()
    os.close(reader)
    for words, ended in await _run_all(served, READING, stdout=writer):
        assert (ended.returncode, "Traceback" in ended.stderr, "error" in ended.stderr) == (
            *(0, False, False),
        ), (words, ended)
    os.close(writer)


async def test_commands_that_change_something_end_without_a_traceback_if_nobody_reads_them(served):
    reader, writer = os.pipe()
    os.close(reader)
    for words, ended in await _run_all(served, CHANGING, stdout=writer, stderr=writer):
        assert ended.returncode in {0, 1, 3}, (words, ended)
    os.close(writer)


async def test_the_json_of_commands_that_read_is_one_document(served):
    served.environ |= {"COLUMNS": "60"}
    jsons = [words for words in READING if words[0] != "completion"]
    for words, ended in await _run_all(served, [(*words, "--json") for words in jsons]):
        lines = ended.stdout.splitlines()
        assert (ended.returncode, len(lines) >= 1) == (0, True), (words, ended)
        assert [json.loads(line) for line in lines], words
