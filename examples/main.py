"""A first look: an app, two tasks and a worker in one process, on an embedded Valkey started for it.

Run it with `make run`, or `python examples/main.py`.
"""

import asyncio
import logging

from asyncq import AsyncQ, Worker

logging.getLogger("asyncq.worker").setLevel(logging.CRITICAL)  # the job that fails below is meant to fail

app = AsyncQ(namespace="first-look")  # no URL: this project's Valkey; the first process starts it


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
def mean(numbers: list[float]) -> float:  # a plain function: a worker runs it in a thread
    return sum(numbers) / len(numbers)


async def main() -> None:
    async with app, Worker(app):
        result = await add.delay(4, 4)
        print(f"add(4, 4) = {await result.get(timeout=10)}, state {result.state}")
        print(f"mean([1, 2, 6]) = {await mean.call([1, 2, 6])}")

        results = await add.map([(number, number) for number in range(1000)])
        values = await results.get(timeout=30)
        print(f"{len(results)} jobs sent in one go, sum of their values: {sum(values)}")

        try:
            await mean.call([])
        except ZeroDivisionError as error:
            print(f"mean([]) raised {error!r}, as it would have here")


asyncio.run(main())

# Output:
# add(4, 4) = 8, state SUCCESS
# mean([1, 2, 6]) = 3.0
# 1000 jobs sent in one go, sum of their values: 999000
# mean([]) raised ZeroDivisionError('division by zero'), as it would have here
