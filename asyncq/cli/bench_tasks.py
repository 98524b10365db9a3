"""The task that `asyncq bench` calls. Its workers run `asyncq worker asyncq.cli.bench_tasks:app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.cli.target import bare

if TYPE_CHECKING:
    from asyncq.app import AsyncQ

app: AsyncQ = bare()


@app.task(name="bench.noop", result_ttl=60)
async def noop(payload: str = "") -> None:
    """Does nothing with its payload: what is left is the cost of asyncq."""
