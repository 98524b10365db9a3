"""A site under the command `uvicorn`: with two workers, and with `--reload` while a client follows a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from helpers import event_source
from helpers.own_server import free_port
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx
    from helpers.program import Program

pytestmark = pytest.mark.anyio

SITE = """
import os
from fastapi import FastAPI, Request, Response
from tasks import app, nap, slow_add
from asyncq.integrations.fastapi import JobAccepted, accepted, jobs_router

site = FastAPI(lifespan=app.lifespan)
site.include_router(jobs_router(app, authorize=lambda request, id: True), prefix="/jobs")

@site.post("/sums", status_code=202)
async def start(request: Request, response: Response) -> JobAccepted:
    return accepted(await slow_add.delay(4, 4, 0.2), response, request)

@site.post("/naps", status_code=202)
async def start_nap(request: Request, response: Response) -> JobAccepted:
    return accepted(await nap.delay(60), response, request)

@site.get("/process")
async def process() -> list:
    return [os.getpid(), "first version"]
"""


@contextmanager
def uvicorn(folder: Path, environ: dict[str, str], *options: str) -> Iterator[str]:
    """Runs the site, and gives its URL."""
    (folder / "site_of_jobs.py").write_text(SITE)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "error", *options]
    path = os.pathsep.join([str(folder), environ["PYTHONPATH"]])
    process = subprocess.Popen(
        [*command, "site_of_jobs:site"],
        cwd=folder,
        env={**environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        _, errors = process.communicate(timeout=30)
        # It logs so each request that it cuts off.
        assert "Traceback" not in errors or "timeout graceful shutdown exceeded" in errors, errors
        assert process.returncode in {0, -signal.SIGTERM}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


async def ask(url: str, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Sends a request over a connection of its own, which any of the site's processes may take."""
    import httpx

    async with httpx.AsyncClient(base_url=url, timeout=30, headers=headers) as client:

        async def answer() -> httpx.Response | None:
            try:
                return await client.request(method, path)
            except httpx.TransportError:  # it does not listen yet, or has just stopped
                return None

        return await until(answer, f"an answer to {method} {url}{path}", every=0.05)


async def test_two_workers_serve_each_others_jobs(
    tmp_path: Path, environ: dict[str, str], worker: Program
) -> None:
    with uvicorn(tmp_path, environ, "--workers", "2") as url:
        processes = set()

        async def both_answer() -> bool:
            processes.add((await ask(url, "/process")).json()[0])
            return len(processes) == 2

        await until(both_answer, "both workers to answer")
        for _ in range(6):
            job = (await ask(url, "/sums", "POST")).headers["location"]
            *_, last, end = event_source.parse((await ask(url, f"{job}/events")).text.splitlines())
            assert (last.data["value"], end.kind) == (8, "end")
            assert (await ask(url, job, Prefer="wait=20")).json()["value"] == 8


async def test_a_site_is_reloaded_while_a_client_follows_a_job(
    tmp_path: Path, environ: dict[str, str], worker: Program
) -> None:
    import httpx

    options = ["--reload", "--reload-dir", str(tmp_path), "--timeout-graceful-shutdown", "1"]
    with uvicorn(tmp_path, environ, *options) as url:
        job = (await ask(url, "/naps", "POST")).headers["location"]
        async with (
            httpx.AsyncClient(base_url=url, timeout=30) as client,
            client.stream("GET", f"{job}/events") as answer,
        ):
            lines = answer.aiter_lines()
            assert await anext(lines) == "id: 1"
            (tmp_path / "site_of_jobs.py").write_text(SITE.replace("first version", "second version"))
            with pytest.raises(httpx.RemoteProtocolError):  # the connection is cut
                [line async for line in lines]

        async def is_reloaded() -> bool:
            return (await ask(url, "/process")).json()[1] == "second version"

        await until(is_reloaded, "the second version to answer")
        assert (await ask(url, job)).json()["state"] == "STARTED"
        assert (await ask(url, job, "DELETE")).status_code == 204
