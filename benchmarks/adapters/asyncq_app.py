"""A small asyncq app: a task that does nothing, and what the features need."""

import asyncio

from asyncq import AsyncQ

app = AsyncQ()


@app.task
async def noop() -> None:
    """Do nothing."""


@app.task
async def echo(value: object = None) -> object:
    """Give back what was given."""
    return value


@app.task
async def count(values: list[object]) -> int:
    """Say how many values there are."""
    return len(values)


@app.task
async def sleep(seconds: float) -> None:
    """Last until it is cancelled."""
    await asyncio.sleep(seconds)
