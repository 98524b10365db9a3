"""Keeps an async context manager open in an asyncio task of its own. Used on the worker's loop.

A context manager may hold a task group, a timeout or a cancel scope, which must be left in the task that has
entered it. And what it holds belongs to no job. So the task that enters it waits and leaves it again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncq.system.tasks import cancel_and_wait, read_error

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class OwnTask(Generic[T]):
    """An open context manager and its task.

    Args:
        manager: makes the context manager.
        context: the context variables of the task.
        on_end: called if the task ends although `leave` was not called: the context manager was cancelled
            from inside.
    """

    def __init__(
        self,
        manager: Callable[[], AbstractAsyncContextManager[T]],
        context: contextvars.Context,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        self._manager = manager
        self._on_end = on_end
        self._leaving = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[T] = loop.create_future()
        self._task: asyncio.Task[None] = loop.create_task(self._hold(), context=context)
        self._task.add_done_callback(self._ended)

    async def entered(self) -> T:
        """Waits until the context manager is open, and returns its value. Several may wait, and a wait that
        is cancelled ends nothing.

        Raises:
            Exception: what it raised when it was entered.
        """
        return await asyncio.shield(self._entered)

    async def leave(self, timeout: float | None = None, at_once: asyncio.Event | None = None) -> None:
        """Leaves the context manager, and waits for that. If it is still being entered, cancels that.

        Args:
            timeout: seconds that it may take. Then it is cancelled.
            at_once: cancels it when it is set.

        Raises:
            Exception: what the context manager raised after it was open.
        """
        self._leaving.set()
        was_open = self._entered.done() and not self._entered.cancelled() and not self._entered.exception()
        if not self._entered.done():
            self._task.cancel()
        waits: set[asyncio.Task[Any]] = {self._task}
        if at_once is not None:
            waits.add(asyncio.ensure_future(at_once.wait()))
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not self._task.done():
            await cancel_and_wait(self._task)
        for wait in waits - {self._task}:
            wait.cancel()
        if was_open and not self._task.cancelled():
            self._task.result()

    async def _hold(self) -> None:
        try:
            async with self._manager() as value:
                self._entered.set_result(value)
                await self._leaving.wait()
        except BaseException as error:
            if self._entered.done():
                raise
            if isinstance(error, asyncio.CancelledError):
                self._entered.cancel()
                raise
            self._entered.set_exception(error)
            self._entered.exception()  # perhaps nobody waits any more
            if not isinstance(error, Exception):
                raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        read_error(task)  # `leave` raises it; without this line asyncio would log it, too
        if self._on_end is not None and not self._leaving.is_set() and self._entered.done():
            self._on_end()
