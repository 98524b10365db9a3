"""Calls the `on_enqueue` of middleware when a schedule is added or declared. Its ticks do not call it: what a
middleware has put into the headers then is kept with the schedule, and each of its jobs has it.

Runs on the loop of the session that stores the schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncq import wire
    from asyncq.client.session import Session
    from asyncq.schedules.definition import Definition

R = TypeVar("R")


async def run(
    session: Session, definition: Definition, now_ms: int, store: Callable[[Definition], Awaitable[R]]
) -> R:
    """Runs the hooks of an app around the storing of a schedule.

    Args:
        session: stores it.
        definition: the schedule.
        now_ms: the present time in ms: the call that the hooks see is one of now.
        store: stores the definition that it is given. It has the headers that the hooks have left.

    Returns:
        What `store` returned.

    Raises:
        Exception: what a hook raised: nothing was stored. Or what `store` raised.
    """
    if not session.on_enqueue:
        return await store(definition)
    stored: list[R] = []

    async def send(jobs: list[tuple[wire.Job, bytes]]) -> Sequence[bool | Exception]:
        ((job, _),) = jobs
        stored.append(await store(definition.with_headers(job.headers or {})))
        return [True]

    await session.around_enqueue([definition.job(now_ms // 1000, now_ms)], send)
    return stored[0]
