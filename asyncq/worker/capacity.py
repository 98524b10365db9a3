"""How many jobs a session may fetch: each needs a slot, and some a thread or a process. Lives on the worker's
loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

    from asyncq.execution.slots import Slots


class Rooms:
    """The threads and processes of a session.

    Args:
        tasks: of the app.
        off_loop: by the names of jobs, the executors of those that do not run on the loop.
        slots: of each executor.

    Attributes:
        off_loop: as given.
        with_line: executors in whose lines jobs may stand that came before those of their queues: another job
            must not take the next thread or process from them.
    """

    def __init__(self, tasks: Sized, off_loop: Mapping[str, str], slots: Mapping[str, Slots]) -> None:
        self.off_loop = off_loop
        self.with_line: set[str] = set()
        self._tasks = tasks
        self._slots = slots

    def free(self, executor: str) -> int:
        """How many jobs could begin there."""
        slots = self._slots[executor]
        return max(0, slots.limit - slots.busy)

    def take(self, executor: str) -> Slots | None:
        """Takes a thread or a process for a job; None if there is none now."""
        slots = self._slots[executor]
        if not slots.is_free:
            return None
        slots.take_now()
        return slots

    def most_of_queue(self, count: int) -> int:
        """How many of so many jobs may be fetched from a queue, whose jobs nobody has seen yet.

        Those that find no thread or process go into a line. If no task runs on the loop, none needs to.
        """
        if len(self.off_loop) < 2 * len(self._tasks):  # each task is there under two names
            return count
        return min(count, sum(self.free(executor) for executor in set(self.off_loop.values())))
