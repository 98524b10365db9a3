"""The tasks of the other examples, in their own module: clients and workers know them by the same names."""

import asyncio

from asyncq import AsyncQ

app = AsyncQ(namespace="examples")


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def slow_add(x: int, y: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return x + y


@app.task
def divide(x: int, y: int) -> float:
    return x / y
