"""The app of the files beside it: a site, and its task."""

from fastapi import FastAPI

from asyncq import AsyncQ
from asyncq.integrations.fastapi import add_error_handlers

app = AsyncQ()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


site = FastAPI(lifespan=app.lifespan)
add_error_handlers(site)


@site.get("/health")
async def health() -> dict[str, str]:
    return {"state": "up"}


@site.get("/sum")
async def wait_for_sum(x: int, y: int) -> int:
    return await add.options(wait=10).call(x, y)
