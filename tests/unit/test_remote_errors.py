"""A RemoteError replaces an exception that cannot be made again. It keeps its data, and is caught as the
nearest known class.
"""

from __future__ import annotations

import copy
import pickle
import sys
import traceback
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import pytest

from asyncq.errors import AsyncQError, RemoteError, ResultTimeout, TaskRevoked
from asyncq.failures import Failure, decode, encode, one_line, remote


class Shop(Exception):
    registered: ClassVar[list[object]] = []

    def __init_subclass__(cls, /, code, **options):
        super().__init_subclass__(**options)
        cls.registered.append((cls.__name__, code))

    def __init__(self, article, shelf):
        raise AssertionError("the constructor ran")


class SoldOut(Shop, code=1):
    """An exception that cannot be made without its arguments."""

    @property
    def where(self):
        return f"shelf {self.shelf}"

    def __str__(self):
        return self.nothing

    def __bool__(self):
        raise AssertionError

    __eq__ = __hash__ = __len__ = __getattribute__ = __setattr__ = __del__ = __repr__ = None


class Meta(type):
    def __new__(cls, name, bases, names):
        if name == "RemoteError":
            raise AssertionError("the metaclass made a class")
        return super().__new__(cls, name, bases, names)


class WithMeta(LookupError, metaclass=Meta):
    pass


class Abstract(ValueError, ABC):
    pass


class Slots(OSError):
    __slots__ = ("code",)


class Names(Exception):
    """An exception whose attributes have the names of those of a RemoteError."""

    type_name = traceback = attributes = args = _origin = property(lambda _: "of the class")


@dataclass(frozen=True)
class Frozen(Exception):
    code: object


class Later(TaskRevoked):
    pass


class EndOfItems(StopIteration):
    pass


def failure(*names, **fields):
    """Returns a failure of a class that cannot be found, derived from the named classes."""
    bases = tuple((cls.__module__, cls.__qualname__) for cls in names)
    given = {"message": "no lamp", "args": ("lamp", 2), "traceback": "where", "bases": bases} | fields
    return Failure(module="shop.errors", qualname="Gone", **given)


def round_trip(exc):
    return decode(encode(exc)).rebuild()


def same(error, other):
    known = ("type_name", "args", "traceback", "attributes")
    return all(getattr(error, name) == getattr(other, name) for name in known) and str(error) == str(other)


def test_a_remote_error_is_caught_as_its_nearest_imported_class():
    with pytest.raises(KeyError) as caught:
        raise failure(KeyError, LookupError).rebuild()
    error = caught.value
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.args, error.traceback) == ("shop.errors.Gone", ("lamp", 2), "where")
    assert str(error) == "shop.errors.Gone: no lamp"
    assert one_line(error) == "shop.errors.Gone: no lamp"
    assert "asyncq.errors.RemoteError: shop.errors.Gone: no lamp" in "".join(
        traceback.format_exception(error)
    )


def test_the_class_itself_is_preferred_to_its_bases():
    built = Failure(__name__, "Shop", "no lamp", ("lamp",), bases=(("builtins", "KeyError"),)).rebuild()
    assert isinstance(built, Shop)
    assert not isinstance(built, KeyError)


def test_the_attributes_of_the_exception_are_attributes_of_the_remote_error():
    error = failure(attributes={"shelf": 3, "tags": ["a"]}).rebuild()
    assert (error.shelf, error.tags, dict(error.attributes)) == (3, ["a"], {"shelf": 3, "tags": ["a"]})
    with pytest.raises(TypeError):
        error.attributes["shelf"] = 4


def test_a_remote_error_runs_no_code_of_the_class_it_is_caught_as():
    before = list(Shop.registered)
    error = failure(SoldOut, attributes={"shelf": 3}).rebuild()
    assert isinstance(error, SoldOut)
    assert Shop.registered == before
    assert (error.where, str(error), bool(error)) == ("shelf 3", "shop.errors.Gone: no lamp", True)
    assert repr(error) == "RemoteError('lamp', 2)"
    assert {error} == {error}
    error.add_note("a note")
    error.more = 1
    with pytest.raises(AttributeError, match=r"shop\.errors\.Gone arrived without an attribute 'nothing'"):
        error.nothing  # noqa: B018


def test_attributes_in_slots_and_in_c_fields_are_set():
    error = failure(Slots, attributes={"errno": 2, "filename": "a.txt", "code": 7}).rebuild()
    assert isinstance(error, Slots)
    assert (error.errno, error.filename, error.code) == (2, "a.txt", 7)


def test_attributes_of_the_exception_do_not_replace_those_of_the_remote_error():
    given = {"type_name": 1, "traceback": 2, "attributes": 3, "args": 4, "_origin": 5}
    error = failure(Names, attributes=given).rebuild()
    assert isinstance(error, Names)
    assert (error.type_name, error.traceback, error.args) == ("shop.errors.Gone", "where", ("lamp", 2))
    assert error.attributes == given
    assert same(pickle.loads(pickle.dumps(error)), error)
    assert same(pickle.loads(pickle.dumps(failure(attributes=given).rebuild())), error)


@pytest.mark.parametrize(
    "cls",
    [
        *(StopIteration, StopAsyncIteration, EndOfItems, Exception, BaseException, GeneratorExit, SystemExit),
        *(AsyncQError, RemoteError, ResultTimeout, Later, ExceptionGroup, BaseExceptionGroup, object, dict),
    ],
)
def test_a_remote_error_is_never_caught_as_control_flow_a_group_or_an_error_of_asyncq(cls):
    assert type(failure(cls).rebuild()) is RemoteError


def test_a_class_with_a_metaclass_is_skipped():
    error = failure(WithMeta, LookupError).rebuild()
    assert not isinstance(error, WithMeta)
    assert isinstance(error, LookupError)
    assert isinstance(failure(Abstract).rebuild(), Abstract)


def test_a_remote_error_imports_no_module():
    assert "wave" not in sys.modules
    error = failure(bases=(("wave", "Error"), ("builtins", "OSError"))).rebuild()
    assert isinstance(error, OSError)
    assert "wave" not in sys.modules


def test_a_final_class_is_skipped():
    pydantic_core = pytest.importorskip("pydantic_core")
    error = failure(pydantic_core.ValidationError, ValueError).rebuild()
    assert isinstance(error, ValueError)


def test_the_classes_of_remote_errors_are_cached_up_to_a_bound():
    assert type(failure(KeyError).rebuild()) is type(failure(KeyError, LookupError).rebuild())
    for number in range(remote.MAX_CLASSES + 10):
        base = type(f"Made{number}", (Exception,), {})
        setattr(sys.modules[__name__], base.__name__, base)
        assert isinstance(failure(base).rebuild(), base)
        delattr(sys.modules[__name__], base.__name__)
    assert remote._class_on.cache_info().currsize <= remote.MAX_CLASSES


def test_a_remote_error_of_a_frozen_dataclass_accepts_notes():
    rebuilt = round_trip(Frozen(object()))
    assert isinstance(rebuilt, Frozen)
    rebuilt.add_note("a note")
    assert rebuilt.__notes__ == ["a note"]


@pytest.mark.parametrize("bases", [(), (KeyError,), (Slots,)])
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_a_remote_error_can_be_pickled_and_copied(bases, again):
    error = failure(*bases, attributes={"errno": 3, "message": "m"}).rebuild()
    copied = again(error)
    assert same(copied, error)
    assert type(copied) is type(error)
    assert (copied.errno, copied.message) == (3, "m")


def test_a_remote_error_that_a_program_made_can_be_pickled():
    error = RemoteError("shop.Gone", ("no", 1), "tb")
    assert same(pickle.loads(pickle.dumps(error)), error)
    assert str(error) == "shop.Gone: ('no', 1)"


@pytest.mark.parametrize("args", [("lamp", 2), None])
def test_a_remote_error_that_passes_through_two_jobs_keeps_everything(args):
    once = failure(
        Slots, OSError, args=args, attributes={"shelf": 3, "errno": 2}, missing=("lock",)
    ).rebuild()
    twice = round_trip(round_trip(once))
    assert same(twice, once)
    assert type(twice) is type(once)
    assert (twice.shelf, twice.errno) == (3, 2)


def test_after_two_jobs_the_exception_is_rebuilt_of_its_class_where_that_is_imported(monkeypatch):
    class Gone(Exception):
        def __init__(self, article, left):
            super().__init__(article, left)
            self.left = left

    Gone.__module__, Gone.__qualname__ = "shop_errors", "Gone"
    data = encode(Gone("lamp", 2))
    data = encode(decode(data).rebuild())  # here the class cannot be found
    assert type(decode(data).rebuild()) is RemoteError
    monkeypatch.setitem(sys.modules, "shop_errors", type(sys)("shop_errors"))
    sys.modules["shop_errors"].Gone = Gone
    rebuilt = decode(data).rebuild()
    assert (type(rebuilt), rebuilt.args, rebuilt.left) == (Gone, ("lamp", 2), 2)


def test_a_class_that_a_user_derives_from_remote_error_is_not_changed():
    received = []

    class Base:
        def __init_subclass__(cls, **options):
            received.append(options)

    class Mine(RemoteError, Base, code=1):
        pass

    assert received == [{"code": 1}]
    rebuilt = round_trip(Mine("shop.Gone", ("no",), "tb"))
    assert rebuilt.type_name.endswith("Mine")


def test_a_stop_iteration_is_a_plain_remote_error_with_its_value():
    rebuilt = round_trip(StopIteration(3))
    assert type(rebuilt) is RemoteError
    assert (rebuilt.value, rebuilt.args) == (3, (3,))
    assert type(round_trip(EndOfItems(3))) is RemoteError
