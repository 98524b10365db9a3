"""`gather`, `wait` and `as_completed` for handles, as asyncio has them for tasks. Types are kept.

They may be called on any loop; the wait runs on the loop of the session that serves the call.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from asyncq.client.deadlock import check_join
from asyncq.results.handle import AsyncResult
from asyncq.results.members import Members
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

    As in `asyncio.gather`, the first failure is raised as soon as it is known. The other jobs go on, also
    when this wait is cancelled. Inside a task (see `allow_join_result`) it is one wait.

    Args:
        results: the handles, as an awaited `delay` returns them.
        timeout: in seconds, for all of them together; None waits for ever, 0 looks once.
        return_exceptions: True waits for all, and puts exceptions into the tuple instead of raising the
            first.

    Raises:
        ResultTimeout: not all ended in time. The jobs go on.
        WouldDeadlock: called inside a task, where waits are not allowed.
        TypeError: one of `results` is no handle.
        Exception: what `get` of the failed one raises.

    Example:
        ```python
        number, text = await asyncq.gather(await add.delay(1, 2), await shout.delay("a"), timeout=10)
        ```
    """
    handles: ResultSet[Any] = ResultSet(_handles("gather", results))
    check_join("gather()", Members(handles).awaited())
    values = await handles.get(timeout, propagate=not return_exceptions)
    return tuple(values)


async def wait(
    results: Iterable[H],
    *,
    timeout: float | timedelta | None = None,
    return_when: str = asyncio.ALL_COMPLETED,
) -> tuple[set[H], set[H]]:
    """Waits until jobs have ended and returns their handles as two sets, done and pending.

    As in `asyncio.wait`, neither a failure nor the end of the time raises, and the jobs go on when this wait
    is cancelled. The handle of an unknown job is done: nothing more will come of it, and its `get` raises.

    Args:
        results: the handles.
        timeout: in seconds; None waits for ever, 0 looks once.
        return_when: `asyncio.ALL_COMPLETED`, `asyncio.FIRST_COMPLETED`, or `asyncio.FIRST_EXCEPTION`, which
            also returns when a job has ended without a value.

    Raises:
        WouldDeadlock: called inside a task, where waits are not allowed.
        ValueError: `return_when` is none of those.
        TypeError: one of `results` is no handle.

    Example:
        ```python
        done, pending = await asyncq.wait(results, return_when=asyncio.FIRST_COMPLETED)
        ```
    """
    handles: ResultSet[Any, H] = ResultSet(_handles("wait", results))
    check_join("wait()", Members(handles).awaited())
    if return_when not in {asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION}:
        raise ValueError(
            f"return_when={brief(return_when)}: use a constant of asyncio, such as asyncio.FIRST_COMPLETED"
        )
    return await Members(handles).done_and_pending(timeout, return_when)


def as_completed(results: Iterable[H], *, timeout: float | timedelta | None = None) -> AsyncIterator[H]:
    """Gives each handle as its job ends, whatever the end: an async iterator, for `async for`.

    Args:
        results: the handles.
        timeout: in seconds, from the first step to the last; None waits for ever, 0 looks once.

    Raises:
        ResultTimeout: from the loop: the time is over; those that ended in time were given.
        WouldDeadlock: called inside a task, where waits are not allowed.
        TypeError: one of `results` is no handle.

    Example:
        ```python
        async for result in asyncq.as_completed(results, timeout=60):
            print(await result)
        ```
    """
    handles: ResultSet[Any, H] = ResultSet(_handles("as_completed", results))
    check_join("as_completed()", Members(handles).awaited())
    return handles.as_completed(timeout)


def _handles(call: str, results: Iterable[H]) -> list[H]:
    """Returns the handles as a list, and refuses what is none. The commonest mistake is a coroutine."""
    if isinstance(results, AsyncResult):
        raise TypeError(f"{call}() takes several handles, not {brief(results)} alone: write {call}([result])")
    handles = list(results)
    wrong: list[Any] = [handle for handle in handles if not isinstance(handle, AsyncResult)]
    if not wrong:
        return handles
    for other in wrong:
        if inspect.iscoroutine(other):
            other.close()  # nobody will await it, and Python would warn of that besides
    instead = "`await task.delay(...)` gives a handle"
    if isinstance(wrong[0], ResultSet):
        instead = "it has `get` and `as_completed` of its own, and iterating over it gives its handles"
    raise TypeError(f"{call}() takes handles, not {brief(wrong[0])}: {instead}")
