"""A site of Quart that waits for jobs, and follows them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn
from quart import Quart, Response, request
from tasks import add, app, nap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

site = Quart(__name__)


@site.while_serving
async def keep_open() -> AsyncIterator[None]:
    async with app:
        yield


@site.get("/sum")
async def wait_for_sum() -> str:
    return str(await add.options(wait=20).call(int(request.args["x"]), int(request.args["y"])))


@site.get("/blocking/sum")
def wait_in_a_thread() -> str:
    return str(add.options(wait=20).call_sync(int(request.args["x"]), int(request.args["y"])))


@site.get("/naps/<id>")
async def hold(id: str) -> str:
    result = await nap.options(task_id=id).delay(float(request.args["seconds"]))
    return await result.get(revoke_on_abandon=True)


@site.get("/naps/<id>/events")
async def follow(id: str) -> Response:
    async def changes() -> AsyncIterator[bytes]:
        async for event in app.AsyncResult(id).events():
            yield f"data: {event.state}\n\n".encode()

    response = Response(changes(), content_type="text/event-stream")
    response.timeout = None
    return response


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        uvicorn.Server(uvicorn.Config(site, log_level="warning")).run(sockets=[listening])
