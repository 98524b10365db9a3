"""A client process that sends workflows until it is killed: `python -m chaos.submitter FIRST COUNT SEED`.

The first job has the number FIRST. The process sends COUNT diamonds, one after the other, and notes which
were accepted.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from asyncq import AsyncQ
from chaos import jobs, oracle
from chaos.trials.workflows import Draft


async def main(first: int, count: int, seed: int) -> None:
    app = AsyncQ()
    draft = Draft(jobs.register(app), Random(seed), first)
    async with app:
        print("ready", flush=True)  # noqa: T201  the process that started this one waits for it
        for work in (draft.diamond() for _ in range(count)):
            await work.workflow.delay()
            for number in work.parents:
                jobs.journal().note(oracle.ACCEPTED, f"job-{number}", number)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
