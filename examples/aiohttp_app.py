"""aiohttp: a handler that awaits a job, one that only launches it, and a router that shows it by its id.

Run it with `python examples/aiohttp_app.py`: it starts the site and a worker, sends requests as a client
would, and ends. To keep the site running, run `python -m aiohttp.web -P 8080 aiohttp_app:make_site` and
`python worker.py` in this folder. Needs `pip install aiohttp`.
"""

import asyncio

from aiohttp import ClientSession, web
from tasks import add, app, slow_add

from asyncq import Worker
from asyncq.integrations.aiohttp import (
    accepted,
    add_error_handlers,
    cancel_on_disconnect,
    jobs_router,
)

routes = web.RouteTableDef()


@routes.get("/sum")
async def wait_for_sum(request: web.Request) -> web.Response:
    value = await add.options(wait=10).call(int(request.query["x"]), int(request.query["y"]))
    return web.json_response(value)


@routes.get("/slow/sum")
async def wait_while_the_client_waits(request: web.Request) -> web.Response:
    job = await slow_add.delay(int(request.query["x"]), int(request.query["y"]), seconds=0.5)
    async with cancel_on_disconnect(request, job) as result:
        return web.json_response(await result.get(timeout=float(request.query["wait"])))


@routes.post("/sums")
async def launch(request: web.Request) -> web.Response:
    result = await slow_add.delay(int(request.query["x"]), int(request.query["y"]), seconds=0.5)
    return accepted(result, request)


async def may_see(_request: web.Request, _id: str) -> bool:
    return True  # a real site looks whether the job belongs to the user of the request


def make_site(_arguments: list[str] | None = None) -> web.Application:
    site = web.Application()
    site.add_routes(routes)
    site.add_subapp("/jobs", jobs_router(app, authorize=may_see))
    site.cleanup_ctx.append(app.lifespan)
    add_error_handlers(site)  # a wait that is over is 504, what a task raised is 500, ...
    return site


async def ask(url: str) -> None:
    async with ClientSession(url) as client:
        async with client.get("/sum?x=4&y=4") as answer:
            print("GET /sum:", await answer.json())
        async with client.get("/slow/sum?x=1&y=2&wait=0.01") as answer:
            print("GET /slow/sum:", answer.status, (await answer.json(content_type=None))["title"])
        async with client.post("/sums?x=1&y=2") as answer:
            print("POST /sums:", answer.status)
            job = answer.headers["Location"]
        async with client.get(job) as answer:
            print("GET /jobs/ID at once:", "value" in await answer.json())
        async with client.get(job, headers={"Prefer": "wait=10"}) as answer:
            shown = await answer.json()
            print("GET /jobs/ID, waiting:", shown["state"], shown["value"])
        async with client.get("/jobs/nonsense") as answer:
            print("GET /jobs/nonsense:", answer.status)


async def main() -> None:
    runner = web.AppRunner(make_site())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()  # port 0: any free port
    host, port = runner.addresses[0][:2]
    async with Worker(app):
        await ask(f"http://{host}:{port}")
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())

# Output:
# GET /sum: 8
# GET /slow/sum: 504 The job did not end in time
# POST /sums: 202
# GET /jobs/ID at once: False
# GET /jobs/ID, waiting: SUCCESS 3
# GET /jobs/nonsense: 404
