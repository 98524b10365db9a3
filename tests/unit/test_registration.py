"""Registration: which function may replace another one of the same name,
and which kind of task it becomes.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib
import inspect
import linecache
import sys
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from asyncq import AsyncQ, SerializationError
from asyncq.tasks.task import AsyncGeneratorTask, CoroutineTask, FunctionTask, GeneratorTask


@pytest.fixture
def app():
    return AsyncQ("memory://")


def logged(function):
    """A decorator with `functools.wraps`."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def nameless(function):
    """A decorator without `functools.wraps`: all functions get one name."""

    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


# -- two functions of one name --


def scaler(app, factor, default=0):
    @app.task
    def scale(x=default):
        return x * factor

    return scale


def test_two_functions_of_one_factory_are_refused_with_both_source_lines(app):
    double = scaler(app, 2)
    line = inspect.currentframe().f_lineno
    with pytest.raises(ValueError, match="registered already") as caught:
        scaler(app, 3)
    text = str(caught.value)
    assert f"{__file__}:{line - 1}, one at {__file__}:{line + 2}" in text
    assert "@app.task(name=...)" in text
    assert app.tasks[double.name] is double


@pytest.mark.parametrize("arguments", [(2, 1), ([1, 2],)], ids=["other defaults", "another closure"])
def test_a_function_with_other_defaults_or_another_closure_is_a_different_function(app, arguments):
    scaler(app, 2)
    with pytest.raises(ValueError, match="registered already"):
        scaler(app, *arguments)


@pytest.mark.parametrize("factor", [2, [1, 2], lambda x: x], ids=["number", "list", "function"])
def test_a_factory_may_make_the_same_function_again(app, factor):
    scaler(app, factor)
    again = scaler(app, factor)
    assert app.tasks[again.name] is again


def test_a_factory_of_tasks_that_call_each_other_may_make_them_again(app):
    def make():
        @app.task
        def inner(): ...

        @app.task
        def outer():
            return inner

        return outer

    make()
    again = make()
    assert app.tasks[again.name] is again


def test_a_closure_whose_comparison_fails_is_a_different_one(app):
    class Array:
        def __eq__(self, other):
            raise ValueError("the truth of an array is ambiguous")

        __hash__ = None

    scaler(app, Array())
    with pytest.raises(ValueError, match="registered already"):
        scaler(app, Array())


def test_functions_that_close_over_themselves_are_compared(app):
    def make(n):
        @app.task(name="recursive")
        def recursive():
            return recursive, n

    make(1)
    with pytest.raises(ValueError, match="registered already"):
        make(2)


@pytest.mark.parametrize("decorator", [logged, nameless])
def test_two_functions_with_the_same_decorator_cannot_share_a_name(app, decorator):
    def daily():
        pass

    def monthly():
        pass

    app.task(name="report")(decorator(daily))
    with pytest.raises(ValueError, match=r"test_registration\.py:\d+, one at .*test_registration\.py:\d+"):
        app.task(name="report")(decorator(monthly))


def test_the_error_about_a_decorator_without_wraps_names_functools_wraps(app):
    app.task(nameless(len))
    with pytest.raises(ValueError, match=r"functools\.wraps"):
        app.task(nameless(max))


def test_one_function_may_be_registered_again_with_other_options(app):
    def function():
        pass

    app.task(function)
    assert app.task(queue="other")(function).builder.options.queue == "other"


def test_callables_without_code_are_distinguished(app):
    app.task(name="n")(functools.partial(divmod, 1))
    app.task(name="n")(functools.partial(divmod, 1))
    with pytest.raises(ValueError, match="registered already"):
        app.task(name="n")(functools.partial(divmod, 2))
    with pytest.raises(ValueError, match="registered already"):
        app.task(name="n")(len)


# -- cells of a notebook --


class Notebook:
    """Runs cells as IPython does: in one namespace without a file. Each cell is compiled separately."""

    def __init__(self, app):
        self.names = {"__name__": "__main__", "app": app}
        self.count = 0

    def run(self, source):
        self.count += 1
        code = compile(source, f"<ipython-input-{self.count}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, self.names)
        assert not inspect.iscoroutine(done)
        return self.names


ADD = "@app.task\ndef add(x, y):\n    return x + y\n"


@pytest.mark.parametrize("edited", [ADD, ADD.replace("+", "*"), "\n" + ADD], ids=["same", "edited", "moved"])
def test_a_notebook_cell_that_is_run_again_replaces_its_task(app, edited):
    notebook = Notebook(app)
    notebook.run(ADD)
    names = notebook.run(edited)
    assert app.tasks[names["add"].name] is names["add"]
    assert names["add"](3, 4) == (12 if "*" in edited else 7)


@pytest.mark.parametrize("wraps", ["", "@functools.wraps(f)"])
def test_a_notebook_cell_that_is_run_again_replaces_its_decorated_task(app, wraps):
    notebook = Notebook(app)
    notebook.run(f"import functools\ndef logged(f):\n    {wraps}\n    def w(*a): return f(*a)\n    return w")
    cell = "@app.task(name='n')\n@logged\ndef add(x, y):\n    return x + y\n"
    notebook.run(cell)
    assert notebook.run(cell.replace("+", "*"))["add"](3, 4) == 12
    with pytest.raises(ValueError, match="registered already"):
        notebook.run(cell.replace("def add", "def other"))


def test_a_factory_in_a_notebook_cannot_make_two_tasks_with_one_name(app):
    notebook = Notebook(app)
    factory = "def make(n):\n    @app.task\n    def scale(x): return x * n\n    return scale"
    notebook.run(factory)
    notebook.run("double = make(2)")
    notebook.run("double = make(2)")
    with pytest.raises(ValueError, match="registered already"):
        notebook.run("triple = make(3)")
    notebook.run(factory)
    assert notebook.run("triple = make(3)")["triple"](2) == 6


# -- modules that are run again --


@pytest.fixture
def module(tmp_path, monkeypatch, app):
    """Writes a module, and imports or reloads it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "its_app", type(sys)("its_app"))
    sys.modules["its_app"].app = app

    def write(source):
        file = tmp_path / "reloaded_tasks.py"
        file.write_text("import functools\nfrom its_app import app\n" + source)
        linecache.clearcache()
        importlib.invalidate_caches()
        known = sys.modules.get("reloaded_tasks")
        return importlib.import_module("reloaded_tasks") if known is None else importlib.reload(known)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # both versions have the same time and size
    yield write
    sys.modules.pop("reloaded_tasks", None)


def test_a_reloaded_module_replaces_its_tasks(app, module):
    module(ADD)
    again = module(ADD.replace("+", "*"))
    assert app.tasks["reloaded_tasks.add"] is again.add
    assert again.add(3, 4) == 12


def test_a_reloaded_module_may_give_a_name_to_another_function(app, module):
    named = "@app.task(name='n')\n"
    module(f"{named}def add(): pass")
    again = module(f"{named}def plus(): return 2")
    assert app.tasks["n"] is again.plus


def test_a_reloaded_module_may_call_its_factories_again(app, module):
    factory = (
        "def make(n):\n    @app.task(name=f'scale{n}')\n    def scale(x): return x * n * FACTOR\n"
        "    return scale"
    )
    module(f"{factory}\ndouble = make(2)\nFACTOR = 1")
    assert module(f"{factory}\ndouble = make(2)\nFACTOR = 5").double(1) == 10


@pytest.mark.parametrize("again", [False, True], ids=["imported", "reloaded"])
def test_a_module_that_defines_a_name_twice_is_refused(module, again):
    if again:
        module(ADD)
    with pytest.raises(ValueError, match=r"reloaded_tasks\.py:3, one at .*reloaded_tasks\.py:6"):
        module(ADD + ADD.replace("+", "*"))


def test_a_module_that_is_imported_again_replaces_its_tasks(app, module):
    module(ADD)
    del sys.modules["reloaded_tasks"]
    again = module(ADD.replace("+", "*"))
    assert app.tasks["reloaded_tasks.add"] is again.add


def test_two_modules_cannot_share_the_name_of_a_task(app, module):
    @app.task(name="n")
    def mine():
        pass

    with pytest.raises(ValueError, match=r"test_registration\.py:\d+, one at .*reloaded_tasks\.py:3"):
        module("@app.task(name='n')\ndef theirs(): pass")


# -- kinds --


async def coroutine():
    return 1


async def agen():
    yield 1


def gen():
    yield 1


class Callable:
    def __init__(self, function):
        self.function = function

    def __call__(self):
        return self.function()


class AsyncCallable:
    async def __call__(self):
        return 1


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (coroutine, CoroutineTask),
        (functools.partial(coroutine), CoroutineTask),
        (staticmethod(coroutine), CoroutineTask),
        (AsyncCallable(), CoroutineTask),
        (functools.partial(AsyncCallable()), CoroutineTask),
        (AsyncCallable().__call__, CoroutineTask),
        (logged(coroutine), FunctionTask),
        (Callable(coroutine), FunctionTask),
        (agen, AsyncGeneratorTask),
        (functools.partial(agen), AsyncGeneratorTask),
        (staticmethod(agen), AsyncGeneratorTask),
        (logged(agen), AsyncGeneratorTask),
        (logged(logged(agen)), AsyncGeneratorTask),
        (gen, GeneratorTask),
        (functools.partial(gen), GeneratorTask),
        (staticmethod(gen), GeneratorTask),
        (len, FunctionTask),
        ([].append, FunctionTask),
    ],
)
def test_each_callable_makes_its_kind_of_task(app, function, kind):
    assert type(app.task(name="n")(function)) is kind


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in Python 3.12")
def test_a_function_that_is_marked_as_a_coroutine_function_makes_a_coroutine_task(app):
    marked = inspect.markcoroutinefunction(logged(coroutine))
    assert type(app.task(name="n")(marked)) is CoroutineTask


@pytest.mark.parametrize("function", [functools.partial(coroutine), AsyncCallable()])
def test_a_callable_without_a_name_must_be_given_one(app, function):
    with pytest.raises(TypeError, match=r"use app\.task\(name=\.\.\.\)"):
        app.task(function)


def test_a_partial_and_a_callable_object_have_the_annotations_of_their_function(app):
    class Adder:
        def __call__(self, pair: tuple[int, int]) -> tuple[int, int]:
            return pair

    for function in (Adder(), functools.partial(Adder()), functools.partial(Adder().__call__)):
        task = app.task(name=f"n{id(function)}")(function)
        assert task.arguments.loads(task.arguments.dumps(((1, 2),), {})) == ([(1, 2)], {})
        assert task.returns.loads(task.returns.dumps((1, 2))) == (1, 2)


# -- coroutines that plain functions return, without a worker --


@pytest.mark.parametrize(
    "function", [logged(coroutine), nameless(coroutine), Callable(coroutine), logged(logged(coroutine))]
)
def test_an_eager_call_awaits_what_a_plain_wrapper_returns(app, function):
    task = app.task(name="n")(function)
    assert task.apply().get_sync() == 1
    assert task.starmap([(), ()]).apply().get_sync() == [1, 1]


async def wraps_and_forgets():
    return coroutine()


def test_an_eager_call_awaits_what_a_coroutine_function_returns(app):
    task = app.task(wraps_and_forgets)
    assert task.apply().get_sync() == 1
    assert task.starmap([(), ()]).apply().get_sync() == [1, 1]


def test_an_eager_call_of_a_wrapped_coroutine_function_is_refused_on_a_loop(app):
    task = app.task(logged(coroutine))

    async def main():
        return task.apply()

    with pytest.raises(Exception, match="would block the event loop"):
        asyncio.run(main())


def test_an_eager_call_streams_what_a_plain_wrapper_of_an_async_generator_yields(app):
    result = app.task(logged(agen)).apply()

    async def items():
        return [item async for item in result.stream()]

    assert asyncio.run(items()) == [1]


@pytest.mark.parametrize("function", [nameless(agen), nameless(gen)])
def test_a_generator_that_a_plain_function_returns_is_refused_with_advice(app, function):
    with pytest.raises(TypeError, match="register the generator function itself"):
        app.task(function).apply(throw=True)


# -- unions whose members cannot be distinguished --

T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class Email:
    to: str


Other = dataclass(type("Email", (), {"__annotations__": {"to": str}}))
BOTH = r"its members .*\.Email and .*\.Email are both called Email on the wire"


@dataclass
class Letter:
    address: Email | Other


def annotated(where, hint):
    def send(x): ...

    send.__annotations__ = {where: hint}
    return send


@pytest.mark.parametrize(
    ("hint", "output"),
    [
        (Email | Other, BOTH),
        (list[dict[str, Email | Other | None]], BOTH),
        (Box[int] | Box[str], r"its members Box\[int\] and Box\[str\] are one class"),
    ],
    ids=str,
)
def test_a_union_whose_members_are_ambiguous_is_refused_at_registration(app, hint, output):
    for where, name in (("x", "the parameter 'x'"), ("return", "the result")):
        function = annotated(where, hint)
        with pytest.raises(TypeError, match=rf"^the annotation of {name} of .*\.send: .*{output}"):
            app.task(function)
    assert not app.tasks


@pytest.mark.parametrize(
    ("hint", "output"),
    [(list[Email] | list[Other], BOTH), (Letter, rf"the field address of .*\.Letter: .*{BOTH}")],
    ids=str,
)
def test_an_ambiguous_union_inside_a_class_is_found_when_the_annotations_are_resolved(app, hint, output):
    for where, name in (("x", "the parameter 'x'"), ("return", "the result")):
        task = app.task(name=where)(annotated(where, hint))
        with pytest.raises(TypeError, match=rf"^the annotation of {name} of .*\.send: .*{output}"):
            task.resolve()
        codec = task.arguments if where == "x" else task.returns
        with pytest.raises(SerializationError, match=output):
            codec.dumps((1,), {}) if where == "x" else codec.dumps(1)


def test_a_union_with_any_is_ambiguous_if_types_has_a_class_of_the_same_name():
    app = AsyncQ("memory://", types=[Other])
    task = app.task(annotated("x", Email | Any))
    with pytest.raises(
        TypeError, match=r"\.Email and .*\.Email, which types= of the app lists, are both called"
    ):
        task.resolve()
    app.task(name="one")(annotated("x", Email)).resolve()  # an instance of Other is not one of Email


def test_the_annotation_of_stream_items_is_resolved_too(app):
    def emails():
        yield 1

    emails.__annotations__ = {"return": list[Letter]}
    with pytest.raises(TypeError, match=rf"the result of .*emails: the field address of .*{BOTH}"):
        app.task(emails).resolve()
