"""How many jobs a session may fetch: each needs a slot, and some need a thread or a process. Runs on the
worker's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

    from asyncq.execution.slots import Slots


class Capacity:
    """The threads and processes of a session.

    Args:
        tasks: the tasks of the app.
        off_loop: the executors of the tasks that do not run on the loop, by the names of jobs.
        slots: the slots of each executor.

    Attributes:
        off_loop: as given.
        with_queue: executors in whose queues jobs may wait. Those jobs came first, so a job from another
            queue must not take the next thread or process.
    """

    def __init__(self, tasks: Sized, off_loop: Mapping[str, str], slots: Mapping[str, Slots]) -> None:
        self.off_loop = off_loop
        self.with_queue: set[str] = set()
        self._tasks = tasks
        self._slots = slots

    def free(self, executor: str) -> int:
        """Returns how many jobs could begin in an executor now."""
        slots = self._slots[executor]
        return max(0, slots.limit - slots.busy)

    def take(self, executor: str) -> Slots | None:
        """Takes a thread or a process for a job. Returns its slots, or None if none is free now."""
        slots = self._slots[executor]
        if not slots.is_free:
            return None
        slots.take_now()
        return slots

    def most_of_queue(self, count: int) -> int:
        """Returns how many of `count` jobs may be fetched from a queue, whose jobs nobody has seen yet.

        Jobs that find no thread or process go into an executor queue. If no task of the app runs on the loop,
        every job needs one, and no more jobs are fetched than there are free ones.
        """
        if len(self.off_loop) < 2 * len(self._tasks):  # `off_loop` has each task under two names
            return count
        return min(count, sum(self.free(executor) for executor in set(self.off_loop.values())))
