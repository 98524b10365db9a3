"""Decides when a failed job is tried again: a policy, and the pure function `delay`.

The runner calls `delay` after a failure. Nobody waits here: the job waits in Redis, as a delayed job, and
holds no slot.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncq import config
from asyncq.errors import DecodeError, RetryLater
from asyncq.short_repr import brief
from asyncq.system.main_module import import_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: `@app.task(retry=Retry(max_retries=5, on=(OSError,)))`.

    Attributes:
        max_retries: how often a job is run again after its first failure. Crashes of a worker do not count.
        on: the exceptions after which another try is worth while; others fail at once.
        backoff: seconds (or a timedelta) before the first retry; each further retry waits twice as long.
        max_backoff: the longest wait, in seconds (or a timedelta).
        jitter: whether the wait is a random time between 0 and that long, so that jobs which failed together
            do not come back together ("full jitter",
            https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Example:
        ```python
        @app.task(retry=Retry(max_retries=5, on=(OSError, TimeoutError), backoff=2, max_backoff=60))
        async def fetch(url: str) -> bytes:
            return await download(url)
        ```
    """

    max_retries: int = 3
    on: tuple[type[Exception], ...] = (Exception,)
    backoff: float | timedelta = 1.0
    max_backoff: float | timedelta = 600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int):
            raise TypeError(f"max_retries={brief(self.max_retries)}: give a whole number, 0 or more")
        if self.max_retries < 0:
            raise ValueError(f"max_retries={brief(self.max_retries)}: use 0 or more")
        object.__setattr__(self, "backoff", config.duration("backoff", self.backoff))
        object.__setattr__(self, "max_backoff", config.duration("max_backoff", self.max_backoff))
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise TypeError(f"on={brief(self.on)}: name exception classes, as in on=(OSError, TimeoutError)")
        object.__setattr__(self, "on", kinds)

    def to_wire(self) -> list[Any]:
        """Returns the policy for the message of a call. Classes travel as names and are matched by name. For
        asyncq's own modules.
        """
        names = [_name_of(kind) for kind in self.on]
        return [
            self.max_retries,
            config.seconds(self.backoff),
            config.seconds(self.max_backoff),
            self.jitter,
            names,
        ]


@dataclass(frozen=True, slots=True)
class RemoteRetry:
    """A policy that has come with a message."""

    max_retries: int
    backoff: float
    max_backoff: float
    jitter: bool
    names: frozenset[str]


def from_wire(data: Any) -> RemoteRetry:
    """Returns the policy in a message.

    Raises:
        DecodeError: the data is not a policy.
    """
    try:
        max_retries, backoff, max_backoff, jitter, names = data
        return RemoteRetry(
            int(max_retries),
            config.seconds(backoff),
            config.seconds(max_backoff),
            bool(jitter),
            frozenset(names),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"{brief(data)} is not a retry policy") from error


DEFAULT = Retry()
"""The policy for `raise RetryLater()` in a task without a policy of its own."""


def delay(
    policy: Retry | RemoteRetry | None,
    retries: int,
    error: Exception,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float | None:
    """Returns the seconds until the next try of a job that failed, or None if the job ends with this failure.

    Args:
        policy: the policy of the call or the task; None if there is none.
        retries: how often the job was tried again already.
        error: the exception that the body raised.
        uniform: the source of jitter.

    >>> delay(Retry(backoff=1, jitter=False), 3 - 1, OSError())
    4.0
    >>> delay(Retry(max_retries=3), 3, OSError()) is None
    True
    """
    asked = error if isinstance(error, RetryLater) else None
    limit = (policy or DEFAULT).max_retries if asked else policy.max_retries if policy else 0
    if asked is not None and asked.max_retries is not None:
        limit = asked.max_retries
    if retries >= limit:
        return None
    if asked is not None and asked.countdown is not None:
        return asked.countdown
    policy = policy or DEFAULT
    if asked is None and not _covers(policy, error):
        return None
    longest = min(
        config.seconds(policy.max_backoff), config.seconds(policy.backoff) * 2.0 ** min(retries, 60)
    )
    return uniform(0.0, longest) if policy.jitter else longest


def _covers(policy: Retry | RemoteRetry, error: Exception) -> bool:
    if isinstance(policy, Retry):
        return isinstance(error, policy.on)
    return not policy.names.isdisjoint(map(_name_of, type(error).__mro__))


def _name_of(kind: type[Any]) -> str:
    # A class of a script has one name in the script and in a worker that imports the script's file.
    return f"{import_name(kind.__module__)}.{kind.__qualname__}"
