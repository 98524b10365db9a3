"""Tasks of an `AsyncQ` app of the site. They use the database, on threads and on the loop."""

from __future__ import annotations

import os
import threading

from asgiref.sync import sync_to_async
from django.db import connection

import asyncq
from asyncq import AsyncQ, Depends

app = AsyncQ(
    os.environ["SHOP_SERVER"],
    namespace=os.environ["SHOP_NAMESPACE"],
    default_queue="shop",
    result_extended=True,
)


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
def fail(x: int, y: int) -> None:
    raise ValueError(x, y)


def find_connection() -> bool:
    """Whether this thread has an open connection; then it has one."""
    is_open = connection.connection is not None
    connection.ensure_connection()
    return is_open


@app.task
def plain_connection() -> list[bool]:
    """Whether a connection was open at the beginning of the job, and whether it stays open in the job."""
    return [find_connection(), find_connection()]


@app.task
def injected_connection(is_open: bool = Depends(find_connection)) -> list[bool]:
    return [is_open, find_connection()]


@app.task(executor="process")
def process_connection() -> list[bool]:
    return [find_connection(), find_connection()]


@app.task
async def loop_connection(together: int) -> list[object]:
    """Returns the same of a coroutine that uses the ORM, and the thread that Django has chosen, when so many
    jobs have met.
    """
    found = [await sync_to_async(find_connection)(), await sync_to_async(find_connection)()]
    met.append(asyncq.current().id)
    while len(met) < together:
        await asyncq.current().heartbeat()
    return [*found, await sync_to_async(threading.get_ident)()]


met: list[str] = []


@app.task
async def count_orders(name: str) -> int:
    from django_shop.models import Order  # the site's command may import this before its models are loaded

    return await Order.objects.filter(name=name).acount()
