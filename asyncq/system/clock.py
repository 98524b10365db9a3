"""The time of day by which asyncq decides in Python: when a job is due, expires, or must have ended.

All such code calls `clock.now()`, and nothing else reads `time.time`. In production `now` is `time.time`
itself, so the seam costs nothing. A test sets the clock ahead, see `testing.virtual_clock`: the clock is that
of the whole process, and the scripts of a test server follow it. Waits of the event loop, heartbeats and
time-outs of the network go by monotonic clocks, which nobody sets.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

now: Callable[[], float] = time.time
"""Returns the seconds since the epoch."""


def set_ahead(seconds: float) -> None:
    """Sets the clock of this process ahead of the machine's clock, by so many seconds; 0 undoes that."""
    global now  # noqa: PLW0603  callers look the function up in this module at every call
    now = (lambda: time.time() + seconds) if seconds else time.time
