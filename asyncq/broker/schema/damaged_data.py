"""Logs damaged data of the server: at WARNING, once per kind and minute. May be called on any thread.

Any user of the server can write anything there, and so can a faulty program. asyncq sets such data aside or
drops it, and goes on. Somebody may write it ten thousand times a second. So only the first of a kind is
logged, and the next line of that kind, at least a minute later, counts the ones between.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

REPEAT = 60.0
"""Seconds after which damaged data of the same kind is logged again."""


@dataclass(slots=True)
class _Kind:
    """One kind of data: when it was last logged (seconds, monotonic), and how often it was not since then."""

    reported_at: float
    left_out: int = 0


_kinds: dict[str, _Kind] = {}
_lock = threading.Lock()


def warn(log: logging.Logger, kind: str, what: str, why: object) -> None:
    """Logs that asyncq dropped data of the server, or set it aside, because it is damaged.

    Args:
        log: the logger of the module that read it.
        kind: of the data, such as `notification`. Each kind has one line a minute at most.
        what: what was done with which data, as a sentence without its full stop.
        why: what is wrong with it; an exception, or text.
    """
    left_out = _left_out(kind)
    if left_out is None:
        log.debug("%s (%s)", what, why)
        return
    more = f"; {left_out} more of this kind since the last warning" if left_out else ""
    log.warning("%s (%s)%s", what, why, more)


def _left_out(kind: str) -> int | None:
    """Counts one more. Returns how many were not logged since the last line, or None if this one must not be
    logged either.
    """
    now = time.monotonic()
    with _lock:
        known = _kinds.get(kind)
        if known is None:
            _kinds[kind] = _Kind(now)
            return 0
        if now - known.reported_at < REPEAT:
            known.left_out += 1
            return None
        left_out, known.left_out, known.reported_at = known.left_out, 0, now
        return left_out
