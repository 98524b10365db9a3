"""One thread for all plain functions around one job: its dependencies, its body, and their clean-up.

What a plain function opens may belong to its thread, such as a connection of sqlite3, and a context variable
that it sets must still be set when it is reset. So all calls are made on one thread and in one context. The
thread starts with the first call. It is one of anyio's, as for a body without dependencies.

Everything runs on the loop, except for `_work` and `_make_calls`.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asyncq.execution import executors

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.execution.executors import JobControl

T = TypeVar("T")


class PlainCalls(Protocol):
    """Makes the calls of the plain functions around one job."""

    async def call(self, function: Callable[[], T]) -> T:
        """Calls a function, away from the event loop. Calls are made one after the other."""
        ...

    def close(self) -> None:
        """Ends it. A call that still runs, and those that wait for it, are made to their end."""
        ...


class JobThread:
    """The thread of one job.

    Args:
        control: the control object of the job. While a call is under way, it says that the job is in a
            thread.
    """

    def __init__(self, control: JobControl) -> None:
        self._control = control
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._thread: asyncio.Task[None] | None = None
        self._is_closed = False

    async def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the thread. If the call is cancelled, the function runs on: nothing can stop
        it. The next call is made after that.

        Raises:
            Exception: what the function raised. What would end the thread, such as `SystemExit`, comes as
                `Stopped`.
        """
        if self._thread is None:
            self._thread = self._loop.create_task(executors.run_in_thread(self._work))
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((function, future))
        control = self._control
        control.in_thread = True
        try:
            value = await future
        except Exception as error:
            # Not by assignment: a frozen dataclass refuses that.
            BaseException.with_traceback(error, executors.of_function(error.__traceback__))
            raise
        finally:
            control.in_thread = False
        return value

    def close(self) -> None:
        """Lets the thread end, when it has made the calls that it was given. A second call does nothing."""
        if self._thread is not None and not self._is_closed:
            self._calls.put(None)
        self._is_closed = True

    def _work(self) -> None:
        with executors.thread_block():
            self._make_calls()

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                value = self._context.run(executors.guarded, function, (), {})
            except BaseException as error:  # noqa: BLE001  the caller gets it
                self._answer(partial(_fail, future, error))
            else:
                self._answer(partial(_succeed, future, value))
            del call, function, future  # what they refer to must not live until the next call

    def _answer(self, answer: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(answer)
        except RuntimeError:
            # The loop is closed: the worker has left the job behind, and nobody waits for the answer.
            return


def _succeed(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
