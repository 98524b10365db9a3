"""A Flask site with two jobs routers, under a server with threads, with the endpoints of the FastAPI site."""

from __future__ import annotations

import logging

from flask import Flask, Request, Response, abort, request
from tasks import app, count, draw, fail, nap, slow_add
from werkzeug.serving import make_server

from asyncq import QueueFull
from asyncq.integrations.flask import accepted, add_error_handlers, jobs_router


async def may_see(request: Request, id: str) -> bool:
    if request.headers.get("x-user") == "anonymous":
        abort(401)
    return request.headers.get("x-user") != "stranger"


def may_see_in_a_thread(request: Request, id: str) -> bool:
    return request.headers.get("x-user") != "stranger"


site = Flask(__name__)
site.register_blueprint(jobs_router(app, authorize=may_see), url_prefix="/jobs")
site.register_blueprint(
    jobs_router(app, authorize=may_see_in_a_thread, name="inner"), url_prefix="/inner/jobs"
)
add_error_handlers(site)


@site.get("/sum")
def wait_for_sum() -> str:
    args = request.args
    result = slow_add.delay_sync(int(args["x"]), int(args["y"]), float(args.get("seconds", 0)))
    return str(result.get_sync(timeout=float(args.get("timeout", 20))))


@site.post("/naps")
async def start() -> Response:
    return accepted(await nap.delay(float(request.args["seconds"])))


@site.post("/inner/naps")
def start_inside() -> Response:
    return accepted(nap.delay_sync(float(request.args["seconds"])), name="inner")


@site.post("/pictures")
def start_picture() -> Response:
    return accepted(draw.delay_sync(int(request.args.get("steps", 3))))


@site.post("/counts")
def start_count() -> Response:
    fails = request.args.get("fails") == "true"
    return accepted(count.delay_sync(int(request.args["to"]), fails=fails))


@site.get("/failure")
def wait_for_failure() -> str:
    return str(fail.call_sync(request.args["kind"]))


@site.get("/full")
def full() -> str:
    raise QueueFull("the queue 'secret' is full")


@site.get("/unknown")
def unknown() -> str:
    return str(slow_add.AsyncResult("nobody").get_sync())


@site.get("/revoked")
async def revoked() -> str:
    result = await nap.options(countdown=60).delay(1)
    await result.revoke(reason="no longer needed")
    return await result


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, site, threaded=True)
    print(server.port, flush=True)  # noqa: T201  how the tests learn the port
    server.serve_forever()
