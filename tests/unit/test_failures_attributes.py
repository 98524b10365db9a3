"""An exception arrives with its attributes. No code of its class runs except what makes it."""

from __future__ import annotations

import threading
from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple

import pytest

from asyncq.errors import RemoteError, RetryLater
from asyncq.failures import Failure, decode, encode, texts
from asyncq.serializers import dumps, loads


class Pair(NamedTuple):
    a: int
    b: int


class Color(StrEnum):
    RED = "red"


class ApiError(Exception):
    def __init__(self, message, status=500):
        super().__init__(message)
        self.status = status


class MissingError(Exception):
    def __init__(self, code):
        super().__init__(f"error {code}")
        self.code = code


class ByKeyword(Exception):
    def __init__(self, *, code, text="none"):
        self.code, self.text = code, text

    def __str__(self):
        return f"{self.code}: {self.text}"


class Locked(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()
        self.tries = 0


class Counting(Exception):
    made = 0

    def __init__(self, code):
        type(self).made += 1
        super().__init__(f"number {code}")


class Guarded(Exception):
    """A class of which only `__init__`, `__new__` and `__str__` may run."""

    def __init__(self, level=0):
        super().__init__()
        vars(self)["_level"] = level

    def _refuse(self, *_):
        raise AssertionError("code of the class ran")

    level = property(_refuse, _refuse)
    __reduce__ = __reduce_ex__ = __setstate__ = __setattr__ = __delattr__ = __eq__ = _refuse
    __hash__ = None


class Slotted(Exception):
    __slots__ = ("__secret", "code", "empty")

    def __init__(self, code, secret=None):
        super().__init__("slotted")
        self.code, self.__secret = code, secret

    @property
    def secret(self):
        return self.__secret


class Computed(Exception):
    @property
    def status(self):
        return self._status

    def __init__(self, status):
        super().__init__()
        self._status = status


class Meta(type):
    def __call__(cls, *_):
        raise AssertionError("the metaclass was called")


class WithMeta(Exception, metaclass=Meta):
    pass


class Asking(Exception):
    def __init__(self, inner=None):
        super().__init__("asks", 1)
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Optional(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.hint = None


class WrongStr(Exception):
    def __str__(self):
        raise ValueError


class MissesIt(Exception):
    """Its text needs an attribute that cannot be serialized."""

    def __init__(self, thing):
        super().__init__()
        self.thing = thing

    def __str__(self):
        return f"lost {self.thing.real}"


def round_trip(exc):
    return decode(encode(exc)).rebuild()


@pytest.mark.parametrize(
    ("exc", "attributes"),
    [
        (ApiError("no such user", status=404), {"status": 404}),
        (MissingError(404), {"code": 404}),
        (ByKeyword(code=7, text="x"), {"code": 7, "text": "x"}),
        (ByKeyword(code=float("nan"), text={"k": [1, (2,)]}), None),
        (Slotted(3, "s"), {"code": 3, "secret": "s"}),
        (Computed("open"), {"status": "open"}),
        (ApiError("teapot", status=HTTPStatus.IM_A_TEAPOT), {"status": 418}),
        (
            ApiError(Color.RED, status={"colors": [Color.RED, Pair(1, 2)]}),
            {"status": {"colors": ["red", (1, 2)]}},
        ),
        (RetryLater("busy", countdown=5), {"countdown": 5, "max_retries": None}),
        (WrongStr("x"), {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_exception_keeps_its_attributes(exc, attributes):
    rebuilt = round_trip(exc)
    assert type(rebuilt) is type(exc)
    assert rebuilt.args == exc.args
    if not isinstance(exc, WrongStr):
        assert str(rebuilt) == str(exc)
    for name, value in (attributes or {}).items():
        assert getattr(rebuilt, name) == value


def test_a_constructor_that_makes_an_equal_exception_is_called_and_its_other_attributes_stay():
    exc = Locked("busy")
    exc.tries = 3
    rebuilt = round_trip(exc)
    assert type(rebuilt) is Locked
    assert rebuilt.tries == 3
    assert isinstance(rebuilt.lock, type(exc.lock))


def test_an_attribute_that_the_exception_had_lost_is_removed():
    exc = Locked("busy")
    del exc.tries
    assert not hasattr(round_trip(exc), "tries")


def test_an_attribute_that_cannot_be_serialized_keeps_the_value_of_the_constructor():
    exc = Optional("no")
    exc.hint = object()
    assert round_trip(exc).hint is None


def test_a_constructor_is_called_at_most_once():
    data = encode(Counting(1))
    Counting.made = 0
    rebuilt = decode(data).rebuild()
    assert (type(rebuilt), str(rebuilt), Counting.made) == (Counting, "number 1", 1)


@pytest.mark.parametrize("level", [0, 5])
def test_rebuilding_runs_no_setter_no_property_and_no_reduce(level):
    rebuilt = round_trip(Guarded(level))
    assert type(rebuilt) is Guarded
    assert vars(rebuilt)["_level"] == level


def test_rebuilding_does_not_call_a_metaclass():
    exc = type.__call__(WithMeta, "x")
    rebuilt = round_trip(exc)
    assert (type(rebuilt), rebuilt.args) == (WithMeta, ("x",))


def test_a_class_with_getattr_is_rebuilt_only_by_its_constructor():
    rebuilt = round_trip(Asking(inner="text"))
    assert isinstance(rebuilt, RemoteError)
    assert isinstance(rebuilt, Asking)
    assert rebuilt.inner == "text"
    assert not hasattr(rebuilt, "other")


def test_an_exception_whose_text_needs_a_value_that_cannot_be_serialized_is_a_remote_error():
    rebuilt = round_trip(MissesIt(1 + 0j))
    assert isinstance(rebuilt, RemoteError)
    assert isinstance(rebuilt, MissesIt)
    assert str(rebuilt).endswith("MissesIt: lost 1.0")


def test_a_text_with_the_items_of_a_set_in_another_order_counts_as_equal():
    failure = Failure("builtins", "ValueError", "another order", ({"a", "b"},))
    assert type(failure.rebuild()) is ValueError
    assert isinstance(Failure("builtins", "ValueError", "another text", ("a",)).rebuild(), RemoteError)


@pytest.mark.parametrize("name", ["__class__", "__dict__", "__cause__", "__notes__", "__str__"])
def test_special_attributes_of_python_are_never_set(name):
    [node] = loads(encode(ApiError("x", 1)))
    node["attributes"] = dumps({name: {"a": 1}, "status": 2})
    forged = decode(dumps([node]))
    assert forged.attributes == {"status": 2}
    rebuilt = forged.rebuild()
    assert (type(rebuilt), rebuilt.status, list(vars(rebuilt))) == (ApiError, 2, ["status"])


def test_a_unicode_error_never_gets_positions_outside_of_its_object():
    for args in [("utf-8", "text", -5, -4, "no"), ("utf-8", "text", 2, 3, "no")]:
        failure = Failure("builtins", "UnicodeEncodeError", "m", args)
        assert isinstance(failure.rebuild(), UnicodeEncodeError)
    attributes = {"object": b"bytes", "start": -1, "end": 2**70, "encoding": 3}
    failure = Failure("builtins", "UnicodeEncodeError", "m", None, attributes)
    rebuilt = failure.rebuild()
    assert isinstance(rebuilt, UnicodeEncodeError)
    assert rebuilt.attributes == attributes
    UnicodeEncodeError.__str__(rebuilt)


def test_an_attribute_that_is_too_large_is_left_out_and_the_others_stay():
    exc = ApiError("x", status="s" * texts.MAX_ATTRIBUTES)
    exc.other = "kept"
    data = encode(exc)
    assert len(data) < texts.MAX_ATTRIBUTES
    assert (type(decode(data).rebuild()), decode(data).rebuild().other) == (ApiError, "kept")
    group = ExceptionGroup("g", [ApiError("x", "s" * 30_000) for _ in range(90)])
    assert len(encode(group)) < 400_000


def test_a_group_keeps_its_attributes():
    exc = ExceptionGroup("g", [ValueError(1)])
    exc.code = 7
    assert round_trip(exc).code == 7
