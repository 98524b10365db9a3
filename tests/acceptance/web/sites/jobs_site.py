"""A FastAPI site with a jobs router, under uvicorn: also in a mounted site, and behind middleware."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection  # noqa: TC002  FastAPI reads the annotations
from tasks import Picture, app, count, draw, draw_until_seen, fail, nap, see, slow_add

from asyncq import QueueFull
from asyncq.integrations.fastapi import (
    JobAccepted,
    accepted,
    add_error_handlers,
    cancel_on_disconnect,
    jobs_router,
)

if TYPE_CHECKING:
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.types import ASGIApp, Receive, Scope, Send


class OutOfStock(Exception):
    """What an endpoint raises by itself."""


async def may_see(connection: HTTPConnection, id: str) -> bool:
    if connection.headers.get("x-user") == "anonymous":
        raise HTTPException(401)
    return connection.headers.get("x-user") != "stranger"


def may_see_in_a_thread(connection: HTTPConnection, id: str) -> bool:
    return connection.headers.get("x-user") != "stranger"


async def needs_no_key(connection: HTTPConnection) -> None:
    if connection.headers.get("x-key") == "wrong":
        raise HTTPException(403)


class Tag(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Tag"] = "behind"
        return response


class TagIfAsked:
    """Puts the site behind a `BaseHTTPMiddleware`, for requests with a header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._behind = Tag(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = (b"x-behind", b"yes") in scope.get("headers", ())
        await (self._behind if is_asked else self._app)(scope, receive, send)


def add_endpoints(site: FastAPI) -> None:
    @site.get("/sum")
    async def wait_for_sum(x: int, y: int, request: Request, seconds: float = 0, timeout: float = 20) -> int:
        async with cancel_on_disconnect(request, await slow_add.delay(x, y, seconds)) as result:
            return await result.get(timeout=timeout)

    @site.post("/naps/{id}")
    async def hold_with_a_body(id: str, seconds: float, request: Request) -> int:
        async with cancel_on_disconnect(request, await nap.options(task_id=id).delay(seconds)) as result:
            await result
            return len(await request.body())

    @site.post("/naps", status_code=202)
    async def start(seconds: float, request: Request, response: Response) -> JobAccepted:
        return accepted(await nap.delay(seconds), response, request)

    @site.post("/blocking/naps", status_code=202)
    def start_in_a_thread(seconds: float, request: Request, response: Response) -> JobAccepted:
        return accepted(nap.delay_sync(seconds), response, request)

    @site.get("/naps/{id}")
    async def hold(id: str, seconds: float, request: Request) -> str:
        async with cancel_on_disconnect(request, await nap.options(task_id=id).delay(seconds)) as result:
            await result
        return "rested"


inner = FastAPI()
inner.include_router(jobs_router(app, authorize=may_see_in_a_thread), prefix="/jobs")
add_endpoints(inner)

site = FastAPI(lifespan=app.lifespan)
site.mount("/inner", inner)
site.include_router(
    jobs_router(app, authorize=may_see), prefix="/jobs", dependencies=[Depends(needs_no_key)], tags=["jobs"]
)
add_error_handlers(site)
add_endpoints(site)
site.add_middleware(TagIfAsked)


@site.post("/pictures", status_code=202)
async def start_picture(request: Request, response: Response, steps: int = 3) -> JobAccepted:
    return accepted(await draw.delay(steps), response, request)


@site.post("/unseen-pictures", status_code=202)
async def start_picture_until_it_is_seen(request: Request, response: Response) -> JobAccepted:
    return accepted(await draw_until_seen.delay(), response, request)


@site.post("/looks/{id}", status_code=204)
async def look(id: str) -> None:
    await see.delay(id)


@site.post("/counts", status_code=202)
async def start_count(to: int, request: Request, response: Response, fails: bool = False) -> JobAccepted:
    return accepted(await count.delay(to, fails=fails), response, request)


@site.get("/picture")
async def wait_for_picture() -> Picture:
    return await draw.call(1)


@site.get("/failure")
async def wait_for_failure(kind: str) -> None:
    await fail.call(kind)


@site.get("/blocking/failure")
def wait_for_failure_in_a_thread(kind: str) -> None:
    fail.call_sync(kind)


@site.get("/own-error")
async def own_error() -> None:
    raise OutOfStock


@site.get("/full")
async def full() -> None:
    raise QueueFull("the queue 'secret' is full")


@site.get("/unknown")
async def unknown() -> int:
    return await slow_add.AsyncResult("nobody").get()


@site.get("/revoked")
async def revoked() -> None:
    result = await nap.options(countdown=60).delay(1)
    await result.revoke(reason="no longer needed")
    await result


@site.get("/left")
async def left() -> dict[str, int]:
    """What requests have left behind, beside this one."""
    session = app.sessions.current()
    return {
        "tasks": len(asyncio.all_tasks()),
        "waits": sum(len(waiter.futures or ()) for waiter in session.listener._waiters),
        "channels": len(session.listener.subscription._handlers),
    }


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        uvicorn.Server(uvicorn.Config(site, log_level="warning")).run(sockets=[listening])
