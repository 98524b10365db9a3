"""Runs a coroutine that must wait, for a caller on a thread whose plain functions must run on that thread.

`task.apply()` of a plain function runs the function on the caller's thread. What surrounds the function, such
as a middleware, is a coroutine and needs an event loop. The loop runs on a thread of its own meanwhile: a
function that runs beside a loop can make no blocking calls, and the caller's thread may have a loop already.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.sync_bridge import LoopThread, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class CallerThread:
    """The thread that waits for a coroutine, and meanwhile makes the calls that the coroutine asks for."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on a loop of another thread, and returns what it returns.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C. The coroutine was cancelled, and has ended.
        """
        thread = LoopThread()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, thread.loop)
            future.add_done_callback(lambda _: self._calls.put(None))
            try:
                self._serve()
            except KeyboardInterrupt:
                future.cancel()
                self._serve()
                raise
            return future.result()
        finally:
            if running_loop() is None:
                thread.stop()
            else:  # to wait for the thread would hold up that loop
                thread.end()

    def _serve(self) -> None:
        """Calls what the coroutine gives, until the coroutine has ended."""
        while (call := self._calls.get()) is not None:
            call()

    async def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the caller's thread, in a copy of this context."""
        context = contextvars.copy_context()
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = context.run(function)
            except BaseException as error:  # noqa: BLE001  the coroutine gets it
                future.set_exception(error)
            else:
                future.set_result(value)

        self._calls.put(call)
        return await asyncio.wrap_future(future)
