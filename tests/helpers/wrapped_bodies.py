"""Async functions that are wrapped in plain ones, as decorators without `async` wrap them."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import asyncq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function in a plain one, like a decorator that logs each call."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class OutOfStock(Exception):
    """Raised by a body."""


@plain
async def adds(x: int, y: int) -> tuple[int, str]:
    await asyncio.sleep(0)
    return x + y, asyncq.current().id


@plain
async def fails(what: str) -> None:
    await asyncio.sleep(0)
    raise OutOfStock(what)


@plain
async def sleeps() -> None:
    await asyncio.sleep(60)


@plain
async def retried() -> int:
    await asyncio.sleep(0)
    if asyncq.current().attempt == 1:
        raise OutOfStock("once")
    return asyncq.current().attempt


@plain
async def exits() -> None:
    raise SystemExit(3)


@plain
async def enqueues(x: int) -> tuple[int, str]:
    handle = await asyncq.current()._app.task_named("adds").delay(x, 1)
    return x, handle.id


@plain
async def counts(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


def on_own_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a plain function of a coroutine function, with an event loop for each call."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return wrapper


@on_own_loop
async def own_loop(x: int) -> int:
    return x + 1
