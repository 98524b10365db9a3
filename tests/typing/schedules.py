"""Schedules, as the type checkers see them: run by mypy --strict and pyright, never imported."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import asyncq
from asyncq import AsyncQ, AsyncResult, Schedule
from asyncq.tasks.task import CoroutineTask

app = AsyncQ("redis://localhost:6379/0")


@app.task(every=30, jitter=timedelta(seconds=5), catch_up="none", max_runs=3)
async def pulse() -> int:
    """A schedule in code."""
    return 1


@app.task(cron="0 3 * * *", tz="Europe/Paris", start=datetime(2030, 1, 1, tzinfo=UTC), overlap=True)
def tidy() -> None:
    """Another one, of a plain function."""


@app.task
async def report(region: str) -> str:
    """A task with an argument, for a schedule that is added at run time."""
    return region


async def changes() -> None:
    """Checks what `app.schedules` takes and returns."""
    assert_type(pulse, CoroutineTask[[], int])
    assert_type(await app.schedules.add("a", report.s("eu"), every=timedelta(minutes=5)), Schedule)
    assert_type(await app.schedules.add("b", report.s("eu"), at=datetime(2030, 1, 1, tzinfo=UTC)), Schedule)
    await app.schedules.add("c", report.s("eu"), cron="@daily", catch_up="some")  # type: ignore[arg-type]
    await app.schedules.add("d", report.s(5), every=5)  # type: ignore[call-overload]
    await app.schedules.add("e", "report", every=5)  # type: ignore[arg-type]
    assert_type(await app.schedules.list(), list[Schedule])
    assert_type((await app.schedules.get("a")).next_at, datetime | None)
    assert_type(await app.schedules.run_now("a"), AsyncResult[Any])
    assert_type(await app.schedules.preview("a", 3), list[datetime])
    assert_type(asyncq.next_times("0 3 * * *", tz="Europe/Paris"), list[datetime])


def changes_in_a_thread() -> None:
    """Checks the blocking twins."""
    assert_type(app.schedules.add_sync("a", report.s("eu"), every=5), Schedule)
    assert_type(app.schedules.list_sync(), list[Schedule])
    assert_type(app.schedules.remove_sync("a"), None)
    assert_type(app.schedules.run_now_sync("a"), AsyncResult[Any])
