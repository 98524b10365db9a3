"""Blocking calls of asyncq's own, each in a daemon thread of its own.

Not in asyncio's default executor: that is the user's, and when his calls block all of its threads, ours would
wait behind them. A worker could neither connect again nor end, then.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


async def in_daemon_thread(function: Callable[..., R], *args: Any) -> R:
    """Calls a function in a thread that no end of a loop or of the process waits for. Cancelled, it leaves
    the call to itself.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        try:
            value = function(*args)
        except BaseException as error:  # noqa: BLE001  it is the caller's to handle
            _tell(loop, answer.set_exception, answer, error)
        else:
            _tell(loop, answer.set_result, answer, value)

    threading.Thread(target=run, name="asyncq-call", daemon=True).start()
    return await answer


def _tell(
    loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], answer: asyncio.Future[Any], value: Any
) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits any more
        loop.call_soon_threadsafe(lambda: None if answer.done() else settle(value))
