"""Exceptions on their way from the worker to the caller."""

import asyncio
import json
import subprocess
import sys
import textwrap
import traceback
import types
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest
from helpers.examples import examples
from hypothesis import given, settings, strategies as st
from msgpack import packb
from pydantic import TypeAdapter

import asyncq
from asyncq.errors import DecodeError, RemoteError, RemoteTraceback, ResultTimeout
from asyncq.failures import Failure, decode, encode, encode_short, one_line, texts
from asyncq.serializers import dumps, loads


def raised(exc, cause=None):
    try:
        if cause is not None:
            raise exc from cause
        raise exc
    except BaseException as error:
        return error


def round_trip(exc):
    return decode(encode(exc)).rebuild()


class Outer:
    class NestedError(Exception):
        pass


class TwoArgumentsError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class OtherError(Exception):
    def __new__(cls, *args):
        return ValueError(*args) if args == ("swap",) else super().__new__(cls, *args)


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class CustomGroup(ExceptionGroup):
    def derive(self, excs):
        return CustomGroup(self.message, excs)


class StrictGroup(ExceptionGroup):
    def __new__(cls, message, excs, *, code):
        return super().__new__(cls, message, excs)

    def __init__(self, message, excs, *, code):
        super().__init__(message, excs)


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("bad", 3),
        KeyError("k"),
        Outer.NestedError((1, {2}), b"x"),
        ResultTimeout("slow"),
        TimeoutError("the task's own"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        FrozenError(7),
        RuntimeError(),
    ],
    ids=repr,
)
def test_an_exception_of_an_imported_class_is_rebuilt_with_its_arguments(exc):
    rebuilt = round_trip(exc)
    assert type(rebuilt) is type(exc)
    assert rebuilt.args == exc.args
    assert str(rebuilt) == str(exc)
    assert type(rebuilt.__cause__) is RemoteTraceback


def test_an_os_error_keeps_its_file_names():
    rebuilt = round_trip(FileNotFoundError(2, "no such file", "a.txt"))
    assert type(rebuilt) is FileNotFoundError
    assert (rebuilt.errno, rebuilt.filename, rebuilt.filename2) == (2, "a.txt", None)
    assert round_trip(OSError(18, "cross-device", "a", None, "b")).filename2 == "b"


def test_a_remote_error_that_passes_through_a_task_stays_the_same():
    rebuilt = round_trip(RemoteError("shop.Gone", ("no", 1), "tb"))
    assert (type(rebuilt), rebuilt.type_name, rebuilt.args) == (RemoteError, "shop.Gone", ("no", 1))
    assert rebuilt.traceback == "tb"


def remote(module, qualname, args=("m",)):
    return Failure(module=module, qualname=qualname, message="m", args=args, traceback="where").rebuild()


@pytest.mark.parametrize(
    ("module", "qualname"),
    [
        ("not.imported", "Error"),
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "BaseException"),
        ("builtins", "eval"),
        ("builtins", "Missing"),
        ("subprocess", "Popen"),
        ("os", "path.join"),
        ("builtins", "ValueError.__init__"),
        ("", ""),
        (__name__, "raised.<locals>.X"),
        (__name__, "Outer"),
    ],
)
def test_a_class_that_is_not_an_imported_exception_makes_a_remote_error(module, qualname):
    rebuilt = remote(module, qualname)
    assert type(rebuilt) is RemoteError
    assert rebuilt.args == ("m",)
    assert rebuilt.traceback == "where"
    assert rebuilt.type_name.endswith(qualname)


def test_rebuilding_imports_no_module_and_loads_no_lazy_attribute(monkeypatch):
    asked = []
    module = types.ModuleType("lazy_module")
    module.__getattr__ = asked.append
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    assert type(remote("lazy_module", "Error")) is RemoteError
    assert asked == []
    assert "wave" not in sys.modules
    assert type(remote("wave", "Error")) is RemoteError
    assert "wave" not in sys.modules


@pytest.mark.parametrize(
    "exc", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("x"), GeneratorExit()], ids=repr
)
def test_an_exception_that_would_end_the_caller_is_a_remote_error(exc):
    rebuilt = round_trip(raised(exc))
    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name.split(".")[-1] == type(exc).__name__
    assert rebuilt.args == exc.args


def test_an_exception_is_rebuilt_although_its_constructor_does_not_accept_its_args():
    rebuilt = round_trip(TwoArgumentsError(1, 2))
    assert type(rebuilt) is TwoArgumentsError
    assert (rebuilt.args, str(rebuilt)) == (("1 and 2",), "1 and 2")


def test_an_exception_whose_constructor_changes_it_is_a_remote_error_of_its_class():
    rebuilt = remote(__name__, "OtherError", ("m",))
    assert type(rebuilt) is OtherError
    rebuilt = Failure(module=__name__, qualname="OtherError", message="swap", args=("swap",)).rebuild()
    assert isinstance(rebuilt, RemoteError)
    assert isinstance(rebuilt, OtherError)


def test_an_exception_with_args_that_cannot_be_serialized_keeps_its_message():
    rebuilt = round_trip(ValueError("bad", object))
    assert isinstance(rebuilt, RemoteError)
    assert isinstance(rebuilt, ValueError)
    assert rebuilt.args == ("('bad', <class 'object'>)",)
    assert isinstance(round_trip(ValueError(b"x" * (texts.MAX_ARGS + 1))), RemoteError)


def test_notes_are_rebuilt():
    exc = FrozenError(1)
    object.__setattr__(exc, "__notes__", ["first", "second"])
    assert round_trip(exc).__notes__ == ["first", "second"]


def test_the_remote_traceback_has_the_chain_of_causes():
    try:
        try:
            raise KeyError("k")
        except KeyError as error:
            raise ValueError("v") from error
    except ValueError as error:
        rebuilt = round_trip(error)
    remote_traceback = rebuilt.__cause__
    assert "raise ValueError" in remote_traceback.traceback
    assert "KeyError" not in remote_traceback.traceback
    assert type(remote_traceback.__cause__) is KeyError
    assert "raise KeyError" in remote_traceback.__cause__.__cause__.traceback


@pytest.mark.parametrize("hidden", [True, False])
def test_the_context_is_rebuilt_and_stays_suppressed_if_it_was(hidden):
    exc, context = ValueError("v"), KeyError("k")
    exc.__context__, exc.__suppress_context__ = context, hidden
    remote_traceback = round_trip(exc).__cause__
    assert type(remote_traceback.__context__) is KeyError
    assert remote_traceback.__suppress_context__ is hidden


def test_a_group_is_rebuilt_with_its_members():
    group = raised(ExceptionGroup("two", [raised(ValueError(1)), ExceptionGroup("deep", [KeyError("k")])]))
    rebuilt = round_trip(group)
    assert type(rebuilt) is ExceptionGroup
    assert rebuilt.message == "two"
    assert [type(member) for member in rebuilt.exceptions] == [ValueError, ExceptionGroup]
    assert rebuilt.exceptions[1].exceptions[0].args == ("k",)
    assert "raise exc" in rebuilt.exceptions[0].__cause__.traceback


def test_a_group_of_a_derived_class_keeps_its_class():
    assert type(round_trip(CustomGroup("mine", [ValueError()]))) is CustomGroup
    assert type(round_trip(StrictGroup("mine", [ValueError()], code=1))) is StrictGroup


def _first():
    raise KeyError("first")


def _handled(link):
    try:
        try:
            _first()
        except KeyError as first:
            error = ValueError("second")
            error.add_note("a note")
            raise error from link(first)
    except ValueError as error:
        return error


def _raised_beside():
    try:
        _first()
    except KeyError:
        return raised(ValueError("second"))


@pytest.mark.parametrize(
    "make",
    [lambda: _handled(lambda first: first), lambda: _handled(lambda _: None), _raised_beside],
    ids=["with its cause", "with a hidden context", "with a context"],
)
def test_a_failure_is_formatted_as_python_prints_it(make):
    exc = make()
    printed = "".join(traceback.format_exception(exc)).splitlines()
    without_columns = [line for line in printed if not line or line.strip(" ^~")]
    assert decode(encode(exc)).formatted().splitlines() == without_columns


def test_a_formatted_group_shows_each_member_with_its_traceback():
    text = decode(
        encode(raised(ExceptionGroup("two", [_handled(lambda first: first), OSError("b")])))
    ).formatted()
    first, second = text.index("+---------------- 1 ---"), text.index("+---------------- 2 ---")
    assert text.startswith("Traceback")
    assert "ExceptionGroup: two (2 sub-exceptions)" in text[:first]
    assert first < text.index("    |     _first()") < text.index("    | ValueError: second") < second
    assert second < text.index("    | OSError: b")


def test_members_that_are_base_exceptions_become_remote_errors():
    rebuilt = round_trip(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]))
    assert type(rebuilt) is ExceptionGroup
    assert [type(member) for member in rebuilt.exceptions] == [RemoteError, ValueError]


def test_members_of_a_huge_group_are_left_out_with_a_note():
    rebuilt = round_trip(ExceptionGroup("g", [ValueError(n) for n in range(500)]))
    assert len(rebuilt.exceptions) == texts.MAX_EXCEPTIONS - 1
    assert rebuilt.__notes__ == ["... 401 more members of this group were left out"]


def chain(length):
    exc = ValueError(0)
    for n in range(1, length):
        above = ValueError(n)
        above.__cause__ = exc
        exc = above
    return exc


def nested_group(depth):
    exc = ValueError(0)
    for n in range(depth):
        exc = ExceptionGroup(str(n), [exc])
        exc.__cause__ = RuntimeError(n)
    return exc


def test_causes_of_a_huge_chain_are_left_out_with_a_note():
    failure = decode(encode(chain(3000)))
    length = 1
    while failure.cause is not None:
        failure, length = failure.cause, length + 1
    assert length == texts.MAX_LINKS + 1
    assert failure.notes == ("... the exceptions that caused this one were left out",)


def own_cause():
    exc = ValueError("loop")
    exc.__cause__ = exc
    return exc


def ring():
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__context__ = two, one
    return one


def contains_itself():
    exc = ValueError("x")
    exc.args = (exc, [exc])
    return exc


def endless():
    exc = ValueError("x")
    items = []
    items.append(items)
    exc.args = (items,)
    return exc


def raises(error):
    def method(*_):
        raise error

    return method


def broken(**members):
    return type("Broken", (Exception,), members)("x")


class FailingMeta(type):
    def __getattribute__(cls, name):
        if name in {"__qualname__", "__module__", "__name__"}:
            raise SystemExit
        return super().__getattribute__(name)


def recursion():
    def down():
        down()

    try:
        down()
    except RecursionError as error:
        return error


class FailingText(str):
    __slots__ = ()

    def encode(self, *_):
        raise RuntimeError

    __str__ = __len__ = encode


HOSTILE = {
    "str fails": lambda: broken(__str__=raises(ValueError("no"))),
    "str exits": lambda: broken(__str__=raises(SystemExit())),
    "str gives no str": lambda: broken(__str__=lambda _: 3),
    "str gives a failing str": lambda: broken(__str__=lambda _: FailingText("x")),
    "repr fails": lambda: broken(__repr__=raises(ValueError("no"))),
    "args property": lambda: broken(args=property(raises(ValueError("no")))),
    "args that contain it": contains_itself,
    "endless args": endless,
    "cause property": lambda: broken(__cause__=property(raises(KeyboardInterrupt()))),
    "traceback property": lambda: broken(__traceback__=property(raises(ValueError("no")))),
    "notes property": lambda: broken(__notes__=property(raises(ValueError("no")))),
    "strange notes": lambda: broken(__notes__=[1, FailingText("n"), "fine"]),
    "notes are no list": lambda: broken(__notes__=7),
    "lying class": lambda: broken(__class__=property(lambda _: ExceptionGroup)),
    "lying metaclass": lambda: FailingMeta("Lying", (Exception,), {})("x"),
    "name of a megabyte": lambda: type("N" * 2**20, (Exception,), {})("x"),
    "surrogate in the name": lambda: broken(__module__="m\ud800"),
    "module is no str": lambda: broken(__module__=3),
    "surrogates": lambda: ValueError("\ud800", "ü"),
    "message of ten megabytes": lambda: ValueError("ü" * 5_000_000),
    "bytes of a megabyte": lambda: ValueError(b"x" * 2**20),
    "own cause": own_cause,
    "ring": ring,
    "chain of 3000": lambda: chain(3000),
    "groups 60 deep": lambda: nested_group(60),
    "group of 500 with long texts": lambda: ExceptionGroup(
        "g", [ValueError("y" * 10_000) for _ in range(500)]
    ),
    "recursion": recursion,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_encode_never_raises_and_stays_small(make):
    data = encode(raised(make()))
    assert len(data) < 400_000
    failure = decode(data)
    assert isinstance(failure.rebuild(), Exception)
    assert len(failure.type_name) <= 2 * texts.MAX_NAME + 1


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_short_form_of_a_failure_is_short_and_keeps_the_class(make):
    exc = raised(make())
    data = encode_short(exc)
    assert len(data) <= texts.MAX_SHORT
    short = decode(data)
    assert isinstance(short.rebuild(), Exception)
    assert short.type_name == decode(encode(exc)).type_name


def test_the_short_form_of_a_short_failure_is_the_failure_itself():
    exc = raised(ExceptionGroup("several", [ValueError("no", 1), KeyError("k")]))
    assert encode_short(exc) == encode(exc)


def test_the_middle_of_a_long_text_is_left_out_with_a_note():
    failure = decode(encode(ValueError("a" + "ü" * 100_000 + "z")))
    assert len(failure.message.encode()) <= texts.MAX_MESSAGE
    assert failure.message.startswith("aü")
    assert failure.message.endswith("üz")
    assert "bytes left out" in failure.message


def test_the_traceback_starts_after_the_frames_of_asyncq():
    runner_file = str(Path(asyncq.__file__).parent / "runner.py")
    names = {}
    exec(compile("def run(body):\n    return body()\n", runner_file, "exec"), names)

    def body():
        secret = "hidden value"
        raise ValueError(len(secret))

    with pytest.raises(ValueError) as caught:
        names["run"](lambda: names["run"](body))
    exc = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    text = decode(encode(exc)).traceback
    assert text.count("runner.py") == 1  # the frame above the user's own is left out, the one below stays
    assert "in body" in text
    assert "hidden value" not in text.replace('secret = "hidden value"', "")
    assert text.endswith("ValueError: 12\n")


def test_control_characters_in_names_are_escaped():
    tree = {"type": ["shop\n\x1b[2J", "E\u202eevil"], "message": "m"}
    assert decode(dumps([tree])).type_name == r"shop\n\x1b[2J.E\u202eevil"


GOOD = {"type": ["builtins", "ValueError"], "message": "m"}


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {},
        GOOD | {"bases": [["builtins"]]},
        GOOD | {"bases": "builtins"},
        GOOD | {"raised": 1},
        GOOD | {"attributes": {"a": 1}},
        GOOD | {"attributes": dumps([1])},
        GOOD | {"attributes": dumps({1: 2})},
        GOOD | {"attributes": b"garbage"},
        GOOD | {"missing": [3]},
        GOOD | {"cause": 0},
        GOOD | {"cause": -1},
        GOOD | {"cause": True},
        GOOD | {"type": ["ValueError"]},
        GOOD | {"type": [1, 2]},
        GOOD | {"message": b"m"},
        GOOD | {"traceback": 3},
        GOOD | {"notes": [3]},
        GOOD | {"notes": "text"},
        GOOD | {"args": [1]},
        GOOD | {"args": b"garbage"},
        GOOD | {"args": dumps([1])},
        GOOD | {"cause": 3},
        GOOD | {"context": GOOD | {"message": 1}},
        GOOD | {"members": GOOD},
        GOOD | {"members": [3]},
    ],
    ids=repr,
)
def test_a_tree_that_is_not_a_failure_is_a_decode_error(tree):
    with pytest.raises(DecodeError):
        decode(packb([tree]))


@pytest.mark.parametrize(
    "tree", [GOOD, [], [GOOD, 3], [GOOD] * (texts.MAX_EXCEPTIONS + 1), "text", None], ids=str
)
def test_data_that_is_not_a_list_of_exceptions_is_a_decode_error(tree):
    with pytest.raises(DecodeError):
        decode(packb(tree))


def test_the_smallest_failure_can_be_decoded():
    assert decode(packb([GOOD | {"unknown": "field of a newer version"}])).rebuild().args != ()


@settings(max_examples=examples(100), deadline=None)
@given(st.text() | st.integers() | st.binary(), st.lists(st.text(), max_size=3))
def test_any_arguments_and_notes_are_rebuilt(arg, notes):
    exc = LookupError(arg)
    for note in notes:
        exc.add_note(note)
    rebuilt = round_trip(exc)
    assert rebuilt.args == (arg,)
    assert getattr(rebuilt, "__notes__", []) == notes


def test_an_encoded_failure_is_a_plain_tree():
    [tree] = loads(encode(ValueError("bad")))
    assert tree["type"] == ["builtins", "ValueError"]
    assert tree["message"] == "bad"
    assert loads(tree["args"]) == ("bad",)


def test_an_uncaught_exception_prints_where_the_task_failed(tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        textwrap.dedent("""
            from asyncq.failures import decode, encode

            def price(item):
                return {}[item]

            def task():
                try:
                    price("apple")
                except KeyError as error:
                    raise ValueError("no price") from error

            try:
                task()
            except ValueError as error:
                error.add_note("while pricing")
                data = encode(error)
            raise decode(data).rebuild()
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("  ")]
    direct = "The above exception was the direct cause of the following exception:"
    assert lines == [
        "asyncq.errors.RemoteTraceback: ",
        "Traceback (most recent call last):",
        "KeyError: 'apple'",
        direct,
        "KeyError: 'apple'",
        direct,
        "asyncq.errors.RemoteTraceback: ",
        "Traceback (most recent call last):",
        "ValueError: no price",
        "while pricing",
        direct,
        "Traceback (most recent call last):",
        "ValueError: no price",
        "while pricing",
    ]
    assert "return {}[item]" in done.stderr


def test_an_exception_is_encoded_once_however_often_it_is_linked():
    assert decode(encode(own_cause())).cause is None
    failure = decode(encode(ring()))
    assert failure.cause is not None
    assert failure.cause.context is None
    both = ValueError("both")
    both.__cause__ = both.__context__ = KeyError("k")
    failure = decode(encode(both))
    assert failure.cause is not None
    assert failure.context is failure.cause
    rebuilt = failure.rebuild().__cause__
    assert rebuilt.__cause__ is rebuilt.__context__


class Several(ExceptionGroup):
    def __new__(cls, errors):
        return super().__new__(cls, "several failed", errors)

    def derive(self, errors):
        return Several(errors)


def test_a_group_whose_constructor_has_other_parameters_keeps_its_class():
    group = decode(encode(Several([ValueError(1), Several([KeyError(2)])]))).rebuild()
    assert type(group) is type(group.exceptions[1]) is Several
    assert (group.message, repr(group.exceptions[0])) == ("several failed", "ValueError(1)")


# -- lone surrogates: they have no UTF-8 form, and are often the cause of the failure --

BROKEN = "a\ud800b"


class Refused(Exception):
    def __init__(self, text, *, key):
        super().__init__(text)
        self.key = key


def _refused_name():
    raise Refused(BROKEN, key={BROKEN: [BROKEN, (BROKEN, {BROKEN}, HTTPStatus.OK)]})


@pytest.mark.parametrize(
    "make",
    [
        BROKEN.encode,
        lambda: UnicodeTranslateError(BROKEN, 1, 2, BROKEN),
        lambda: ValueError(BROKEN),
        lambda: KeyError(BROKEN),
        lambda: OSError(2, BROKEN, BROKEN),
        Path("/nowhere/\udcff").stat,
        lambda: ImportError(BROKEN, name=BROKEN, path=BROKEN),
        lambda: SyntaxError(BROKEN, ("f", 1, 2, BROKEN)),
        lambda: getattr(1, BROKEN),
        lambda: json.loads("[" + BROKEN),
        lambda: TypeAdapter(int).validate_python(BROKEN),
        _refused_name,
    ],
)
def test_an_exception_with_lone_surrogates_is_rebuilt(make):
    try:
        exc = make()
    except Exception as error:
        exc = error
    failure = decode(encode(exc))
    made = failure.rebuild()
    assert type(made) is type(exc)
    assert (made.args, str(made)) == (exc.args, str(exc))
    assert getattr(made, "key", None) == getattr(exc, "key", None)
    failure.formatted().encode()


def test_lone_surrogates_in_messages_notes_and_names_are_escaped():
    group = ExceptionGroup(BROKEN, [ValueError(BROKEN)])
    group.add_note(BROKEN)
    cls = type("Elsewhere", (KeyError,), {"__module__": BROKEN})
    group.__cause__ = cls(BROKEN)
    failure = decode(encode(group))
    made = failure.rebuild()
    assert (made.message, made.__notes__) == ("a\\ud800b", ["a\\ud800b"])
    assert made.exceptions[0].args == (BROKEN,)
    cause = made.__cause__.__cause__
    assert isinstance(cause, KeyError)
    assert cause.args == (BROKEN,)
    failure.formatted().encode()
    one_line(ValueError(BROKEN)).encode()
