"""Many handles, as the type checkers see them: run by mypy --strict and pyright, never imported.

Each `type: ignore` states an error that must be there: `warn_unused_ignores` fails if it is not.
"""

from __future__ import annotations

from typing import Any, assert_type

import asyncq
from asyncq import AsyncQ, AsyncResult, DependencyGraph, EagerResult, GroupResult, ResultSet, Scope, State

app = AsyncQ("redis://localhost:6379/0")


@app.task
async def add(x: int, y: int = 0) -> int:
    """A coroutine task."""
    return x + y


@app.task
def shout(text: str) -> str:
    """A plain task."""
    return text.upper()


async def together(a: AsyncResult[int], b: AsyncResult[str], c: AsyncResult[bytes]) -> None:
    """`gather` keeps each type, `wait` and `as_completed` the common one."""
    assert_type(await asyncq.gather(a), tuple[int])
    assert_type(await asyncq.gather(a, b), tuple[int, str])
    assert_type(await asyncq.gather(a, b, timeout=1), tuple[int, str])
    assert_type(await asyncq.gather(a, b, c, a, b, c), tuple[int, str, bytes, int, str, bytes])
    assert_type(await asyncq.gather(a, a, a, a, a, a, a), tuple[int, ...])
    assert_type(await asyncq.gather(*[a, a]), tuple[int, ...])
    assert_type(await asyncq.gather(a, b, return_exceptions=True), tuple[int | Exception, str | Exception])
    assert_type(await asyncq.gather(*[a], return_exceptions=True), tuple[int | Exception, ...])
    assert_type(await asyncq.gather(a, shout.apply(("a",))), tuple[int, str])
    assert_type(await asyncq.wait([a, a]), tuple[set[AsyncResult[int]], set[AsyncResult[int]]])
    async for result in asyncq.as_completed([a, a], timeout=1):
        assert_type(result, AsyncResult[int])
        assert_type(await result, int)


async def trees(a: AsyncResult[int]) -> None:
    """What came from a job may be of any type."""
    async for parent, job in a.iterdeps():
        assert_type(parent, AsyncResult[Any] | None)
        assert_type(job, AsyncResult[Any])
    async for job, _value in a.collect(timeout=1, propagate=False):
        assert_type(job, AsyncResult[Any])
    for job, _value in a.collect_sync():
        assert_type(job, AsyncResult[Any])
    assert_type(await a.build_graph(), DependencyGraph)
    assert_type(a.build_graph_sync(intermediate=True), DependencyGraph)
    assert_type(a.graph.to_dot(), str)


async def scopes(a: AsyncResult[int], b: ResultSet[str]) -> None:
    """What is kept is what it was."""
    async with app.scope() as scope:
        assert_type(scope, Scope)
        assert_type(scope.keep(a), AsyncResult[int])
        assert_type(scope.keep(b), ResultSet[str])
        scope.keep("id")  # type: ignore[type-var]
    with app.scope() as scope:
        assert_type(scope, Scope)


async def sets(results: ResultSet[int], a: AsyncResult[int]) -> None:
    """A set is a list of handles of one type."""
    assert_type(await results, list[int])
    assert_type(results[0], AsyncResult[int])
    assert_type(results[1:], ResultSet[int])
    async for result in results.as_completed():
        assert_type(result, AsyncResult[int])
    assert_type(await results.completed_count(), int)
    assert_type(await results.waiting(), bool)
    assert_type(await results.revoke(wait=True), list[State | str])
    assert_type(results.then(len), ResultSet[int])
    results.add(a)
    results.remove("id")


async def exceptions_as_values(results: ResultSet[int], group: GroupResult[str], propagate: bool) -> None:
    """Without `propagate=True`, exceptions may be in the list."""
    assert_type(await results.get(propagate=True), list[int])
    assert_type(await results.get(timeout=1, propagate=False), list[int | Exception])
    assert_type(await results.get(propagate=propagate), list[int | Exception])
    assert_type(await results.join(propagate=False), list[int | Exception])
    assert_type(results.get_sync(propagate=False), list[int | Exception])
    assert_type(results.join_sync(propagate=propagate), list[int | Exception])
    assert_type(await group.get(propagate=False), list[str | Exception])
    assert_type(await group.join(), list[str])
    assert_type(group.join_sync(propagate=False), list[str | Exception])
    values: list[int] = await results.get(propagate=False)  # type: ignore[assignment]
    assert values


async def groups(a: AsyncResult[int], b: AsyncResult[str]) -> None:
    """A group of groups has values of any type."""
    assert_type(GroupResult(results=[a]), GroupResult[int])
    assert_type(app.GroupResult(results=[a]), GroupResult[int])
    assert_type(await GroupResult("g", [a]).get(), list[int])
    nested = GroupResult("g", [a, GroupResult("h", [b])])
    assert_type(await nested.get(), list[Any])
    assert_type(await app.GroupResult.restore("g"), GroupResult[Any] | None)
    assert_type(await GroupResult.restore("g"), GroupResult[Any] | None)
    assert_type(await nested.save(), None)


def blocking(results: ResultSet[int]) -> None:
    """The blocking twins, and calls run here and now."""
    assert_type(results.get_sync(timeout=1), list[int])
    assert_type(results.ready_sync(), bool)
    for result in results.as_completed_sync(timeout=1):
        assert_type(result, AsyncResult[int])
    assert_type(app.GroupResult.restore_sync("g"), GroupResult[Any] | None)
    assert_type(add.apply((1, 2)), EagerResult[int])
    assert_type(add.apply((1, 2)).get_sync(), int)
    assert_type(EagerResult("id", 5, "SUCCESS").get_sync(), int)


async def mistakes(a: AsyncResult[int], b: AsyncResult[str], results: ResultSet[int]) -> None:
    """What the checkers must refuse."""
    await asyncq.gather(add.delay(1, 2))  # type: ignore[call-overload]
    await asyncq.wait(a)  # type: ignore[arg-type]
    results.add(b)  # type: ignore[arg-type]
    text: str = (await asyncq.gather(a, b))[0]  # type: ignore[assignment]
    assert text
