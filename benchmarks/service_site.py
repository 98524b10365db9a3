"""The site of the scenario `service`: `python service_site.py SYSTEM URL PORT`, one uvicorn process.

Two sites have the same endpoints. One awaits a job in each request; the other makes one round trip to the
server by redis-py, which is the least that such a request can cost.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
import uvicorn
from fastapi import FastAPI, Request


def round_trips(url: str) -> FastAPI:
    """Returns the site that makes one round trip in each request."""
    client = redis.asyncio.Redis.from_url(url)

    @asynccontextmanager
    async def lifespan(_site: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    site = FastAPI(lifespan=lifespan)

    @site.get("/echo/{number}")
    async def echo(number: int) -> int:
        return int(await client.echo(str(number)))

    return site


def jobs(url: str) -> FastAPI:
    """Returns the site that awaits a job in each request."""
    from adapters import asyncq_features

    from asyncq.integrations.fastapi import cancel_on_disconnect

    app = asyncq_features.app
    app.reconfigure(url=url)
    site = FastAPI(lifespan=app.lifespan)

    @site.get("/echo/{number}")
    async def echo(number: int) -> object:
        return await asyncq_features.echo.call(number)

    @site.get("/nap")
    async def nap(seconds: float, request: Request) -> None:
        async with cancel_on_disconnect(request, await asyncq_features.sleep.delay(seconds)) as result:
            await result

    @site.get("/left")
    async def left() -> dict[str, int]:
        with os.scandir("/proc/self/fd") as files:
            return {"tasks": len(asyncio.all_tasks()), "connections": sum(1 for _ in files)}

    return site


SITES = {"raw": round_trips, "asyncq": jobs}


if __name__ == "__main__":
    system, url, port = sys.argv[1:]
    os.environ["ASYNCQ_URL"] = url
    uvicorn.run(SITES[system](url), port=int(port), log_level="warning", access_log=False)
