"""Background tasks of a worker: no error ends them, and the log shows each error."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import pytest

from asyncq.broker.transport import background
from asyncq.broker.transport.background import BackgroundTasks, ErrorLog, forever
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.errors import BrokerUnavailable

pytestmark = pytest.mark.anyio

LOG = logging.getLogger("asyncq.test_background")
LOG.setLevel(logging.DEBUG)


@pytest.fixture
def records(monkeypatch) -> list[logging.LogRecord]:
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(LOG, "handle", records.append)
    return records


class Loop:
    """A background task. Each step raises the next of the given errors; it runs until there is none left."""

    def __init__(self, *turns: Exception | None) -> None:
        self._turns = deque(turns)
        self.over = asyncio.Event()
        self.pauses: list[float] = []

    async def turn(self) -> None:
        if not self._turns:
            self.over.set()
            await asyncio.Event().wait()
        if (error := self._turns.popleft()) is not None:
            raise error

    async def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Runs the task to its last turn. Its pauses take no time."""

        def pause(attempt: int) -> float:
            self.pauses.append(attempt)
            return 0.0

        monkeypatch.setattr(background, "pause", pause)
        task = asyncio.create_task(forever(self.turn, ErrorLog(LOG, "it went wrong")))
        await self.over.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), MemoryError(), PipeBroken("x")])
async def test_a_background_loop_continues_after_an_error_of_any_class(monkeypatch, error):
    loop = Loop(error, None, error)
    await loop.run(monkeypatch)
    assert loop.pauses == [1, 1]


async def test_pauses_grow_while_the_errors_last(monkeypatch):
    loop = Loop(*[RuntimeError("x")] * 3, None, RuntimeError("x"))
    await loop.run(monkeypatch)
    assert loop.pauses == [1, 2, 3, 1]


async def test_a_base_exception_ends_a_background_loop():
    class Ending(BaseException):
        pass

    async def turn() -> None:
        raise Ending

    with pytest.raises(Ending):
        await forever(turn, ErrorLog(LOG, "it went wrong"))


async def test_an_unexpected_error_is_logged_with_its_traceback(monkeypatch, records):
    await Loop(RuntimeError("no such luck")).run(monkeypatch)
    [record] = records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "it went wrong (unexpected error: RuntimeError: no such luck)"
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [PipeBroken("gone"), BrokerUnavailable("gone")])
async def test_an_unreachable_server_is_not_logged_as_an_error_of_the_worker(monkeypatch, records, error):
    await Loop(error).run(monkeypatch)
    [record] = records
    assert (record.levelno, record.exc_info) == (logging.DEBUG, None)


def _raise_first(number: int) -> None:
    raise RuntimeError(f"number {number}")


def _raise_second(number: int) -> None:
    raise RuntimeError(f"number {number}")


def test_the_same_error_in_a_row_is_logged_once_a_minute(monkeypatch, records):
    now = 1000.0
    monkeypatch.setattr(background.time, "monotonic", lambda: now)
    errors = ErrorLog(LOG, "it went wrong")
    for function, seconds in (
        *((_raise_first, 0), (_raise_first, 1), (_raise_first, 58)),
        *((_raise_second, 0), (_raise_first, 0), (_raise_first, 60)),
    ):
        now += seconds
        with pytest.raises(RuntimeError) as caught:
            function(int(now))
        errors.add(caught.value)
    levels = [record.levelname for record in records]
    assert levels == ["ERROR", "DEBUG", "DEBUG", "ERROR", "ERROR", "ERROR"]


async def test_a_background_task_that_fails_is_logged(records):
    tasks = BackgroundTasks(LOG)

    async def fail() -> None:
        raise RuntimeError("no such luck")

    tasks.start(fail())
    await tasks.finish()
    await asyncio.sleep(0)
    [record] = records
    assert (record.levelno, tasks._tasks) == (logging.ERROR, set())


async def test_finish_also_waits_for_tasks_that_the_tasks_start():
    tasks = BackgroundTasks(LOG)
    ended = []

    async def nest(depth: int) -> None:
        await asyncio.sleep(0)
        if depth:
            tasks.start(nest(depth - 1))
        ended.append(depth)

    tasks.start(nest(3))
    await tasks.finish()
    assert ended == [3, 2, 1, 0]


async def test_cancelled_tasks_end_and_are_not_logged(records):
    tasks = BackgroundTasks(LOG)
    task = tasks.start(asyncio.Event().wait())
    await asyncio.sleep(0)
    tasks.cancel()
    await tasks.wait()
    assert task.cancelled()
    assert not records
