"""A worker process with the second version of the classes in `versions`: `python -m
helpers.second_version`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from asyncq import AsyncQ, Worker
from helpers.versions import SECOND, Second, annotated, register, shop

app = AsyncQ()
sys.modules["shop"] = shop(Second)
register(app, SECOND, Second)


def old(value: Any) -> Any:
    return repr(value), value


def login(value: Any) -> Any:
    return repr(value), value


def price(value: Any) -> Any:
    return repr(value), value


def order(value: Any) -> Any:
    return repr(value), value


for _give in (old, login, price, order):
    annotated(_give, SECOND[_give.__name__])
    app.task(name=f"{_give.__name__}.thread")(_give)
    app.task(name=f"{_give.__name__}.process", executor="process")(_give)


async def main() -> None:
    async with app, Worker(app):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
