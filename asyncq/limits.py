"""The limits of a task over all workers together: how often its jobs start, and how many run at once.

Values only. The server counts, see `broker.limiter`; the worker asks, see `worker.permits`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smhd]))?\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FASTEST = 1_000_000.0
"""In starts a second: the server's clock counts microseconds."""
_SLOWEST = 1 / (1000 * 86_400)
"""In starts a second: one start in a thousand days. A later start time would not fit into its field."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one task.

    Attributes:
        task: the name of the task, under which all workers count.
        interval: microseconds between two starts; 0 if the rate is not limited.
        concurrency: how many bodies may run at once; 0 if that is not limited.
    """

    task: str
    interval: float = 0.0
    concurrency: int = 0

    @staticmethod
    def of(task: str, rate_limit: float | str | None, concurrency: int | None) -> Limits | None:
        """Returns the limits with which a task was registered, or None if it has none.

        Raises:
            ValueError: an option is not a rate or not a count.
        """
        if rate_limit is None and concurrency is None:
            return None
        if concurrency is not None and (
            isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
        ):
            raise ValueError(
                f"concurrency={concurrency!r} of task {task!r}: give how many may run at once, 1 or more"
            )
        interval = 0.0 if rate_limit is None else 1e6 / per_second(rate_limit)
        return Limits(task, interval, concurrency or 0)


def per_second(rate: float | str) -> float:
    """Returns a rate as starts a second.

    Raises:
        ValueError: it is not a rate; the message names the forms.

    >>> per_second(5), per_second("90/m"), per_second("1/d") * 86_400
    (5.0, 1.5, 1.0)
    """
    number = 0.0
    if isinstance(rate, str):
        if found := _RATE.fullmatch(rate):
            number = float(found[1]) / _SECONDS[found[2] or "s"]
    elif isinstance(rate, (int, float)) and not isinstance(rate, bool):
        number = float(rate)
    if not (math.isfinite(number) and _SLOWEST <= number <= _FASTEST):
        raise ValueError(
            f'rate_limit={rate!r}: give a number of starts a second, or text like "100/s", "100/m", '
            '"100/h" or "100/d", above 0 and at most a million a second; None means no limit'
        )
    return number
