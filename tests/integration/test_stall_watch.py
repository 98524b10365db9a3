"""A blocked event loop is reported in time, with the code that blocks it,
whatever the server does meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest
from helpers.waiting import until

from asyncq import Worker
from asyncq.broker.consumer import Beating
from asyncq.worker.stall_watch import StallWatch

pytestmark = pytest.mark.anyio

BLOCKED = re.compile(r"the event loop has been blocked for (\d+\.\d) s by (.*):")


def block(seconds: float) -> None:
    """Blocks the loop of its caller."""
    time.sleep(seconds)


@pytest.fixture
def stalls(caplog):
    """Returns the reports so far: the seconds, and what was running."""

    def stalls() -> list[tuple[float, str]]:
        found = (BLOCKED.search(record.getMessage()) for record in caplog.records)
        return [(float(match[1]), match[2]) for match in found if match]

    return stalls


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "asyncq-stall-watch"]


@pytest.fixture
async def watch():
    """Starts stall watches. All end with the test."""
    started: list[StallWatch] = []

    def start(limit: float) -> None:
        one = StallWatch(limit, lambda: "job x")
        one.start()
        started.append(one)

    yield start
    for one in started:
        one.stop()
    await until(lambda: not watch_threads(), "the watch to end")


async def test_a_stall_a_second_longer_than_the_limit_is_reported_whenever_it_starts(watch, stalls):
    watch(3.0)
    for _ in range(2):  # for each watch, the stall starts at another point of its second
        await asyncio.sleep(0.4)
        watch(3.0)
    block(4.2)
    assert [(3.0 <= seconds <= 3.5, what) for seconds, what in stalls()] == [(True, "job x")] * 3


async def test_a_shorter_stall_is_not_reported_and_one_that_goes_on_is_reported_again(watch, stalls, caplog):
    watch(0.5)
    for _ in range(5):
        block(0.4)
        await asyncio.sleep(0.01)
    assert stalls() == []
    block(2.0)
    times = [seconds for seconds, _ in stalls()]
    assert 3 <= len(times) <= 4
    assert times == sorted(times)
    assert "block(2.0)" in caplog.text  # the stack shows where


async def test_a_limit_of_zero_reports_no_stall(watch):
    watch(0)
    assert watch_threads() == []


async def test_an_idle_loop_is_checked_once_a_second(watch, monkeypatch):
    asked = []
    loop = asyncio.get_running_loop()
    ask = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (asked.append(1), ask(*call))[1])
    watch(10)
    await asyncio.sleep(2.5)
    assert 1 <= len(asked) <= 3


async def test_a_worker_reports_a_stall_while_a_heartbeat_waits_for_the_server(make_app, monkeypatch, stalls):
    """The heartbeat does not return until the stall is over."""
    app = make_app(lease=6, stall_warning=0.5)
    slow, held = threading.Event(), threading.Event()
    beat = Beating.beat

    def beat_late(self: Beating, count: int) -> list[str] | None:
        if slow.is_set():
            held.set()
            time.sleep(2)
        return beat(self, count)

    monkeypatch.setattr(Beating, "beat", beat_late)

    @app.task
    async def blocking() -> None:
        slow.set()
        await until(held.is_set, "a heartbeat to hang")
        block(1.6)

    async with app, Worker(app):
        await blocking.call()
        assert stalls()
        assert "blocking" in stalls()[0][1]


async def test_a_stall_watch_ends_after_its_loop_is_closed(stalls):
    def elsewhere() -> None:
        async def start() -> None:
            StallWatch(0.1, lambda: "job x").start()

        asyncio.run(start())

    await asyncio.to_thread(elsewhere)
    await until(lambda: not watch_threads(), "the watch to end")
    assert stalls() == []
