"""The page about troubleshooting quotes texts that asyncq prints, and the exit codes that a worker has."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.forked import Forked
from helpers.message_texts import is_printed
from helpers.own_server import OwnServer, free_port

from asyncq import errors
from asyncq.cli.exits import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/howto/troubleshooting.md").read_text(encoding="utf-8")
QUOTE = re.compile(r"^(?:\| )?> (.+?)(?: \|.*)?$", re.MULTILINE)
TASKS = """
import time

from asyncq import AsyncQ

app = AsyncQ()


@app.task
async def add(x, y):
    return x + y


@app.task
async def stall():
    time.sleep(1)
"""
CLIENT = """
from shop import add, app

with app:
    add.delay_sync(1, 2)
"""


def quotes() -> list[str]:
    return QUOTE.findall(PAGE)


def quote(begin: str) -> str:
    """Returns the quoted text that has these words."""
    [found] = [text for text in quotes() if begin in text]
    return found


@pytest.mark.parametrize("text", quotes())
def test_each_quoted_text_is_one_that_the_code_prints(text):
    assert is_printed(text), "correct the page, or the test's idea of a quote"


def test_a_text_that_nobody_prints_is_found_out():
    assert not is_printed("this worker does not like the task shop.resize")
    assert len(quotes()) > 12


def test_the_page_explains_every_exit_code_that_a_worker_can_have():
    section = PAGE.partition("\n## The worker exits\n")[2].partition("\n## ")[0]
    shown = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for code in row.split(",")
    }
    of_other_commands = {Code.NOT_FOUND, Code.TIMEOUT, Code.REVOKED}
    assert set(Code) - of_other_commands <= shown


def test_every_error_that_a_user_can_meet_is_named():
    for name in ("ResultTimeout", "TimeLimitExceeded", "WouldDeadlock", "SyncInAsyncContext", "WorkerLost"):
        assert hasattr(errors, name)
        assert f"`{name}`" in PAGE


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path / "data", port=free_port())
    yield server
    server.kill()


def run(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """Runs a command or a program in a project, and returns its exit code and what it printed."""
    (folder / "shop.py").write_text(TASKS)
    (folder / "client.py").write_text(CLIENT)
    given = {**os.environ, "ASYNCQ_OPERATION_TIMEOUT": "3", **environ}
    process = Forked(list(arguments), folder, given)
    output, problems = process.communicate(timeout=100)
    assert process.returncode is not None
    return process.returncode, output + problems


WORKER = ("-m", "asyncq", "worker", "shop:app")


def test_a_wrong_password_ends_a_worker_as_the_page_says(tmp_path, server):
    server.start().do("CONFIG", "SET", "requirepass", "right")
    code, printed = run(tmp_path, *WORKER, ASYNCQ_URL=f"redis://:wrong@127.0.0.1:{server.port}/0")
    text = "WRONGPASS invalid username-password pair or user is disabled."
    assert (code, text in printed, text in PAGE) == (Code.NO_PERMISSION, True, True), printed


def test_a_server_that_may_lose_jobs_gives_the_quoted_warnings_and_with_strict_no_worker(tmp_path, server):
    server.start(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    expected = [quote("nothing is kept on disk"), quote("maxmemory-policy allkeys-lru")]
    code, printed = run(tmp_path, "client.py", ASYNCQ_URL=server.url)
    assert (code, [text in printed for text in expected]) == (0, [True, True]), printed

    code, printed = run(tmp_path, *WORKER, "--strict", ASYNCQ_URL=server.url)
    assert (code, [text in printed for text in expected]) == (Code.CONFIGURATION, [True, True]), printed


def test_a_container_without_a_url_gets_the_quoted_text(tmp_path):
    code, printed = run(tmp_path, *WORKER, ASYNCQ_URL="", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert (code, quote("the embedded server is refused here") in printed) == (Code.CONFIGURATION, True), (
        printed
    )


def test_no_server_at_the_address_ends_a_worker_as_the_page_says(tmp_path):
    code, printed = run(tmp_path, *WORKER, ASYNCQ_URL="redis://127.0.0.1:1/0")
    text = quote("no server at").replace("10.0.0.7:6379", "127.0.0.1:1")
    pattern = re.escape(text).replace("111", r"\d+")  # each system has numbers of its own
    assert (code, re.search(pattern, printed) is not None) == (Code.UNAVAILABLE, True), printed


def test_a_body_that_blocks_the_loop_is_logged_with_the_quoted_text(tmp_path):
    block = re.search(r"^```python\n# stalled\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    (tmp_path / "stalled.py").write_text(block[1].replace("await better_report", "await report"))
    _, printed = run(tmp_path, "stalled.py", ASYNCQ_EMBEDDED="always")
    text = quote("the event loop has been blocked")
    pattern = re.escape(text).replace(re.escape("12.0"), r"\d\.\d").replace("01KA7Q2", r"\w+")
    assert re.search(f"^{pattern.replace('shop', 'stalled')}$", printed, re.MULTILINE), printed
    assert "time.sleep(1)  # blocks the loop" in printed
