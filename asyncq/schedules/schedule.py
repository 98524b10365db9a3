"""A schedule as a user sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it was when it was read: later changes do not reach it.

    Attributes:
        name: of the schedule; one in code is named as its task.
        task: the name of the task that it runs.
        args, kwargs: the arguments of each call, as plain data.
        rule: `every 30s`, a cron text, or `at` and a time.
        tz: the time zone in which a cron text is read; `UTC` for any other rule.
        next_at: the next tick, in that zone; None if it is paused, or ticks no more.
        last_at: the latest tick that made a job; None if none has.
        last_id: the id of that job; None if there is none.
        paused: whether it is paused.
        source: `code` if workers declare it, `runtime` if a call has added it.
        runs: how many jobs it has made.
        left_out: how many ticks made no job, because the job before had not ended (`overlap=False`).
    """

    name: str
    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rule: str
    tz: str
    next_at: datetime | None
    last_at: datetime | None
    last_id: str | None
    paused: bool
    source: Literal["code", "runtime"]
    runs: int
    left_out: int
