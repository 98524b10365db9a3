"""A FastAPI site under uvicorn, with `async def` and `def` endpoints."""

from __future__ import annotations

import os
import socket
import threading

import uvicorn
from fastapi import FastAPI
from tasks import add, app, process_id, slow_add

from asyncq import SyncInAsyncContext

site = FastAPI(lifespan=app.lifespan)


@site.get("/sum")
async def wait_for_sum(x: int, y: int) -> int:
    return await add.call(x, y)


@site.get("/blocking/sum")
def wait_for_sum_in_a_thread(x: int, y: int) -> int:
    result = add.delay_sync(x, y)
    return result.get_sync(timeout=30)


@site.get("/blocking/threads")
def names_of_threads() -> list[str]:
    add.call_sync(1, 1)
    return [thread.name for thread in threading.enumerate()]


@site.get("/blocking-in-async")
async def blocking_in_async() -> str:
    try:
        return str(add.call_sync(1, 1))
    except SyncInAsyncContext as error:
        return str(error)


@site.get("/processes")
async def processes() -> tuple[int, int]:
    return os.getpid(), await process_id.call()


@site.post("/jobs")
async def launch(x: int, y: int, seconds: float) -> str:
    return (await slow_add.delay(x, y, seconds)).id


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        uvicorn.Server(uvicorn.Config(site, log_level="warning")).run(sockets=[listening])
