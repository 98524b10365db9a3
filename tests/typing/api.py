"""What users write, as the type checkers see it: run by mypy --strict and pyright, never imported.

Each `type: ignore` states an error that must be there: `warn_unused_ignores` fails if it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import asyncq
from asyncq import AsyncQ, AsyncResult, Outcome, ResultSet, Retry, Signature, State, Task, Worker

app = AsyncQ("redis://localhost:6379/0", namespace="shop", lease=timedelta(seconds=5), result_ttl=60)


@dataclass
class Order:
    """A value of the user's own."""

    id: int
    total: float


@app.task
async def add(x: int, y: int = 0) -> int:
    """A coroutine task."""
    return x + y


@app.task
def shout(text: str, *, times: int = 1) -> str:
    """A plain task."""
    return text.upper() * times


def parse(text: str) -> int:
    """Not a task yet."""
    return int(text)


@app.task(name="shop.price", queue="prices", result_ttl=60, ignore_result=False, expires=timedelta(minutes=1))
async def price(order: Order) -> float | None:
    """A task with options and types of the user's own."""
    return order.total


@app.task(queue="files", priority=-3, track_started=False, retry=Retry(max_retries=5, on=(OSError,)))
def checksum(*paths: str) -> list[bytes]:
    """A plain task with options and any number of arguments."""
    return [path.encode() for path in paths]


@app.task
async def nothing() -> None:
    """A task without arguments and without value."""


async def calls() -> None:
    """Calling, sending and waiting keep the types of the function."""
    assert_type(await add(1, 2), int)
    assert_type(shout("a", times=2), str)
    assert_type(checksum("a", "b"), list[bytes])

    result = await add.delay(1, y=2)
    assert_type(result, AsyncResult[int])
    assert_type(await result, int)
    assert_type(await result.get(timeout=10), int)
    assert_type(await result.wait(timedelta(seconds=1), propagate=True), int)
    assert_type(await result.outcome(), Outcome[int])
    assert_type((await result.outcome()).value, int | None)
    assert_type((await result.outcome()).unwrap(), int)
    assert_type((await result.outcome()).error, Exception | None)
    assert_type((await result.outcome()).state, State)
    assert_type(result.result, int | Exception | None)
    assert_type(result.state, State | str)
    assert_type(result.date_done, datetime | None)
    assert_type(await result.ready(), bool)
    assert_type(await result.successful(), bool)
    assert_type(await result.failed(), bool)
    assert_type(await result.exists(), bool)
    assert_type(await result.refresh(), State | str)
    assert_type(await result.revoke(terminate=True, wait=True, timeout=1), State | str)
    assert_type(await result.revoke(terminate=True, signal="SIGKILL"), State | str)
    assert_type(await app.task(executor="process")(parse).call("1"), int)
    assert_type(await result.forget(), None)
    assert_type(result.then(lambda done: done.id), AsyncResult[int])

    assert_type(await add.call(1), int)
    assert_type(await shout.call("a", times=3), str)
    assert_type(await price.call(Order(1, 2.0)), float | None)
    assert_type(await checksum.call("a", "b", "c"), list[bytes])
    assert_type(await nothing.call(), None)
    assert_type(await add.apply_async((1, 2)), AsyncResult[int])


async def exceptions_as_values(result: AsyncResult[int], propagate: bool) -> None:
    """Without `propagate=True`, an exception may be what comes back."""
    assert_type(await result.get(propagate=True), int)
    assert_type(await result.get(propagate=False), int | Exception)
    assert_type(await result.get(10, propagate=propagate), int | Exception)
    assert_type(await result.wait(propagate=False), int | Exception)
    assert_type(result.get_sync(propagate=False), int | Exception)
    assert_type(result.get_sync(10, propagate=propagate), int | Exception)
    assert_type(result.wait_sync(propagate=False), int | Exception)
    assert_type(add.apply((1,)).get_sync(propagate=False), int | Exception)
    assert_type(await add.apply((1,)).get(propagate=False), int | Exception)
    assert_type(await (add.s(1) | shout.s()).apply().get(propagate=False), str | Exception)
    value: int = await result.get(propagate=False)  # type: ignore[assignment]
    value = result.get_sync(propagate=propagate)  # type: ignore[assignment]
    assert value


async def options() -> None:
    """Options keep the types."""
    urgent = add.options(queue="urgent", expires=30, wait=2.0, headers={"a": 1}, task_id="x", result_ttl=60)
    assert_type(await urgent.delay(1, 2), AsyncResult[int])
    assert_type(await urgent.call(1), int)
    assert_type(await shout.options(expires=datetime.now(UTC)).call("a"), str)


async def many() -> None:
    """Batches."""
    results = await add.map([(1, 2), (3, 4)])
    assert_type(results, ResultSet[int])
    assert_type(await results.get(timeout=1), list[int])
    assert_type(await results.join(), list[int])
    assert_type(results[0], AsyncResult[int])
    assert_type([result.id for result in results], list[str])
    assert_type(add.s(1, y=2), Signature[int])
    assert_type(await app.submit([add.s(1), add.s(2)]), ResultSet[int])
    assert_type(app.ResultSet([await add.delay(1)]), ResultSet[int])


@app.task
async def mail(to: str, subject: str, copies: int = 0, *, urgent: bool = False) -> bool:
    """A task with parameters of every kind."""
    return bool(to and subject and copies and urgent)


@app.task
async def long(a: int, b: str, c: int, d: str, e: int, f: str) -> None:
    """A task with more parameters than the types of `map` know: any sequence goes."""


@app.task
async def pair(number: int, text: str) -> str:
    """A task without defaults."""
    return text * number


async def rows(lists: list[list[int]], unknown: list[tuple[Any, ...]], named: Task[..., Any]) -> None:
    """`map` takes what each call takes, as tuples; of a list's length checkers know nothing."""
    assert_type(await pair.map([(1, "a"), (2, "b")]), ResultSet[str])
    assert_type(await pair.map((n, str(n)) for n in range(3)), ResultSet[str])
    assert_type(await pair.map(zip([1, 2], ["a", "b"], strict=True)), ResultSet[str])
    assert_type(await pair.options(queue="q").map({(1, "a")}), ResultSet[str])
    assert_type(pair.map_sync([(1, "a")]), ResultSet[str])
    assert_type(await add.map([(1,), (1, 2)]), ResultSet[int])
    assert_type(await add.map(lists), ResultSet[int])
    assert_type(await add.map(unknown), ResultSet[int])
    assert_type(await add.map([]), ResultSet[int])
    assert_type(await shout.map([("a",), ("b",)]), ResultSet[str])
    assert_type(await checksum.map([("a",), ("a", "b"), ()]), ResultSet[list[bytes]])
    assert_type(await nothing.map([(), ()]), ResultSet[None])
    assert_type(await mail.map([("a", "b"), ("a", "b", 1)]), ResultSet[bool])
    assert_type(await mail.options(queue="q").map([("a", "b", 1)]), ResultSet[bool])
    assert_type(await long.map([(1, "a", 2, "b", 3, "c")]), ResultSet[None])
    assert_type(await named.map([(1, "a"), (2,)]), ResultSet[Any])
    assert_type(await price.map([(Order(1, 2.0),)]), ResultSet[float | None])


async def wrong_rows() -> None:
    """What `map` refuses."""
    await pair.map([(1,)])  # type: ignore[list-item]
    await pair.map([(1, "a", 2)])  # type: ignore[list-item]
    await pair.map([(1, 2)])  # type: ignore[list-item]
    await pair.map([("a", 1)])  # type: ignore[list-item]
    await pair.map((n, n) for n in range(3))  # type: ignore[misc]
    pair.map_sync([(1,)])  # type: ignore[list-item]
    await pair.options(queue="q").map([(1,)])  # type: ignore[list-item]
    await pair.map(["ab"])  # type: ignore[list-item]
    await pair.map([1])  # type: ignore[list-item]
    await add.map([("a", 1)])  # type: ignore[list-item]
    await add.map([1])  # type: ignore[list-item]
    await shout.map([("a", 2)])  # type: ignore[list-item]
    await nothing.map([(1,)])  # type: ignore[list-item]
    await mail.map([("a", None)])  # type: ignore[list-item]
    await price.map([(1,)])  # type: ignore[list-item]


async def by_id() -> None:
    """Handles from an id."""
    assert_type(add.AsyncResult("id"), AsyncResult[int])
    assert_type(await price.AsyncResult("id").get(), float | None)
    assert_type(app.AsyncResult("id"), AsyncResult[Any])
    assert_type(await app.send("shop.price", (1,), {"a": 2}, queue="q"), AsyncResult[Any])
    assert_type(asyncq.current().id, str)


def blocking() -> None:
    """The blocking twins."""
    with app:
        result = add.delay_sync(1, y=2)
        assert_type(result, AsyncResult[int])
        assert_type(result.get_sync(timeout=10), int)
        assert_type(result.wait_sync(), int)
        assert_type(result.outcome_sync(timeout=1), Outcome[int])
        assert_type(result.ready_sync(), bool)
        assert_type(result.exists_sync(), bool)
        assert_type(result.refresh_sync(), State | str)
        assert_type(result.revoke_sync(terminate=True), State | str)
        assert_type(result.forget_sync(), None)
        assert_type(add.call_sync(1, 2), int)
        assert_type(shout.call_sync("a", times=2), str)
        assert_type(add.map_sync([(1,)]), ResultSet[int])
        assert_type(add.map_sync([(1,)]).get_sync(timeout=1), list[int])
        assert_type(add.apply_async_sync((1,)), AsyncResult[int])
        assert_type(app.submit_sync([add.s(1)]), ResultSet[int])
        assert_type(app.send_sync("x"), AsyncResult[Any])


async def running() -> None:
    """Apps and workers as context managers."""
    async with app as opened, Worker(app, concurrency=5, queues=["a"], grace=1, name="w") as worker:
        assert_type(opened, AsyncQ)
        assert_type(worker, Worker)
        assert_type(worker.done, int)


async def mistakes() -> None:
    """What the checkers must refuse."""
    await add.delay("1")  # type: ignore[arg-type]
    await add.delay()  # type: ignore[call-arg]
    await add.delay(1, 2, 3)  # type: ignore[call-arg]
    await add.delay(1, z=2)  # type: ignore[call-arg]
    await add.call(x="1")  # type: ignore[arg-type]
    await add("1")  # type: ignore[arg-type]
    await shout.delay("a", times="2")  # type: ignore[arg-type]
    await shout.delay("a", 2)  # type: ignore[call-arg]
    shout(1)  # type: ignore[arg-type]
    await price.delay(1)  # type: ignore[arg-type]
    await checksum.call("a", 2)  # type: ignore[arg-type]
    await nothing.delay(1)  # type: ignore[call-arg]
    add.si("1")  # type: ignore[arg-type]
    add.options(queue=5)  # type: ignore[arg-type]
    add.options(countdwon=5)  # type: ignore[call-arg]
    add.call_sync("1")  # type: ignore[arg-type]
    await add.options(queue="q").delay("1")  # type: ignore[arg-type]
    result = await add.delay(1)
    await result.get(timeout="soon")  # type: ignore[call-overload]
    result.get_sync(timeout="soon")  # type: ignore[call-overload]
    text: str = await result.get()  # type: ignore[assignment]
    assert text
