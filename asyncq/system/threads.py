"""Runs blocking calls of asyncq itself, each in a daemon thread of its own; and shows what threads do.

They do not use asyncio's default executor, which is the user's. When the user's calls block all of its
threads, our calls would wait behind them. Then a worker could neither connect again nor end.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

R = TypeVar("R")


async def in_daemon_thread(function: Callable[..., R], *args: Any) -> R:
    """Calls a function in a daemon thread, and returns what it returns or raises what it raises.

    Neither the end of the loop nor the end of the process waits for that thread. If the call is cancelled,
    the thread goes on and its answer is dropped.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        try:
            value = function(*args)
        except BaseException as error:  # noqa: BLE001  the caller handles it
            _tell(loop, answer.set_exception, answer, error)
        else:
            _tell(loop, answer.set_result, answer, value)

    threading.Thread(target=run, name="asyncq-call", daemon=True).start()
    return await answer


def frames() -> dict[int, FrameType]:
    """Returns what each thread of the process executes now, by the identifier of the thread."""
    # Documented, for debuggers. There is no other way to see what another thread does.
    return sys._current_frames()


def _tell(
    loop: asyncio.AbstractEventLoop, resolve: Callable[[Any], None], answer: asyncio.Future[Any], value: Any
) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile, so nobody waits any more
        loop.call_soon_threadsafe(lambda: None if answer.done() else resolve(value))
