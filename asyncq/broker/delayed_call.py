"""A call that is made once, some time after it was first asked for: what gathers meanwhile leaves together.
On the session's loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class DelayedCall:
    """Makes a call some time after the first of several requests.

    Args:
        seconds: between the first request and the call.
        call: is made without arguments.
    """

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._seconds = seconds
        self._call = call
        self._timer: asyncio.TimerHandle | None = None

    def request(self) -> None:
        """Makes the call later, unless it is to be made already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._make)

    def cancel(self) -> None:
        """Takes the request back: the caller does itself what the call would do. Else it does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make(self) -> None:
        self._timer = None
        self._call()
