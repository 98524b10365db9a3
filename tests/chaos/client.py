"""A client process that enqueues jobs one by one, and notes in its journal which were accepted.

`python -m chaos.client FIRST COUNT`: the jobs have the numbers from FIRST on. A trial may kill the process.
"""

from __future__ import annotations

import asyncio
import sys

from asyncq import AsyncQ
from chaos import jobs, oracle


async def main(first: int, count: int) -> None:
    app = AsyncQ()
    tasks = jobs.register(app)
    async with app:
        for number in range(first, first + count):
            result = await tasks.work.delay(number, 0.0)
            jobs.journal().note(oracle.ACCEPTED, result.id, number)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
