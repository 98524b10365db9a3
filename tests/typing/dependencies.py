"""Dependencies as a type checker sees them: filled by the worker, and never asked for at a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import asyncq
from asyncq import AsyncQ, AsyncResult, Call, Context, Depends, JobEvent, Middleware, ResultSet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

app = AsyncQ(lifespan=None)


class Pool:
    """Stands for a pool of connections."""

    async def fetch(self, query: str) -> list[int]:
        return [len(query)]


def plain() -> Pool:
    return Pool()


async def coroutine() -> Pool:
    return Pool()


def generator() -> Iterator[Pool]:
    yield Pool()


def full_generator() -> Generator[Pool, None, None]:
    yield Pool()


async def async_generator() -> AsyncIterator[Pool]:
    yield Pool()


async def full_async_generator() -> AsyncGenerator[Pool, None]:
    yield Pool()


assert_type(Depends(plain), Pool)
assert_type(Depends(coroutine), Pool)
assert_type(Depends(generator), Pool)
assert_type(Depends(full_generator), Pool)
assert_type(Depends(async_generator), Pool)
assert_type(Depends(full_async_generator, scope="worker"), Pool)
assert_type(Depends(Pool), Pool)
assert_type(Depends(asyncq.current), Context)

wrong: str = Depends(plain)  # type: ignore[assignment]
Depends(plain, scope="request")  # type: ignore[call-overload]
Depends(3)  # type: ignore[call-overload]


@app.task
async def count(
    query: str, *, pool: Pool = Depends(coroutine), job: Context = Depends(asyncq.current)
) -> int:
    return len(await pool.fetch(query)) + job.attempt


@app.task
def double(number: int, pool: Pool = Depends(plain)) -> int:
    return 2 * number


async def calls() -> None:
    assert_type(await count.delay("x"), AsyncResult[int])
    assert_type(await count.call("x"), int)
    assert_type(count.call_sync("x"), int)
    assert_type(await double.map([(1,), (2,)]), ResultSet[int, AsyncResult[int]])
    assert_type(await (count.s("x") | double.s()).call(), int)
    await count("x", pool=Pool())
    await count.delay(3)  # type: ignore[arg-type]
    await count.delay()  # type: ignore[call-arg]
    with app.override({coroutine: plain, asyncq.current: lambda: None}):
        pass


class Timing(Middleware):
    async def on_enqueue(self, call: Call, call_next: Any) -> bool:
        assert_type(call.task, str)
        assert_type(call.headers, dict[str, Any])
        call.headers["x"] = 1
        call.task = "other"  # type: ignore[misc]
        answer: bool = await call_next(call)
        return answer


app.add_middleware(Timing())
app.add_middleware(Timing)  # type: ignore[arg-type]


@app.on_success
@app.on_failure
async def hook(event: JobEvent) -> None:
    assert_type(event.error, Exception | None)
    assert_type(event.duration, float | None)


@app.on_retry  # type: ignore[type-var]
def plain_hook(event: JobEvent) -> None: ...
