"""Bodies that yield: a generator is driven to its end, item by item, on the loop or in a thread."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Protocol

from asyncq.serializers import PLAIN_VALUE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from asyncq.executors import Claim
    from asyncq.serializers import ValueCodec


class Outlet(Protocol):
    """Where the items go."""

    def add(self, item: Any) -> bool:
        """Takes an item, on any thread; True if `room` is to be awaited before the next."""
        ...

    async def room(self) -> None:
        """Waits until there is room for more."""
        ...

    async def close(self) -> None:
        """Waits until everything that was added has arrived."""
        ...

    def drop(self) -> None:
        """Lets go of what has not."""
        ...


class Kept(list[bytes]):
    """An outlet for a call that is made here and now: the items themselves."""

    codec: ValueCodec = PLAIN_VALUE

    def add(self, item: Any) -> bool:
        """Keeps it as it would travel."""
        self.append(self.codec.dumps(item, path=f"item {len(self) + 1}"))
        return False

    async def room(self) -> None:
        """There always is some."""

    async def close(self) -> None:
        """They are all here."""

    def drop(self) -> None:
        """Nothing is on its way."""


async def on_loop(generator: AsyncGenerator[Any, Any], outlet: Outlet) -> None:
    """Drives an async generator. Cancelled, it closes it."""
    async with aclosing(generator):
        async for item in generator:
            if outlet.add(item):
                await outlet.room()


def run_inline(generator: Generator[Any, Any, Any], outlet: Outlet) -> None:
    """Drives a plain generator on this thread, into an outlet that always has room."""
    with closing(generator):
        for item in generator:
            outlet.add(item)


def in_thread(
    function: Callable[..., Generator[Any, Any, Any]], claim: Claim, outlet: Outlet
) -> Callable[..., None]:
    """What drives a plain generator, on another thread than the loop's. It ends between two items when the
    job is not wanted any more, or its time is over.
    """
    loop = asyncio.get_running_loop()

    def drive(*args: Any, **kwargs: Any) -> None:
        with closing(function(*args, **kwargs)) as generator:
            for item in generator:
                if claim.is_late or not claim.wanted:
                    return
                if outlet.add(item):
                    asyncio.run_coroutine_threadsafe(outlet.room(), loop).result()

    return drive
