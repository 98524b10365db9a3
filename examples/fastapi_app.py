"""FastAPI: an endpoint that awaits a job, one that only launches it, and a router that shows it by its id.

Run it with `python examples/fastapi_app.py`: it starts the site and a worker, sends requests as a client
would, and ends. To keep the site running, run `uvicorn fastapi_app:site` and `python worker.py` in this
folder. Needs `pip install fastapi uvicorn httpx`.
"""

import asyncio
import socket

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.requests import HTTPConnection
from tasks import add, app, slow_add

from asyncq import Worker
from asyncq.integrations.fastapi import (
    JobAccepted,
    accepted,
    add_error_handlers,
    cancel_on_disconnect,
    jobs_router,
)


async def may_see(_request: HTTPConnection, _id: str) -> bool:
    return True  # a real site looks whether the job belongs to the user of the request


site = FastAPI(lifespan=app.lifespan)
site.include_router(jobs_router(app, authorize=may_see), prefix="/jobs")
add_error_handlers(site)  # a wait that is over is 504, what a task raised is 500, ...


@site.get("/sum")
async def wait_for_sum(x: int, y: int) -> int:
    return await add.options(wait=10).call(x, y)


@site.get("/blocking/sum")
def wait_for_sum_in_a_thread(x: int, y: int) -> int:
    # A `def` endpoint runs in a thread; its asyncq calls run on the app's background loop.
    return add.options(wait=10).call_sync(x, y)


@site.get("/slow/sum")
async def wait_while_the_client_waits(x: int, y: int, request: Request, wait: float) -> int:
    async with cancel_on_disconnect(request, await slow_add.delay(x, y, seconds=0.5)) as result:
        return await result.get(timeout=wait)


@site.post("/sums", status_code=202)
async def launch(x: int, y: int, request: Request, response: Response) -> JobAccepted:
    return accepted(await slow_add.delay(x, y, seconds=0.5), response, request)


async def ask(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        print("GET /sum:", (await client.get("/sum", params={"x": 4, "y": 4})).json())
        print("GET /blocking/sum:", (await client.get("/blocking/sum", params={"x": 20, "y": 22})).json())
        late = await client.get("/slow/sum", params={"x": 1, "y": 2, "wait": 0.01})
        print("GET /slow/sum:", late.status_code, late.json()["title"])
        launched = await client.post("/sums", params={"x": 1, "y": 2})
        job = launched.headers["Location"]
        print("POST /sums:", launched.status_code)
        print("GET /jobs/ID at once:", "value" in (await client.get(job)).json())
        shown = (await client.get(job, headers={"Prefer": "wait=10"})).json()
        print("GET /jobs/ID, waiting:", shown["state"], shown["value"])
        print("GET /jobs/nonsense:", (await client.get("/jobs/nonsense")).status_code)


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # port 0: any free port
        server = uvicorn.Server(uvicorn.Config(site, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with app, Worker(app):
            await ask(f"http://127.0.0.1:{listening.getsockname()[1]}")
            server.should_exit = True
            await serving


if __name__ == "__main__":
    asyncio.run(main())

# Output:
# GET /sum: 8
# GET /blocking/sum: 42
# GET /slow/sum: 504 The job did not end in time
# POST /sums: 202
# GET /jobs/ID at once: False
# GET /jobs/ID, waiting: SUCCESS 3
# GET /jobs/nonsense: 404
