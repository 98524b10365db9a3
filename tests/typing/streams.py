"""Progress and streams as users write them: run by mypy --strict and pyright, never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import asyncq
from asyncq import (
    AsyncQ,
    AsyncResult,
    Chain,
    EagerResult,
    Event,
    Group,
    GroupResult,
    ResultSet,
    Signature,
    State,
    Stream,
    StreamResult,
    SyncStream,
    Task,
    Workflow,
    group,
)

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
    assert_type(await result.get(propagate=False), Exception | None)
    assert_type(result.wait_sync(propagate=False), Exception | None)
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


async def every_way_of_sending() -> None:
    """Whatever enqueues a generator task gives a handle that knows the items."""
    assert_type(await numbers.apply_async((3,), queue="other"), StreamResult[int])
    assert_type(await numbers.options(key="k").apply_async((3,)), StreamResult[int])
    assert_type(await numbers.call(3), None)
    assert_type(await numbers.s(3).call(), None)
    results = await numbers.map([(1,), (2,)])
    assert_type(results, ResultSet[None, StreamResult[int]])
    assert_type(await results, list[None])
    assert_type(results[0], StreamResult[int])
    assert_type(results[:1], ResultSet[None, StreamResult[int]])
    for one in results:
        assert_type(one.stream(), Stream[int])
    async for one in results.as_completed():
        assert_type(one, StreamResult[int])
    done, _ = await asyncq.wait(results)
    assert_type(done, set[StreamResult[int]])
    async for one in asyncq.as_completed(results):
        assert_type(one, StreamResult[int])
    assert_type(await app.submit([words.s("a"), words.si("b")]), ResultSet[None, StreamResult[str]])
    assert_type(words.s("a").delay_sync(), StreamResult[str])
    assert_type(words.apply_async_sync(("a",)), StreamResult[str])
    assert_type(words.map_sync([("a",)])[0], StreamResult[str])
    assert_type(words.apply(("a",)), EagerResult[None])


async def in_workflows() -> None:
    """A workflow that ends in a generator task, too."""
    call = numbers.s(3)
    assert_type(call, Signature[None, StreamResult[int]])
    assert_type(call.set(queue="q").options(countdown=1), Signature[None, StreamResult[int]])
    assert_type(await numbers.si(3).apply_async(), StreamResult[int])
    assert_type(call | words.s(), Chain[None, StreamResult[str]])
    assert_type(await (call | words.s()).delay(), StreamResult[str])
    assert_type(asyncq.chain(call, words.s()), Chain[None, StreamResult[str]])
    assert_type(asyncq.chord([call], words.s()), Chain[None, StreamResult[str]])
    both = group(call, call)
    assert_type(both, Group[None, StreamResult[int]])
    assert_type(await (call | both).delay(), GroupResult[None, StreamResult[int]])
    assert_type((await both.delay())[0].stream(), Stream[int])
    mixed: list[Workflow[Any]] = [call, both]
    any_task: list[Task[..., Any]] = [numbers, words]
    plain_set: ResultSet[None] = await numbers.map([(1,)])  # a handle of a stream is a handle
    plain_handle: AsyncResult[None] = await call.delay()
    assert len(mixed) + len(any_task) == len(plain_handle.id) + len(plain_set)
    own: ResultSet[None, StreamResult[int]] = ResultSet([await call.delay()])
    assert_type(own[0].stream(), Stream[int])
    assert_type(ResultSet([plain_handle]), ResultSet[None])


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
