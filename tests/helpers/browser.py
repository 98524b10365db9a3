"""A real browser, driven by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START = 60.0
"""Seconds in which a browser must have started: the first start on a busy machine takes long."""


def found() -> str | None:
    """Returns the path of a browser on this machine."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Page:
    """A page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._session: str | None = None

    async def open(self, url: str) -> None:
        """Loads a page, and returns when it has been loaded."""
        if self._session is None:
            target = await self._call("Target.createTarget", url="about:blank")
            attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = attached["sessionId"]
        await self._call("Page.navigate", url=url)
        is_loaded = "document.readyState === 'complete'"
        await self.run(f"new Promise(done => {is_loaded} ? done() : addEventListener('load', done))")

    async def run(self, code: str) -> Any:
        """Evaluates JavaScript in the page, waits for what it promises, and returns its value."""
        answer = await self._call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def _call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._connection.send(json.dumps(message))
        async for text in self._connection:
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
        raise AssertionError("the browser closed the connection")


@asynccontextmanager
async def page(folder: Path) -> AsyncIterator[Page]:
    """Starts a browser without a window, gives a page of it, and ends it.

    Args:
        folder: for the files of the browser.
    """
    program = found()
    assert program is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    process = await asyncio.create_subprocess_exec(
        program,
        *flags,
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(START):
            url = await _address(process)
        async with connect(url, max_size=None) as connection:
            yield Page(connection)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        words = line.decode().split()
        if words[:3] == ["DevTools", "listening", "on"]:
            return words[3]
    raise AssertionError("the browser ended")
