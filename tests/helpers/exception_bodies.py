"""Functions that raise exceptions and groups. Tests compare what is raised here with what arrives from a job.

The jobs run on the loop, in a thread and in another process, so the functions are at module level.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def raise_row(index: int) -> None:
    from helpers.exception_table import TABLE  # imports fourteen libraries, so only where it is needed

    raise TABLE[index].make()


async def _fails(exc: Exception) -> None:
    raise exc


async def _body_of_a_task_group() -> None:
    async with asyncio.TaskGroup():
        int("not a number")


async def _task_and_body() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fails(KeyError("k")))
        try:
            await asyncio.sleep(10)
        finally:
            raise ValueError("cleaning up")


async def _nested() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_body_of_a_task_group())
        group.create_task(_body_of_a_task_group())
        await asyncio.sleep(0)


async def _anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_fails, OSError(2, "no such file", "a.txt"))
        await anyio.sleep(10)


async def _body_of_an_anyio_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
        raise ValueError("in the body")


async def _from_a_cause() -> None:
    try:
        await _body_of_a_task_group()
    except* ValueError as group:
        raise RuntimeError("above") from group


async def _group_from_its_member() -> None:
    try:
        await _fails(ValueError("first"))
    except ValueError as error:
        raise ExceptionGroup("both", [error, KeyError("second")]) from error


async def _shared_cause() -> None:
    cause = LookupError("shared")
    members = [ValueError(1), ValueError(2)]
    for member in members:
        member.__cause__ = cause
    raise ExceptionGroup("two", members)


async def _part_of_a_group() -> None:
    try:
        raise ExceptionGroup(
            "mixed", [ValueError("v"), KeyError("k"), ExceptionGroup("in", [ValueError("w")])]
        )
    except* KeyError:
        raise


GROUPS: dict[str, Callable[[], Coroutine[None, None, None]]] = {
    body.__name__.strip("_"): body
    for body in (
        _body_of_a_task_group,
        _task_and_body,
        _nested,
        _anyio,
        _body_of_an_anyio_group,
        _from_a_cause,
        _group_from_its_member,
        _shared_cause,
        _part_of_a_group,
    )
}


async def raise_group(name: str) -> None:
    await GROUPS[name]()


def raise_group_in_a_function(name: str) -> None:
    asyncio.run(GROUPS[name]())
