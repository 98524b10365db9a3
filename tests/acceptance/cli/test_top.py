"""`asyncq top`: its screen, driven by textual's own pilot, on a real server beside a real worker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from helpers.waiting import until, until_state

from asyncq import Worker

pytestmark = pytest.mark.anyio
textual = pytest.importorskip("textual")


def rows(screen, name: str) -> list[list[str]]:
    """Returns the cells of a table."""
    table = screen.query_one(f"#{name}")
    return [[cell.plain for cell in table.get_row_at(number)] for number in range(table.row_count)]


async def test_top_shows_queues_workers_and_running_jobs_and_keeps_up(app):
    from asyncq.cli.top_app import Top

    go = asyncio.Event()

    @app.task(name="[b]waits")
    async def waits() -> None:
        await go.wait()

    async with Worker(app, name="w1", concurrency=7):
        result = await waits.delay()
        await until_state(result, "STARTED")
        await app.control.queues()
        top = Top(app)
        async with top.run_test(size=(100, 40)) as pilot:
            screen = top.screen
            assert rows(screen, "queues") == [["default", "0", "1", "-", "1", ""]]
            ((name, _, queues, busy, *_),) = rows(screen, "workers")
            assert (name, queues, busy.endswith("/7")) == ("w1", "default", True)
            ((id_, task, queue, attempt, worker, _),) = rows(screen, "jobs")
            assert (id_, task, queue, attempt, worker) == (result.id, "[b]waits", "default", "1", "w1")
            assert "0 delayed" in str(screen.query_one("#server").render())
            go.set()
            await until(lambda: rows(screen, "jobs") == [], "the next look to show that the job has ended")
            await pilot.press("q")
        assert top.return_code == 0


async def test_p_pauses_the_selected_queue_after_a_question_and_resumes_it(app):
    from asyncq.cli.top_app import Top

    for queue in ("mail", "other"):
        await app.control.pause(queue)
    await app.control.resume("other")
    top = Top(app)

    async def paused() -> list[str]:
        return [one.name for one in await app.control.queues() if one.paused]

    async with top.run_test(size=(60, 24)) as pilot:
        assert [row[0] for row in rows(top.screen, "queues")] == ["mail", "other"]
        await pilot.press("down", "p")
        assert "Pause queue 'other'?" in str(top.screen.query_one("Static").render())
        await pilot.press("n")
        assert await paused() == ["mail"]
        await pilot.press("p", "y")
        await until(lambda: _is(paused, ["mail", "other"]), "the queue to be paused")
        await until(lambda: rows(top.screen, "queues")[1][-1] == "paused", "the screen to show it")
        await pilot.press("up", "p")
        assert "Resume queue 'mail'?" in str(top.screen.query_one("Static").render())
        await pilot.press("y")
        await until(lambda: _is(paused, ["other"]), "the queue to go on")
        await pilot.press("q")
    await app.control.resume("other")


async def _is(ask, expected) -> bool:
    return await ask() == expected


def test_top_without_a_terminal_says_what_needs_none(project):
    ended = project.run("top")
    assert (ended.code, ended.out) == (2, "")
    assert "asyncq inspect --watch" in ended.err


def test_top_without_textual_names_the_extra(project):
    project.write("textual.py", "")
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'textual' else found(name, *more)\n"
        "from asyncq.cli.main import run\n"
        "sys.exit(run(['top']))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, capture_output=True, text=True, check=False
    )
    assert process.returncode == 78
    assert process.stderr == "error: asyncq top needs textual\n       pip install 'asyncq[top]'\n"


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_top_in_a_terminal_ends_with_q_or_ctrl_c_and_exit_code_0(project, key):
    shown = ""
    with project.in_terminal("top", TERM="xterm-256color") as (process, terminal):
        while "Valkey" not in shown and "valkey" not in shown:
            shown += os.read(terminal, 4096).decode(errors="replace")
        os.write(terminal, key)
        while True:
            try:
                if not os.read(terminal, 4096):
                    break
            except OSError:  # the other end is closed
                break
        assert process.wait(30) == 0
