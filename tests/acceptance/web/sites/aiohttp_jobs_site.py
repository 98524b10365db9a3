"""An aiohttp site with a jobs router, also in a sub-application. It has the endpoints of the FastAPI site."""

from __future__ import annotations

import asyncio
import socket
import sys

from aiohttp import web
from tasks import app, count, draw, fail, nap, slow_add

from asyncq import QueueFull
from asyncq.integrations.aiohttp import accepted, add_error_handlers, cancel_on_disconnect, jobs_router


async def may_see(request: web.Request, id: str) -> bool:
    if request.headers.get("x-user") == "anonymous":
        raise web.HTTPUnauthorized
    return request.headers.get("x-user") != "stranger"


def may_see_in_a_thread(request: web.Request, id: str) -> bool:
    return request.headers.get("x-user") != "stranger"


async def wait_for_sum(request: web.Request) -> web.Response:
    query = request.query
    job = await slow_add.delay(int(query["x"]), int(query["y"]), float(query.get("seconds", 0)))
    async with cancel_on_disconnect(request, job) as result:
        return web.json_response(await result.get(timeout=float(query.get("timeout", 20))))


async def start(request: web.Request) -> web.Response:
    return accepted(await nap.delay(float(request.query["seconds"])), request)


async def hold(request: web.Request) -> web.Response:
    named = nap.options(task_id=request.match_info["id"])
    async with cancel_on_disconnect(request, await named.delay(float(request.query["seconds"]))) as result:
        await result
        return web.json_response(len(await request.read()))


async def start_picture(request: web.Request) -> web.Response:
    return accepted(await draw.delay(int(request.query.get("steps", 3))), request)


async def start_count(request: web.Request) -> web.Response:
    fails = request.query.get("fails") == "true"
    return accepted(await count.delay(int(request.query["to"]), fails=fails), request)


async def wait_for_failure(request: web.Request) -> web.Response:
    return web.json_response(await fail.call(request.query["kind"]))


async def full(_request: web.Request) -> web.Response:
    raise QueueFull("the queue 'secret' is full")


async def unknown(_request: web.Request) -> web.Response:
    return web.json_response(await slow_add.AsyncResult("nobody").get())


async def revoked(_request: web.Request) -> web.Response:
    result = await nap.options(countdown=60).delay(1)
    await result.revoke(reason="no longer needed")
    return web.json_response(await result)


async def left(_request: web.Request) -> web.Response:
    """What requests have left behind, beside this one."""
    session = app.sessions.current()
    return web.json_response(
        {
            "tasks": len([task for task in asyncio.all_tasks() if "RequestHandler" not in repr(task)]),
            "waits": sum(len(waiter.futures or ()) for waiter in session.listener._waiters),
            "channels": len(session.listener.subscription._handlers),
        }
    )


def add_endpoints(site: web.Application) -> None:
    site.router.add_get("/sum", wait_for_sum)
    site.router.add_post("/naps", start)
    site.router.add_get("/naps/{id}", hold)
    site.router.add_post("/naps/{id}", hold)


def make_site() -> web.Application:
    inner = web.Application()
    inner.add_subapp("/jobs", jobs_router(app, authorize=may_see_in_a_thread))
    add_endpoints(inner)
    site = web.Application()
    add_error_handlers(site)
    site.cleanup_ctx.append(app.lifespan)
    site.add_subapp("/inner", inner)
    site.add_subapp("/jobs", jobs_router(app, authorize=may_see))
    add_endpoints(site)
    site.router.add_post("/pictures", start_picture)
    site.router.add_post("/counts", start_count)
    site.router.add_get("/failure", wait_for_failure)
    site.router.add_get("/full", full)
    site.router.add_get("/unknown", unknown)
    site.router.add_get("/revoked", revoked)
    site.router.add_get("/left", left)
    return site


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        web.run_app(make_site(), sock=listening, print=None, handler_cancellation="cancel" in sys.argv)
