"""Limits of tasks: which values are accepted, and that the rule by which jobs start keeps the rate."""

from __future__ import annotations

import pytest
from helpers.rate_cell import TOLERANCE, Cell
from hypothesis import given, strategies as st

from asyncq import AsyncQ
from asyncq.limits import Limits, per_second


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (5, 5.0),
        (0.5, 0.5),
        ("7", 7.0),
        ("100/s", 100.0),
        ("90/m", 1.5),
        ("1.5 / m", 0.025),
        ("36/h", 0.01),
        ("864/d", 0.01),
    ],
)
def test_rates_are_parsed_as_celery_writes_them(rate, expected):
    assert per_second(rate) == pytest.approx(expected)


@pytest.mark.parametrize(
    "rate",
    [0, -1, True, "", "often", "10/w", "/s", "1e3", "-5/s", float("inf"), float("nan"), 10**7, 1e-9, b"1"],
)
def test_an_invalid_rate_is_refused_with_the_valid_forms(rate):
    with pytest.raises(ValueError, match=r'"100/s", "100/m", "100/h" or "100/d"'):
        Limits.of("task", rate, None)


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "2"])
def test_an_invalid_concurrency_limit_is_refused(concurrency):
    with pytest.raises(ValueError, match="1 or more"):
        Limits.of("task", None, concurrency)


def test_a_task_with_an_invalid_limit_is_refused_at_its_registration():
    app = AsyncQ("redis://localhost")
    with pytest.raises(ValueError, match="rate_limit='often'"):

        @app.task(rate_limit="often")
        async def refused() -> None: ...

    @app.task
    async def free() -> None: ...

    assert list(app.tasks) == [free.name]
    assert app.limits == {}


def test_a_task_that_is_registered_again_without_its_limit_has_none():
    app = AsyncQ("redis://localhost")

    async def work() -> None: ...

    app.task(name="work", concurrency=2)(work)
    assert app.limits["work"] == app.limits["work*"] == Limits("work", 0.0, 2)
    app.task(name="work")(work)
    assert app.limits == {}


@given(
    interval=st.sampled_from([0.01, 0.05, 0.5, 3.0]),
    arrivals=st.lists(st.floats(0, 5), min_size=1, max_size=40),
    late=st.lists(st.sampled_from([0.0, 0.003, 0.05, 0.3, 4.0]), min_size=1, max_size=7),
)
def test_no_more_jobs_start_than_the_rate_allows_however_late_they_come(interval, arrivals, late):
    cell = Cell(interval)
    coming = sorted((at, False) for at in arrivals)
    starts: list[float] = []
    asked = 0
    while coming:
        now, granted = coming.pop(0)
        start_time = cell.ask(now, granted=granted)
        asked += 1
        if start_time is None:
            starts.append(now)
        else:
            assert start_time >= now
            coming = sorted([*coming, (start_time + late[asked % len(late)], True)])
    assert len(starts) == len(arrivals)
    for i, first in enumerate(starts):
        for j in range(i, len(starts)):
            assert j - i <= (starts[j] - first + TOLERANCE) / interval + 1e-6


@given(interval=st.sampled_from([0.01, 0.5]), jobs=st.integers(1, 50))
def test_a_backlog_that_comes_in_time_starts_evenly_and_at_the_full_rate(interval, jobs):
    cell = Cell(interval)
    assert cell.ask(0.0, granted=False) is None
    start_times = [cell.ask(0.0, granted=False) for _ in range(jobs)]
    assert start_times == pytest.approx([interval * (i + 1) for i in range(jobs)])
    assert all(
        cell.ask(start_time, granted=True) is None for start_time in start_times if start_time is not None
    )
