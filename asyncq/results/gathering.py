"""`gather`, `wait` and `as_completed`, as asyncio's, for handles: types are kept."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from asyncq.client.deadlock import check_join
from asyncq.results.completion import Completions
from asyncq.results.handle import AsyncResult
from asyncq.results.resultset import ResultSet
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import timedelta

R = TypeVar("R")
H = TypeVar("H", bound=AsyncResult[Any])
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")
R4 = TypeVar("R4")
R5 = TypeVar("R5")
R6 = TypeVar("R6")


@overload
async def gather(
    result1: AsyncResult[R1],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R1]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R1, R2]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R1, R2, R3]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    result4: AsyncResult[R4],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R1, R2, R3, R4]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    result4: AsyncResult[R4],
    result5: AsyncResult[R5],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R1, R2, R3, R4, R5]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    result4: AsyncResult[R4],
    result5: AsyncResult[R5],
    result6: AsyncResult[R6],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R1, R2, R3, R4, R5, R6]: ...


@overload
async def gather(  # type: ignore[overload-overlap]  # as asyncio.gather is typed
    *results: AsyncResult[R],
    timeout: float | timedelta | None = None,
    return_exceptions: Literal[False] = False,
) -> tuple[R, ...]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[R1 | Exception]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[R1 | Exception, R2 | Exception]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[R1 | Exception, R2 | Exception, R3 | Exception]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    result4: AsyncResult[R4],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[R1 | Exception, R2 | Exception, R3 | Exception, R4 | Exception]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    result4: AsyncResult[R4],
    result5: AsyncResult[R5],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[R1 | Exception, R2 | Exception, R3 | Exception, R4 | Exception, R5 | Exception]: ...


@overload
async def gather(
    result1: AsyncResult[R1],
    result2: AsyncResult[R2],
    result3: AsyncResult[R3],
    result4: AsyncResult[R4],
    result5: AsyncResult[R5],
    result6: AsyncResult[R6],
    /,
    *,
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[
    R1 | Exception, R2 | Exception, R3 | Exception, R4 | Exception, R5 | Exception, R6 | Exception
]: ...


@overload
async def gather(
    *results: AsyncResult[R],
    timeout: float | timedelta | None = None,
    return_exceptions: bool,
) -> tuple[R | Exception, ...]: ...


async def gather(
    *results: AsyncResult[Any], timeout: float | timedelta | None = None, return_exceptions: bool = False
) -> tuple[Any, ...]:
    """Waits for all jobs and returns their values in order, each with its type.

    As in `asyncio.gather`, the first failure is raised as soon as it is known; the other jobs go on. They do
    so, too, when this wait is cancelled. Inside a task (see `allow_join_result`) it is one wait.

    Args:
        results: the handles, as `delay` gives them once it is awaited.
        timeout: seconds for all of them together; None waits for ever, 0 looks once.
        return_exceptions: wait for all, and put exceptions into the tuple instead of raising the first.

    Raises:
        ResultTimeout: not all ended in time. The jobs go on.
        WouldDeadlock: called inside a task, without leave.
        TypeError: something else than a handle.
        Exception: what the failed one raises from its `get`.

    Example:
        ```python
        number, text = await asyncq.gather(await add.delay(1, 2), await shout.delay("a"), timeout=10)
        ```
    """
    handles: ResultSet[Any] = ResultSet(_handles("gather", results))
    check_join("gather()", (one for one in handles if not one.is_local))
    values = await handles.get(timeout, propagate=not return_exceptions)
    return tuple(values)


async def wait(
    results: Iterable[H],
    *,
    timeout: float | timedelta | None = None,
    return_when: str = asyncio.ALL_COMPLETED,
) -> tuple[set[H], set[H]]:
    """Waits until jobs have ended and returns their handles as two sets, done and pending.

    As in `asyncio.wait`, neither a failure nor the end of the time raises, and jobs go on when this is
    cancelled. A handle whose job is unknown is done: nothing more will come of it, and its `get` says so.

    Args:
        results: the handles.
        timeout: seconds; None waits for ever, 0 looks once.
        return_when: `asyncio.ALL_COMPLETED`, `asyncio.FIRST_COMPLETED`, or `asyncio.FIRST_EXCEPTION`, which
            also returns when a job has ended without a value.

    Raises:
        WouldDeadlock: called inside a task, without leave.
        ValueError: another `return_when`.
        TypeError: something else than a handle.

    Example:
        ```python
        done, pending = await asyncq.wait(results, return_when=asyncio.FIRST_COMPLETED)
        ```
    """
    handles: ResultSet[Any, H] = ResultSet(_handles("wait", results))
    check_join("wait()", (one for one in handles if not one.is_local))
    if return_when not in {asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION}:
        raise ValueError(
            f"return_when={brief(return_when)}: use a constant of asyncio, such as asyncio.FIRST_COMPLETED"
        )
    return await handles.loop_owner.run_on_app_loop(_done_and_pending(handles, timeout, return_when))


def as_completed(results: Iterable[H], *, timeout: float | timedelta | None = None) -> AsyncIterator[H]:
    """Gives each handle as its job ends, whatever the end: an async iterator, for `async for`.

    Args:
        results: the handles.
        timeout: seconds from the first step to the last; None waits for ever, 0 looks once.

    Raises:
        ResultTimeout: from the loop, when the time is over; those that ended in time were given.
        WouldDeadlock: called inside a task, without leave.
        TypeError: something else than a handle.

    Example:
        ```python
        async for result in asyncq.as_completed(results, timeout=60):
            print(await result)
        ```
    """
    handles: ResultSet[Any, H] = ResultSet(_handles("as_completed", results))
    check_join("as_completed()", (one for one in handles if not one.is_local))
    return handles.as_completed(timeout)


async def _done_and_pending(
    handles: Iterable[H], timeout: float | timedelta | None, return_when: str
) -> tuple[set[H], set[H]]:
    given: list[Any] = list(handles)
    app = next((handle.app for handle in given if not handle.is_local), None)
    with closing(Completions(given, app, timeout)) as completions:
        enough = {
            asyncio.ALL_COMPLETED: lambda: completions.complete,
            asyncio.FIRST_COMPLETED: lambda: bool(completions.ended) or completions.complete,
            asyncio.FIRST_EXCEPTION: lambda: completions.failed or completions.complete,
        }
        one_will_do = return_when == asyncio.FIRST_COMPLETED
        await completions.until(enough[return_when], all_of_them=not one_will_do)
    done: set[Any] = set(completions.ended)
    return done, set(given) - done


def _handles(call: str, results: Iterable[H]) -> list[H]:
    """The handles as a list; a coroutine among them is the commonest slip."""
    if isinstance(results, AsyncResult):
        raise TypeError(f"{call}() takes several handles, not {brief(results)} alone: write {call}([result])")
    handles = list(results)
    wrong: list[Any] = [handle for handle in handles if not isinstance(handle, AsyncResult)]
    if not wrong:
        return handles
    for other in wrong:
        if inspect.iscoroutine(other):
            other.close()  # it will not be awaited, and the error says so
    instead = "`await task.delay(...)` gives a handle"
    if isinstance(wrong[0], ResultSet):
        instead = "it has `get` and `as_completed` of its own, and iterating over it gives its handles"
    raise TypeError(f"{call}() takes handles, not {brief(wrong[0])}: {instead}")
