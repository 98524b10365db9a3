"""Runs the generator of a task to its end, item by item: on the loop, in a thread, or in the caller's thread.

Each item goes to an `ItemSink`, which may make the generator wait. Every run closes the generator.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Protocol

from asyncq.serializers import PLAIN_VALUE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from asyncq.execution.executors import JobControl
    from asyncq.serializers import ValueCodec


class ItemSink(Protocol):
    """Takes the items of a generator."""

    def add(self, item: Any) -> bool:
        """Takes an item, on any thread. Returns True if the caller must await `until_capacity` next."""
        ...

    async def until_capacity(self) -> None:
        """Waits until the sink can take more."""
        ...

    async def close(self) -> None:
        """Waits until everything that was added is stored."""
        ...

    def drop(self) -> None:
        """Drops what is not stored yet."""
        ...


class CollectedItems(list[bytes]):
    """The sink of a call that runs in the caller: a list of the encoded items."""

    codec: ValueCodec = PLAIN_VALUE

    def add(self, item: Any) -> bool:
        """Adds an item, encoded as for a stream."""
        self.append(self.codec.dumps(item, path=f"item {len(self) + 1}"))
        return False

    async def until_capacity(self) -> None:
        """Returns at once: a list takes any number of items."""

    async def close(self) -> None:
        """Returns at once: all items are in the list."""

    def drop(self) -> None:
        """Does nothing: no item is on its way."""


async def on_loop(generator: AsyncGenerator[Any, Any], sink: ItemSink) -> None:
    """Runs an async generator on the loop. If the call is cancelled, it closes the generator."""
    async with aclosing(generator):
        async for item in generator:
            if sink.add(item):
                await sink.until_capacity()


def run_inline(generator: Generator[Any, Any, Any], sink: ItemSink) -> None:
    """Runs a plain generator on this thread, with a sink that never makes it wait."""
    with closing(generator):
        for item in generator:
            sink.add(item)


def in_thread(
    function: Callable[..., Generator[Any, Any, Any]], control: JobControl, sink: ItemSink
) -> Callable[..., None]:
    """Returns a function that runs a plain generator on another thread than the loop's.

    The run ends between two items when the job is no longer wanted or its time is over.
    """
    loop = asyncio.get_running_loop()

    def drive(*args: Any, **kwargs: Any) -> None:
        with closing(function(*args, **kwargs)) as generator:
            for item in generator:
                if control.is_late or not control.is_wanted:
                    return
                if sink.add(item):
                    asyncio.run_coroutine_threadsafe(sink.until_capacity(), loop).result()

    return drive
