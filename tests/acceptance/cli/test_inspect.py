"""`asyncq inspect`: an overview of a running system, once and again and again."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys

import pytest
from helpers.forked import Forked

from asyncq import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def add(app):
    @app.task(name="add", every=3600)
    async def add(x: int = 1, y: int = 1) -> int:
        return x + y

    return add


@pytest.fixture
def served(project, server_url, namespace):
    """The project, on the server and in the namespace of the test's app."""
    project.environ |= {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
    return project


async def test_inspect_prints_the_server_queues_workers_and_schedules_on_one_page(app, add, served):
    async with Worker(app, name="w1", concurrency=7):
        await add.call(1, 1)
        await app.control.pause("mail")
        waiting = await add.options(queue="mail").delay(1, 1)
        delayed = await add.options(countdown=600).delay(1, 1)
        page, tree = await asyncio.to_thread(served.run_each, ("inspect",), ("inspect", "--json"))
        assert page.code == 0, page
        lines = page.out.splitlines()
        assert [line for line in lines if line and not line.startswith(" ")] == [
            *("server", "queues", "in no queue", "workers", "schedules, due next")
        ]
        (mail,) = [line.split() for line in lines if line.startswith("  mail ")]
        assert (mail[1:5], mail[-1]) == (["1", "waiting", "0", "running"], "paused")
        assert "  1 delayed, 0 of them retrying  0 waiting for parents  0 dead" in lines
        assert any(line.startswith("  w1 ") and "/7 busy" in line for line in lines)
        assert any(line.startswith("  add ") and "every 3600s" in line for line in lines), page
        assert re.search(r"clients  round trip \d+\.\d\d ms\n", page.out)
        found = json.loads(tree.out)
        assert found.keys() == {"server", "queues", "stats", "workers", "schedules"}
        assert found["server"]["memory"] > 0
        assert found["server"]["clients"] > 0
        assert 0 < found["server"]["round_trip"] < 1
        assert found["stats"]["delayed"] == 1
        assert [schedule["name"] for schedule in found["schedules"]] == ["add"]
        await waiting.revoke()
        await delayed.revoke()
        await app.control.resume("mail")


async def test_watch_prints_a_page_each_second_into_a_pipe_until_ctrl_c(app, served):
    watch = served.start("inspect", "--watch")
    pages = 0
    while pages < 2:
        line = await asyncio.to_thread(watch.stdout.readline)
        assert line, watch.communicate()
        pages += line == "server\n"
    watch.send_signal(signal.SIGINT)
    out, err = await asyncio.to_thread(watch.communicate, timeout=60)
    assert (watch.returncode, "\x1b" in out) == (0, False), (out, err)


async def test_watch_as_json_is_one_line_each_second(app, served):
    watch = served.start("inspect", "--watch", "--json")
    for _ in range(2):
        assert "queues" in json.loads(await asyncio.to_thread(watch.stdout.readline))
    watch.send_signal(signal.SIGINT)
    await asyncio.to_thread(watch.communicate, timeout=60)
    assert watch.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a terminal is set another way")
async def test_watch_refreshes_a_terminal_and_cuts_its_lines(app, served):
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 30, 0, 0))
    watch = Forked(["-m", "asyncq", "inspect", "--watch"], served.folder, served.environ, stdout=theirs)
    served._running.append(watch)
    os.close(theirs)
    shown = ""
    while shown.count("\x1b[H\x1b[2J") < 3:
        shown += (await asyncio.to_thread(os.read, ours, 4096)).decode()
    watch.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(watch.wait, 60) == 0
    os.close(ours)
    page = shown.split("\x1b[H\x1b[2J")[1].splitlines()
    assert page[0] == "server"
    assert len(page) <= 11
    assert max(map(len, page)) <= 30


async def test_watch_ends_quietly_when_nobody_reads_it(app, served):
    reader, writer = os.pipe()
    watch = Forked(
        ["-m", "asyncq", "inspect", "--watch"],
        served.folder,
        served.environ,
        stdout=writer,
    )
    served._running.append(watch)
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 100)
    os.close(reader)
    _, err = await asyncio.to_thread(watch.communicate, timeout=60)
    assert (watch.returncode, err) == (0, "")
