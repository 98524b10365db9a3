"""Ends asyncio tasks, and keeps asyncio from logging errors of tasks that nobody needs any more.

asyncio logs the error of a task or future that is collected before anybody has read that error. It cannot
know that all who waited for the task were cancelled, or have their answer from another task.
"""

from __future__ import annotations

import asyncio
from typing import Any


def read_error(task: asyncio.Future[Any]) -> None:
    """Marks the error of a task that is done as read. Whoever waits for the task gets the error all the same.

    Use it as a done callback of a task for which everybody may have stopped waiting.
    """
    if not task.cancelled():
        task.exception()


async def cancel_and_wait(task: asyncio.Future[Any]) -> None:
    """Cancels a task, and waits for its end. Drops what the task returns or raises.

    Does nothing to a task that is done. If this call is cancelled, the task ends by itself.
    """
    task.add_done_callback(read_error)
    task.cancel()
    await asyncio.wait({task})
