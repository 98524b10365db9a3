"""The samples of logs and reports on the pages, which stand below no block, are what asyncq really prints."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from helpers.forked import Forked
from helpers.waiting import until_sync

from asyncq import AsyncQ, embedded
from asyncq.testing import LeakError, harness

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MAIL = """\
import logging

from asyncq import AsyncQ

app, log = AsyncQ(), logging.getLogger(__name__)

@app.task
async def send():
    log.info("about to send")
    raise ValueError("no such address")
"""
CLIENT = """\
from shop.mail import app, send

with app:
    send.delay_sync().outcome_sync(timeout=60)
"""


def _sample(page: str, words: str) -> str:
    blocks = BLOCK.findall((ROOT / "docs/howto" / page).read_text(encoding="utf-8"))
    [found] = [block for block in blocks if words in block]
    return found


def _without_values(text: str) -> str:
    """Replaces what differs each time: times, ids, line numbers."""
    for pattern, instead in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
        (r"\b[0-9a-f]{24}\b", "ID"),
        (r"after [\d.]+ m?s\b", "after MS"),
        (r"line \d+", "line N"),
        (r"test_\w+\.py:\d+", "FILE:N"),
    ):
        text = re.sub(pattern, instead, text)
    return text


def test_the_sample_of_the_log_of_a_worker_is_what_a_worker_logs(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").touch()
    (shop / "mail.py").write_text(MAIL)
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "pyproject.toml").touch()
    environ = {**os.environ, "ASYNCQ_EMBEDDED": "always", "PYTHONPATH": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("w") as file:
        worker = Forked(
            ["-m", "asyncq", "worker", "shop.mail:app"],
            tmp_path,
            environ,
            stdout=file.fileno(),
            stderr=file.fileno(),
        )
    try:
        client = Forked(["client.py"], tmp_path, environ)
        client.communicate(timeout=100)
        until_sync(lambda: "no such address\n" in log.read_text(), "the worker to log the failure")
        printed = log.read_text().replace(str(tmp_path), "/srv")
    finally:
        worker.terminate()
        worker.wait(60)
        embedded.stop(tmp_path, force=True)

    expected = _without_values(_sample("logging.md", "about to send")).splitlines()
    assert [line for line in _without_values(printed).splitlines() if line in expected] == expected


@pytest.mark.usefixtures("harness_servers")
def test_the_sample_of_a_leak_is_what_a_harness_reports() -> None:
    app = AsyncQ()

    @app.task(name="tasks.listen")
    async def listen() -> None:
        await asyncio.Event().wait()

    async def leave_a_job() -> None:
        async with harness(app):
            await listen.delay()

    with pytest.raises(LeakError) as caught:
        asyncio.run(leave_a_job())
    report = "\n".join(
        f"E  {line}" for line in f"asyncq.testing.leaks.LeakError: {caught.value}".splitlines()
    )
    where = re.sub(r"enqueued at \S*/", "enqueued at ", report)
    assert _without_values(f"{where}\n") == _without_values(_sample("testing.md", "LeakError"))
