"""An aiohttp site whose app lives in `cleanup_ctx`."""

from __future__ import annotations

import os
import socket

from aiohttp import web
from tasks import add, app, process_id, slow_add

routes = web.RouteTableDef()


@routes.get("/sum")
async def wait_for_sum(request: web.Request) -> web.Response:
    return web.json_response(await add.call(int(request.query["x"]), int(request.query["y"])))


@routes.get("/processes")
async def processes(_request: web.Request) -> web.Response:
    return web.json_response([os.getpid(), await process_id.call()])


@routes.post("/jobs")
async def launch(request: web.Request) -> web.Response:
    query = request.query
    result = await slow_add.delay(int(query["x"]), int(query["y"]), float(query["seconds"]))
    return web.json_response(result.id)


if __name__ == "__main__":
    site = web.Application()
    site.add_routes(routes)
    site.cleanup_ctx.append(app.lifespan)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        web.run_app(site, sock=listening, print=None)
