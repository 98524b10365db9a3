"""A site of Litestar that waits for jobs, and follows them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator  # noqa: TC003  Litestar reads the annotations

import uvicorn
from litestar import Litestar, get
from litestar.params import FromPath, FromQuery  # noqa: TC002  Litestar reads the annotations
from litestar.response import ServerSentEvent
from tasks import add, app, nap


@get("/sum")
async def wait_for_sum(x: FromQuery[int], y: FromQuery[int]) -> int:
    return await add.options(wait=20).call(x, y)


@get("/blocking/sum", sync_to_thread=True)
def wait_in_a_thread(x: FromQuery[int], y: FromQuery[int]) -> int:
    return add.options(wait=20).call_sync(x, y)


@get("/naps/{id:str}")
async def hold(id: FromPath[str], seconds: FromQuery[float]) -> str:
    result = await nap.options(task_id=id).delay(seconds)
    return await result.get(revoke_on_abandon=True)


@get("/naps/{id:str}/events")
async def follow(id: FromPath[str]) -> ServerSentEvent:
    async def changes() -> AsyncIterator[str]:
        async for event in app.AsyncResult(id).events():
            yield event.state

    return ServerSentEvent(changes())


site = Litestar([wait_for_sum, wait_in_a_thread, hold, follow], lifespan=[app.lifespan])

if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        uvicorn.Server(uvicorn.Config(site, log_level="warning")).run(sockets=[listening])
