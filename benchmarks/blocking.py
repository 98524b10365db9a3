"""The base class of clients for libraries whose calls block."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from system import MISSING

ENQUEUERS = 8  # threads that enqueue a batch, where there is no call for batches


class BlockingClient(ABC):
    """Makes awaitable calls of blocking ones. A single caller blocks the loop, which nobody else needs: a
    thread would only cost time. Many callers have a thread each.

    Args:
        callers: how many callers use it at once.
    """

    def __init__(self, callers: int = 1) -> None:
        self._threads = ThreadPoolExecutor(callers) if callers > 1 else None

    @abstractmethod
    def enqueue(self, value: Any, task: str) -> Any:
        """Enqueues one job. Returns its handle, which has an `id`."""

    @abstractmethod
    def wait(self, handle: Any) -> object:
        """Waits for a job, and returns its result."""

    @abstractmethod
    def read(self, job_id: str) -> object:
        """Returns the stored result of a job, or `MISSING`."""

    def enqueue_all(self, values: Sequence[Any], task: str) -> list[Any]:
        """Enqueues a job for each value."""
        return [self.enqueue(value, task) for value in values]

    def count(self, job_ids: Sequence[str]) -> int:
        """Returns how many of the jobs have a stored result."""
        return sum(self.read(job_id) is not MISSING for job_id in job_ids)

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:
        return await self._call(self.enqueue, value, task)

    async def value(self, handle: Any) -> object:
        return await self._call(self.wait, handle)

    async def map(self, values: Sequence[Any], task: str = "echo") -> list[Any]:
        if self._threads is None or type(self).enqueue_all is not BlockingClient.enqueue_all:
            return self.enqueue_all(values, task)
        size = -(-len(values) // ENQUEUERS)
        parts = [values[first : first + size] for first in range(0, len(values), size)]
        handles = await asyncio.gather(*(self._call(self.enqueue_all, part, task) for part in parts))
        return [handle for part in handles for handle in part]

    async def result(self, job_id: str) -> object:
        return self.read(job_id)

    async def stored(self, job_ids: Sequence[str]) -> int:
        return self.count(job_ids)

    async def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._threads is None:
            return call(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @contextmanager
    def plainly(self) -> Iterator[Any]:
        """Yields the client for code without a loop, see `System.blocking`."""
        yield SimpleNamespace(delay=lambda value: self.enqueue(value, "echo"), value=self.wait)
