"""`asyncq worker --health-port`, and what a service manager is told: real probes of real workers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from typing import TYPE_CHECKING

import httpx
import pytest
from helpers.own_server import free_port, own_server
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.forked import Forked

pytestmark = pytest.mark.anyio

TASKS = """
import time
from asyncq import AsyncQ
app = AsyncQ(lease=3, stall_warning=0)

@app.task(name="block")
async def block(seconds: float) -> None:
    time.sleep(seconds)
"""


@pytest.fixture
def start(project) -> Callable[..., tuple[int, Forked]]:
    """Starts workers with a health port. When they are ready, returns the port and their process."""
    project.write("jobs.py", TASKS)

    def start(url: str, *words: str, **environ: str) -> tuple[int, Forked]:
        port = free_port()
        process = project.start(
            "worker", "jobs", "--health-port", str(port), *words, ASYNCQ_URL=url, **environ
        )
        banner = ""
        while "\nready" not in banner:
            line = process.stderr.readline()
            assert line, f"it ended with {process.wait(30)}: {banner}"
            banner += line
        assert re.search(rf"  health +http://0\.0\.0\.0:{port}/livez and /readyz\n", banner)
        return port, process

    return start


async def probe(port: int) -> tuple[int, int]:
    """Returns the statuses of both endpoints."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        live, ready = await asyncio.gather(client.get("/livez"), client.get("/readyz"))
    return live.status_code, ready.status_code


async def until_probe(port: int, live: int, ready: int) -> None:
    async def is_so() -> bool:
        return await probe(port) == (live, ready)

    await until(is_so, f"/livez to answer {live}, and /readyz {ready}")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_worker_is_ready_while_its_server_is_there(start, stop, tmp_path: Path, workers: str):
    with own_server(tmp_path / "server") as server:
        port, process = start(server.url, "-w", workers)
        await until_probe(port, 200, 200)
        server.kill()
        await until_probe(port, 200, 503)
        server.start()
        await until_probe(port, 200, 200)
        stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
        assert stopped.code == 0, stopped


async def test_a_worker_whose_loop_is_blocked_is_not_live(start, server_url, namespace, app):
    @app.task(name="block")
    async def block(seconds: float) -> None: ...

    port, _ = start(server_url, ASYNCQ_NAMESPACE=namespace)
    await until_probe(port, 200, 200)
    await block.delay(8)
    await until_probe(port, 503, 503)
    await until_probe(port, 200, 200)


async def test_other_paths_are_not_found(start, server_url, namespace):
    port, _ = start(server_url, ASYNCQ_NAMESPACE=namespace)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/metrics")).status_code == 404
        head = await client.head("/livez")
        assert (head.status_code, head.text) == (200, "")


def test_a_port_that_is_taken_is_one_line(project, server_url):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        ended = project.run("worker", "shop", "--health-port", str(port), ASYNCQ_URL=server_url)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"error: --health-port {port}: Address already in use\n")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_service_manager_learns_when_workers_are_ready_and_when_they_stop(
    start, stop, server_url, namespace, tmp_path: Path, workers: str
):
    name = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(name))
        manager.settimeout(30)
        _, process = start(
            server_url, "-w", workers, ASYNCQ_NAMESPACE=namespace, NOTIFY_SOCKET=os.fspath(name)
        )
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
        stopped = await asyncio.to_thread(stop, process, signal.SIGTERM)
        assert stopped.code == 0, stopped
        assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
