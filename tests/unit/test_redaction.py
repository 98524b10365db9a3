"""What a log line or an error may show of a value."""

import dataclasses
import enum
from datetime import UTC, datetime
from typing import NamedTuple

import pydantic
import pytest

from asyncq.serializers import redacted, redacted_call


class Color(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int


@dataclasses.dataclass
class Card:
    name: str
    number: str = dataclasses.field(repr=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    n: int


class User(pydantic.BaseModel):
    name: str
    word: pydantic.SecretStr
    hidden: str = pydantic.Field("h1", exclude=True)
    unseen: str = pydantic.Field("h2", repr=False)


class Loud:
    def __repr__(self) -> str:
        raise AssertionError("the repr of a foreign class was called")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ([1, "a", (2,)], "[1, 'a', (2,)]"),
        ({"a": {1}, "b": set()}, "{'a': {1}, 'b': set()}"),
        (frozenset({1}), "frozenset({1})"),
        (Color.RED, "Color.RED"),
        (Pair(1), "Pair(left=1)"),
        (Card("n", "4711"), "Card(name='n', number=***)"),
        (Slotted(1), "Slotted(n=1)"),
        (User(name="n", word="w"), "User(name='n', word=***, hidden=***, unseen=***)"),
        (
            datetime(2026, 1, 1, tzinfo=UTC),
            "datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)",
        ),
        ([Loud()], "[<test_redaction.Loud>]"),
        (2**300, "<int of 301 bits>"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_value_is_shown_without_its_secrets(value, shown):
    assert redacted(value) == shown


@pytest.mark.parametrize("value", ["x" * 10**6, ["x"] * 10**6, {n: n for n in range(10**5)}, b"\0" * 10**6])
def test_a_large_value_is_cut(value):
    assert len(redacted(value, 50)) <= 50


def test_a_value_that_holds_itself_is_cut():
    value = []
    value.append(value)
    assert "..." in redacted(value)


def test_a_call_is_shown_as_one_would_write_it():
    assert redacted_call((1, "a"), {"by": [2]}) == "1, 'a', by=[2]"
