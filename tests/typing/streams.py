"""Progress and streams as users write them: run by mypy --strict and pyright, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import asyncq
from asyncq import AsyncQ, AsyncResult, Event, State, Stream, StreamResult, SyncStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

app = AsyncQ("redis://localhost:6379/0")


@app.task
async def numbers(n: int) -> AsyncIterator[int]:
    """An async generator task."""
    for i in range(n):
        await asyncq.current().progress(i, n, message="on the way")
        yield i


@app.task(queue="words", retry=None)
async def words(text: str) -> AsyncGenerator[str, None]:
    """One with options."""
    for word in text.split():
        yield word


@app.task
def plain(n: int) -> Iterator[float]:
    """A plain generator task."""
    asyncq.current().update_state_sync("AT", {"n": n})
    yield n / 2


@app.task(name="bytes")
def parts(path: str) -> Generator[bytes, None, None]:
    """A plain one with options."""
    yield path.encode()


async def reading() -> None:
    """Handles know the items."""
    result = await numbers.delay(3)
    assert_type(result, StreamResult[int])
    assert_type(await result, None)
    assert_type(result.stream(after=1), Stream[int])
    async for number in result.stream():
        assert_type(number, int)
    assert_type(await numbers.options(queue="other").delay(3), StreamResult[int])
    assert_type(await (await words.delay("a b")).stream().__anext__(), str)
    assert_type(words.AsyncResult("id"), StreamResult[str])
    assert_type(app.AsyncResult("id").stream(), Stream[Any])
    await numbers.delay("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def reading_in_a_thread() -> None:
    """So do those of plain code."""
    assert_type(plain.delay_sync(3), StreamResult[float])
    assert_type(parts.delay_sync("p").stream_sync(), SyncStream[bytes])
    for part in parts.delay_sync("p").stream_sync(after=2):
        assert_type(part, bytes)
    for item in plain(3):
        assert_type(item, float)


async def following(result: AsyncResult[int]) -> None:
    """Events have one type, whatever the task."""
    async for event in result.events(timeout=10):
        assert_type(event, Event)
        assert_type(event.state, State | str)
        assert_type(event.final, bool)
    for event in result.events_sync():
        assert_type(event.info, Any)
    assert_type(await result.get(on_event=print), int)
    context = asyncq.current()
    assert_type(context.cancelled, bool)
    await context.heartbeat()
    context.heartbeat_sync()
    context.progress_sync(1, 2)
    async for item in numbers(3):
        assert_type(item, int)
