"""FastAPI: an endpoint that awaits a job, one that only launches it, and one that looks it up by its id.

Run it with `python examples/fastapi_app.py`: it starts the site and a worker, sends requests as a client
would, and ends. To keep the site running, run `uvicorn fastapi_app:site` and `python worker.py` in this
folder. Needs `pip install fastapi uvicorn httpx`.
"""

import asyncio
import socket

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from tasks import add, app, slow_add

from asyncq import ResultNotFound, ResultTimeout, Worker

site = FastAPI(lifespan=app.lifespan)


@site.exception_handler(ResultTimeout)
async def answer_504(_request: Request, _error: ResultTimeout) -> JSONResponse:
    # No worker runs, or none finished in time. The job goes on.
    return JSONResponse({"detail": "the job takes longer than ten seconds"}, 504)


@site.get("/sum")
async def wait_for_sum(x: int, y: int) -> int:
    return await add.options(wait=10).call(x, y)


@site.get("/blocking/sum")
def wait_for_sum_in_a_thread(x: int, y: int) -> int:
    # A `def` endpoint runs in a thread; its asyncq calls run on the site's own loop.
    return add.options(wait=10).call_sync(x, y)


@site.post("/jobs", status_code=202)
async def launch(x: int, y: int) -> dict[str, str]:
    result = await slow_add.delay(x, y, seconds=0.5)
    return {"id": result.id}


@site.get("/jobs/{job_id}")
async def look(job_id: str, wait: float = 0) -> dict[str, object]:
    result = slow_add.AsyncResult(job_id)
    try:
        return {"ready": True, "value": await result.get(timeout=wait)}
    except ResultTimeout:
        return {"ready": False}
    except ResultNotFound:
        raise HTTPException(404, "no such job") from None


async def ask(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        print("GET /sum:", (await client.get("/sum", params={"x": 4, "y": 4})).json())
        print("GET /blocking/sum:", (await client.get("/blocking/sum", params={"x": 20, "y": 22})).json())
        launched = await client.post("/jobs", params={"x": 1, "y": 2})
        job = launched.json()["id"]
        print("POST /jobs:", launched.status_code)
        print("GET /jobs/ID at once:", (await client.get(f"/jobs/{job}")).json())
        print("GET /jobs/ID, waiting:", (await client.get(f"/jobs/{job}", params={"wait": 10})).json())
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
# POST /jobs: 202
# GET /jobs/ID at once: {'ready': False}
# GET /jobs/ID, waiting: {'ready': True, 'value': 3}
# GET /jobs/nonsense: 404
