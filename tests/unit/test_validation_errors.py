"""A ValidationError of pydantic arrives as a ValidationError, whatever errors it has."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import pydantic
import pydantic_core
import pytest

from asyncq.errors import RemoteError
from asyncq.failures import decode, encode


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, pydantic.Field(gt=0, le=9)] = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, pydantic.Field(min_length=2, pattern="^[a-z]+$")] = "rex"


class Custom(pydantic.BaseModel):
    x: int

    @pydantic.field_validator("x")
    @classmethod
    def _check(cls, x: int) -> int:
        if x == 1:
            raise pydantic_core.PydanticCustomError("one", "{x} is {what} {more}", {"x": x, "what": "one"})
        if x == 2:
            raise pydantic_core.PydanticCustomError("two", "no {braces}")
        if x == 3:
            raise pydantic_core.PydanticKnownError("greater_than", {"gt": 3})
        if x == 4:
            raise AssertionError("never four")
        if x == 5:
            raise UnicodeError("a subclass of ValueError")
        return x


class Hidden(pydantic.BaseModel, hide_input_in_errors=True):
    x: int


class Strict(pydantic.BaseModel, extra="forbid", strict=True):
    day: date = date(2026, 1, 1)
    pair: tuple[int, str] = (1, "a")


Animal = pydantic.TypeAdapter(Annotated[Cat | Dog, pydantic.Field(discriminator="kind")])
Either = pydantic.TypeAdapter(list[int] | dict[str, float])


@pytest.mark.parametrize(
    "fails",
    [
        lambda: Cat(kind="dog", lives=0),
        Cat,
        lambda: Dog(kind="dog", name="X"),
        *(lambda n=n: Custom(x=n) for n in range(1, 6)),
        lambda: Hidden(x="secret"),
        lambda: Strict(day="2026-01-01", pair=[1, 2], more={"a": (1,)}),
        lambda: Strict.model_validate_json('{"day": 1, "pair": {"a": 1}}'),
        lambda: Animal.validate_python({"kind": "cow"}),
        lambda: Animal.validate_python({"kind": "cat", "lives": 10}),
        lambda: Either.validate_python({"a": "x", "b": float("nan")}),
    ],
)
def test_a_validation_error_arrives_with_its_errors(fails):
    with pytest.raises(pydantic.ValidationError) as caught:
        fails()
    raised, arrived = caught.value, decode(encode(caught.value)).rebuild()
    assert type(arrived) is pydantic.ValidationError
    assert str(arrived) == str(raised)
    assert (arrived.title, arrived.args, arrived.error_count()) == (raised.title, (), raised.error_count())
    assert repr(arrived.errors()) == repr(raised.errors()).replace("UnicodeError(", "ValueError(")
    assert vars(arrived).keys() <= {"__notes__"}


def test_a_validation_error_with_input_that_cannot_be_serialized_is_a_value_error_with_its_errors():
    with pytest.raises(pydantic.ValidationError) as caught:
        Cat(kind=object(), lives=object())
    arrived = decode(encode(caught.value)).rebuild()
    assert isinstance(arrived, RemoteError)
    assert isinstance(arrived, ValueError)
    assert arrived.title == "Cat"
    assert [line["loc"] for line in arrived.line_errors] == [("kind",), ("lives",)]
    assert "input" not in arrived.line_errors[0]


def test_a_validation_error_that_pydantic_cannot_rebuild_is_a_remote_error():
    with pytest.raises(pydantic.ValidationError) as caught:
        Cat(kind="dog")
    failure = decode(encode(caught.value))
    failure.attributes["line_errors"] = [{"type": 3}, "nonsense"]
    assert isinstance(failure.rebuild(), RemoteError)
    failure.attributes.clear()
    assert isinstance(failure.rebuild(), RemoteError)
