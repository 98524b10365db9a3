"""Server-sent events: their bytes, and comments in the silence between them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from helpers import event_source

from asyncq.integrations.job_resource import number_of, wait_of
from asyncq.integrations.server_sent_events import KEEPALIVE, event, kept_alive

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def test_no_value_breaks_the_lines_of_an_event() -> None:
    values = ["two\nlines\r\n\r\n", {"a\n": " \u2028"}, None, "id: 7"]

    text = b"".join(event(value, number) for number, value in enumerate(values)).decode()

    assert [one.data for one in event_source.parse(text.split("\n"))] == values


@pytest.mark.anyio
async def test_silence_is_filled_with_comments_and_no_event_is_lost() -> None:
    go = asyncio.Event()
    closed = False

    async def events() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            yield b"1"
            await go.wait()
            yield b"2"
        finally:
            closed = True

    seen = []
    async for data in kept_alive(events(), silence=0.005):
        seen.append(data)
        if seen.count(KEEPALIVE) == 3:
            go.set()
    assert [data for data in seen if data != KEEPALIVE] == [b"1", b"2"]
    assert closed


@pytest.mark.anyio
@pytest.mark.parametrize("after", [0, 1, 2], ids=["not begun", "in an event", "in a silence"])
async def test_a_stream_that_is_closed_early_closes_its_events_and_leaves_no_task(after: int) -> None:
    started = ended = 0

    async def events() -> AsyncGenerator[bytes, None]:
        nonlocal started, ended
        started += 1
        try:
            yield b"1"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended += 1

    before = asyncio.all_tasks()
    async with aclosing(kept_alive(events(), silence=0.005)) as stream:
        for _ in range(after):
            await anext(stream)

    assert started == ended == min(after, 1)
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_an_error_of_the_events_comes_out() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        yield b"1"
        raise ValueError("broken")

    stream = kept_alive(events())
    assert await anext(stream) == b"1"
    with pytest.raises(ValueError, match="broken"):
        await anext(stream)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("WAIT = 5", 5),
        ('respond-async; x=y, wait="7"', 7),
        ("wait=5.5", 0),
        ("wait=-1", 0),
        ("await=5", 0),
        ("wait=100000", 60),
        ("", 0),
    ],
)
def test_a_preference_for_a_wait_is_read_as_rfc_7240_says(prefer: str, seconds: int) -> None:
    assert wait_of(prefer) == seconds


@pytest.mark.parametrize("wrong", ["-1", "1.5", "one", "٣", "1" * 30])
def test_an_id_that_is_no_number_of_an_event_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="a number"):
        number_of(wrong)
