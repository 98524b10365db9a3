"""What a test has left behind: jobs, open apps, asyncio tasks, connections. Each leak says where it was made.

A leak has a little time to end by itself, for a job may be on its last line, and a closed connection takes a
moment to reach the server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.testing.call_sites import TaskSites
    from asyncq.testing.private_servers import HarnessServer

GRACE = 0.5
"""Seconds that a leak has to end."""
_POLL = 0.01


class LeakError(AssertionError):
    """Says what a test has left behind: jobs that did not end, an open app, asyncio tasks, connections.

    Wait for jobs, as with `await result.get(timeout=5)` or `await t.drain()`, close what was opened, and end
    the tasks that were started, before the block of the harness ends.
    """


def leak_error(leaks: Sequence[str]) -> LeakError:
    """Makes the error for some leaks."""
    return LeakError("the test ended and left behind:\n" + "\n".join(leaks))


class TaskWatch:
    """Finds the asyncio tasks that a test has started and left. Those of asyncq end with the harness.

    Args:
        sites: says where each was created.
    """

    def __init__(self, sites: TaskSites) -> None:
        self._sites = sites

    async def left(self) -> list[str]:
        """Returns the tasks that the test has left, one line each. Cancels them."""
        tasks = self._new()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
            tasks = {task for task in self._new() if not task.done()}
        leaks = sorted(f"  an asyncio task{self._described(task)}" for task in tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        return leaks

    def _new(self) -> set[asyncio.Task[object]]:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return {task for task in tasks if self._sites.is_of_user(task)}

    def _described(self, task: asyncio.Task[object]) -> str:
        coroutine = getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))
        site = self._sites.of(task)
        return f" of {coroutine}()" + (f", created at {site}" if site else "")


async def connections_left(connected: HarnessServer) -> list[str]:
    """Returns the connections to the server that nobody has closed, one line each."""
    end = asyncio.get_running_loop().time() + GRACE
    while names := await connected.connections():
        if asyncio.get_running_loop().time() > end:
            return [f"  a connection to the server, named {name!r}" for name in names]
        await asyncio.sleep(_POLL)
    return []
