"""Whatever an exception class does, its exception arrives equal, or as a RemoteError with its data."""

from __future__ import annotations

import abc
import contextlib
import sys

from helpers.examples import examples
from hypothesis import given, settings, strategies as st
from msgpack import packb

from asyncq.errors import DecodeError, RemoteError
from asyncq.failures import attributes, decode, encode, plain, raw, texts
from asyncq.serializers import loads


def raises(error):
    def method(*_, **__):
        raise type(error)

    return method


class Meta(type):
    __call__ = raises(SystemExit())


class FailingMeta(type):
    def __getattribute__(cls, name):
        raise SystemExit

    __eq__ = raises(SystemExit())
    __hash__ = None


def _nothing(self, *args, **options):
    pass


def _passes_args(self, *args, **options):
    BaseException.__init__(self, *args)


def _keeps(self, first=0, second="default"):
    BaseException.__init__(self, first)
    raw.dict_of(self).update(first=first, second=second)


def _formats(self, first):
    BaseException.__init__(self, f"about {first!r}")
    raw.dict_of(self)["first"] = first


def _by_keyword(self, *, code=1):
    raw.dict_of(self)["code"] = code


def _sets_attributes(self, *args):
    BaseException.__init__(self, *args)
    raw.dict_of(self).update(lock=object(), level=len(args))


def _changes_args(self, *args):
    self.args = (*args, "more")


def _new_with_keyword(cls, *args, code):
    return BaseException.__new__(cls, *args)


def _another(cls, *args):
    return KeyError(*args)


def _formatted(self):
    return f"{raw.dict_of(self).get('first')} {raw.dict_of(self).get('secret')!r}"


BASES = [Exception, ValueError, KeyError, OSError, FileNotFoundError, ImportError, SyntaxError, NameError]
BASES += [AttributeError, UnicodeError, StopIteration, ArithmeticError, ExceptionGroup, UnicodeDecodeError]
METAS = [type, type, type, abc.ABCMeta, Meta, FailingMeta]
METHODS = {
    "__init__": [
        _nothing,
        _passes_args,
        _keeps,
        _formats,
        _by_keyword,
        _sets_attributes,
        _changes_args,
        raises(SystemExit()),
    ],
    "__new__": [_new_with_keyword, _another, raises(GeneratorExit())],
    "__str__": [_formatted, lambda _: 3, lambda _: "fixed", raises(ValueError()), raises(SystemExit())],
    "__eq__": [raises(ValueError())],
    "__hash__": [None],
    "__repr__": [raises(ValueError())],
    "__bool__": [raises(ValueError())],
    "__setattr__": [raises(ValueError())],
    "__delattr__": [raises(ValueError())],
    "__getattr__": [raises(KeyError())],
    "__getattribute__": [raises(KeyError())],
    "__reduce__": [raises(ValueError())],
    "__setstate__": [raises(ValueError())],
    "__init_subclass__": [raises(SystemExit())],
    "__class__": [property(lambda _: ExceptionGroup)],
    "__dict__": [property(raises(ValueError()))],
    "__cause__": [property(raises(ValueError()), raises(ValueError()))],
    "args": [property(raises(ValueError()), raises(ValueError()))],
    "first": [property(raises(ValueError()), raises(ValueError()))],
    "attributes": [property(raises(ValueError()))],
    "__module__": [3, "nowhere", "builtins"],
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes()
    | st.builds(object)
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["first", "second", "code", "secret", "args", "errno", "object", "start", "attributes", "x"]
)


@st.composite
def exceptions(draw):
    """Draws an exception and a class for it. The class can be found in this module, or cannot."""
    methods = draw(st.lists(st.sampled_from(sorted(METHODS)), unique=True, max_size=4))
    names = {name: draw(st.sampled_from(METHODS[name])) for name in methods}
    if draw(st.booleans()):
        names["__slots__"] = draw(st.sampled_from([(), ("slot",), ("__secret", "slot"), "slot"]))
    names = {"__module__": __name__, "__qualname__": "Made"} | names
    base, meta = draw(st.sampled_from(BASES)), draw(st.sampled_from(METAS))
    cls = type.__new__(meta, "Made", (base,), names)
    if issubclass(cls, ExceptionGroup):
        exc = BaseExceptionGroup.__new__(cls, "group", [ValueError(draw(VALUES))])
    else:
        exc = raw.solid_base(cls).__new__(cls)
        args = tuple(draw(st.lists(VALUES, max_size=3)))
        raw.set_args(exc, args)
        with contextlib.suppress(BaseException):  # many classes do not take these arguments
            names.get("__init__", _nothing)(exc, *args)
    for name, value in draw(st.dictionaries(NAMES, VALUES, max_size=4)).items():
        raw.dict_of(exc)[name] = value
    attributes.set_all(exc, {"slot": draw(VALUES)} if draw(st.booleans()) else {})
    return lambda: exc  # a function, because hypothesis would compare and print the exception itself


def plain_attributes(exc):
    return {
        name: value
        for name, value in attributes.attributes_of(exc).items()
        if plain.packed(value) is not None
    }


def demand(is_true, what):
    """Asserts without showing the exception, because its repr may raise anything."""
    if not is_true:
        raise AssertionError(what)


def check(exc, arrived):
    cls = type(arrived)
    demand(issubclass(cls, Exception), "it is an Exception")
    sent = loads(plain.packed(plain_attributes(exc)))
    if issubclass(cls, RemoteError):
        demand(plain.is_same(sent, dict(arrived.attributes)), f"{sent} arrives as {arrived.attributes}")
        demand(type(str(arrived)) is str, "it has a text")
        return
    if cls is ExceptionGroup:
        return
    demand(cls is type(exc), f"it is of its class, and not {cls}")
    is_in_order = not plain.has_set(raw.args_of(arrived))
    demand(cut_message(arrived) == cut_message(exc) or not is_in_order, "it has the same text")
    found = plain_attributes(arrived)
    for name, value in sent.items():
        demand(plain.is_same(value, plain.plain(found[name])), name)
    if not issubclass(cls, ExceptionGroup):
        demand(
            plain.is_same(loads(plain.packed(raw.args_of(exc))), raw.args_of(arrived)), "it has the arguments"
        )


def cut_message(exc):
    return texts.cut(texts.message_of(exc), 2**20)


@settings(max_examples=examples(500), deadline=None)
@given(exceptions(), st.booleans())
def test_any_exception_arrives_equal_or_as_a_remote_error(make, is_imported):
    exc = make()
    module = sys.modules[__name__]
    if is_imported:
        module.Made = type(exc)
    try:
        data = encode(exc)
        arrived = decode(data).rebuild()
        check(exc, arrived)
        again = decode(encode(arrived)).rebuild()
        # The repr of a set has another order each time. An exception with another message arrives as a
        # RemoteError.
        if not plain.has_set(raw.args_of(arrived)):
            demand(type(again) is type(arrived), f"{type(arrived)} is {type(again)} after two jobs")
        assert decode(data).formatted()
    finally:
        vars(module).pop("Made", None)


NODE = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                ["builtins", "ValueError"],
                ["builtins", "OSError"],
                ["a", "b"],
                ["builtins", "UnicodeEncodeError"],
            ]
        ),
        "message": st.text(max_size=5),
    },
    optional={
        "bases": st.just([["builtins", "KeyError"]]) | VALUES,
        "args": VALUES.map(plain.packed) | st.lists(VALUES, max_size=5).map(tuple).map(plain.packed),
        "attributes": st.dictionaries(NAMES, VALUES, max_size=3).map(plain.packed) | VALUES,
        "cause": st.integers(-2, 3),
        "context": st.integers(-2, 3),
        "members": st.lists(st.integers(0, 3), max_size=3) | VALUES,
        "missing": st.lists(NAMES, max_size=2) | VALUES,
        "notes": st.lists(st.text(max_size=3), max_size=2) | VALUES,
    },
)


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(NODE, min_size=1, max_size=4))
def test_any_nodes_of_a_failure_are_a_decode_error_or_an_exception(nodes):
    try:
        data = packb(nodes, default=str, unicode_errors="surrogatepass")
    except (OverflowError, ValueError):
        return
    try:
        failure = decode(data)
    except DecodeError:
        return
    assert isinstance(failure.rebuild(), Exception)
    assert failure.formatted()
