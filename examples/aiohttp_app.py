"""aiohttp: a handler that awaits a job, one that only launches it, and one that looks it up by its id.

Run it with `python examples/aiohttp_app.py`: it starts the site and a worker, sends requests as a client
would, and ends. To keep the site running, run `python -m aiohttp.web -P 8080 aiohttp_app:make_site` and
`python worker.py` in this folder. Needs `pip install aiohttp`.
"""

import asyncio

from aiohttp import ClientSession, web
from tasks import add, app, slow_add

from asyncq import ResultNotFound, ResultTimeout, Worker

routes = web.RouteTableDef()


@routes.get("/sum")
async def wait_for_sum(request: web.Request) -> web.Response:
    try:
        value = await add.options(wait=10).call(int(request.query["x"]), int(request.query["y"]))
    except ResultTimeout:  # no worker runs, or none finished in time; the job goes on
        raise web.HTTPGatewayTimeout(text="the job takes longer than ten seconds") from None
    return web.json_response(value)


@routes.post("/jobs")
async def launch(request: web.Request) -> web.Response:
    result = await slow_add.delay(int(request.query["x"]), int(request.query["y"]), seconds=0.5)
    return web.json_response({"id": result.id}, status=202)


@routes.get("/jobs/{id}")
async def look(request: web.Request) -> web.Response:
    result = slow_add.AsyncResult(request.match_info["id"])
    try:
        value = await result.get(timeout=float(request.query.get("wait", 0)))
    except ResultTimeout:
        return web.json_response({"ready": False})
    except ResultNotFound:
        raise web.HTTPNotFound from None
    return web.json_response({"ready": True, "value": value})


def make_site(_arguments: list[str] | None = None) -> web.Application:
    site = web.Application()
    site.add_routes(routes)
    site.cleanup_ctx.append(app.lifespan)
    return site


async def ask(url: str) -> None:
    async with ClientSession(url) as client:
        async with client.get("/sum?x=4&y=4") as answer:
            print("GET /sum:", await answer.json())
        async with client.post("/jobs?x=1&y=2") as answer:
            print("POST /jobs:", answer.status)
            job = (await answer.json())["id"]
        async with client.get(f"/jobs/{job}") as answer:
            print("GET /jobs/ID at once:", await answer.json())
        async with client.get(f"/jobs/{job}?wait=10") as answer:
            print("GET /jobs/ID, waiting:", await answer.json())
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
# POST /jobs: 202
# GET /jobs/ID at once: {'ready': False}
# GET /jobs/ID, waiting: {'ready': True, 'value': 3}
# GET /jobs/nonsense: 404
