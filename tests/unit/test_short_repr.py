"""Values in messages are cut to a readable length, and a large value takes no longer than a small one."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import time
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

import pydantic
import pytest

from asyncq import AsyncQ, Worker, WouldDeadlock, chain, denied_join_result, group
from asyncq.context import Context
from asyncq.results.eager import EagerResult
from asyncq.short_repr import brief

local = AsyncQ("memory://")


@local.task
async def add(x, y=0):
    return x


class FailingRepr:
    def __repr__(self):
        raise AssertionError("nobody should ask")


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Order:
    number: int
    items: list
    secret: str = dataclasses.field(default="s", repr=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    n: int


class Pair(NamedTuple):
    left: int


class User(pydantic.BaseModel):
    name: str
    word: pydantic.SecretStr
    hidden: str = pydantic.Field("h1", exclude=True)
    unseen: str = pydantic.Field("h2", repr=False)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 1.5, 42, "text", b"bytes", ..., int, print, Order, datetime(2026, 1, 1, tzinfo=UTC)),
        *([1, "a"], (1,), (), {}, set(), {"a": [1]}, frozenset({1}), {2}, deque([1])),
    ],
    ids=repr,
)
def test_short_values_are_shown_as_python_shows_them(value):
    assert brief(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a" * 100, f"'{'a' * 60}...'"),
        (b"a" * 100, f"b'{'a' * 60}...'"),
        (bytearray(b"a" * 100), f"bytearray(b'{'a' * 60}...')"),
        (list(range(10)), "[0, 1, 2, 3, 4, 5, ...]"),
        ({n: n for n in range(10)}, "{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, ...}"),
        ([[[[1]]]], "[[[[...]]]]"),
        (1 << 9999, "<int of 10000 bits>"),
        (Color.RED, "Color.RED"),
        (Order(1, list(range(10))), "Order(number=1, items=[0, 1, 2, 3, 4, 5, ...], secret=***)"),
        (Slotted(1), "Slotted(n=1)"),
        (Pair(1), "Pair(left=1)"),
        (User(name="n", word="w"), "User(name='n', word=***, hidden=***, unseen=***)"),
        ({"word": pydantic.SecretBytes(b"w")}, "{'word': ***}"),
        (ValueError("a" * 100), f"ValueError('{'a' * 60}...')"),
        (FailingRepr(), "<test_short_repr.FailingRepr object>"),
    ],
)
def test_long_and_foreign_values_are_cut_and_secrets_masked(value, text):
    assert brief(value) == text


def test_the_repr_of_a_value_that_contains_itself_ends():
    value = []
    value.append(value)
    assert brief(value) == "[[[[...]]]]"


HUGE = [
    "x" * 50_000_000,
    b"x" * 50_000_000,
    [0] * 5_000_000,
    dict.fromkeys(range(1_000_000)),
    set(range(1_000_000)),
    1 << 5_000_000,
]


@pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__)
def test_the_cost_does_not_grow_with_the_size_of_the_value(value):
    context = Context("id", "name", (value,), {"k": value}, "q")
    shown = [
        brief(value),
        repr(add.s(value)),
        repr(context),
        repr(EagerResult("id", value, "SUCCESS").outcome_sync()),
    ]
    started = time.process_time()
    for _ in range(100):
        shown += [brief(value), repr(add.s(value)), repr(context)]
    assert time.process_time() - started < 0.5
    assert max(map(len, shown)) < 500


def test_a_long_workflow_is_shown_in_parts():
    long = chain(*[add.s(n) for n in range(5000)])
    assert repr(long).endswith("| ... 4,994 more)")
    assert len(repr(long)) < 500
    assert "4,994 more" in repr(group(add.s(n) for n in range(5000)))


@pytest.mark.anyio
async def test_a_call_makes_no_repr_unless_it_is_refused(app, monkeypatch):
    @app.task(name="plus")
    async def plus(x, y):
        return x + y

    line = plus.s(1, 2) | plus.s(3)
    with (
        denied_join_result(),
        pytest.raises(WouldDeadlock, match=r"\(plus\(1, 2\) \| plus\(3\)\)\.call\(\) inside"),
    ):
        await line.call()
    written = []
    for kind in (type(line), type(plus.s(1)), type(plus)):
        monkeypatch.setattr(kind, "__repr__", lambda self: written.append(self) or "it")
    async with Worker(app):
        assert await line.call() == 6
        assert await plus.s(1, 2).call() == 3
        assert await plus.call(1, 2) == 3
        assert await (await asyncio.to_thread(line.apply)) == 6
        assert await (await asyncio.to_thread(plus.apply, (1, 2))) == 3
    assert not written


def test_an_error_shows_a_part_of_a_large_value():
    for wrong in (lambda: local.task("x" * 10_000), lambda: add.options(headers=["x" * 10_000])):
        with pytest.raises(TypeError) as caught:
            wrong()
        assert len(str(caught.value)) < 500
