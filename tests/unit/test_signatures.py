"""What `inspect.signature` and `typing.get_type_hints` return for the methods of a task."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pydoc
import typing
import warnings
import weakref
from collections.abc import AsyncIterator  # noqa: TC003  read at run time
from typing import Any

import pytest

from asyncq import AsyncQ, AsyncResult, Signature, StreamResult

METHODS = ("delay", "delay_sync", "call", "call_sync", "s", "si")

app = AsyncQ("memory://")


async def function(x: int, y: str = "a", *, loud: bool = False) -> list[str]:
    """Repeats a text."""
    return [y.upper() if loud else y] * x


add = app.task(function)


RESULTS = {
    "delay": AsyncResult[list[str]],
    "delay_sync": AsyncResult[list[str]],
    "call": list[str],
    "call_sync": list[str],
    "s": Signature[list[str]],
    "si": Signature[list[str]],
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_parameters_of_the_function_and_its_own_result_type(name: str) -> None:
    own = inspect.signature(function).replace(return_annotation=RESULTS[name])
    hints = {**typing.get_type_hints(function), "return": RESULTS[name]}
    for task in (add, add.options(queue="q")):
        for _ in range(3):  # the first access and later ones must give the same
            assert inspect.signature(getattr(task, name)) == own
            assert typing.get_type_hints(getattr(task, name)) == hints


def test_the_signature_of_a_task_is_the_signature_of_its_function() -> None:
    assert inspect.signature(add) == inspect.signature(function)


def results(task: Any) -> list[Any]:
    return [inspect.signature(getattr(task, name)).return_annotation for name in ("delay", "call", "s")]


def test_the_result_types_of_other_kinds_of_tasks() -> None:
    async def untyped(x): ...  # type: ignore[no-untyped-def]

    async def counts(n: int) -> AsyncIterator[int]:
        yield n

    def nothing() -> None: ...

    def later() -> Later: ...  # type: ignore[name-defined]  # noqa: F821

    assert results(app.task(untyped)) == [AsyncResult[Any], Any, Signature[Any]]
    assert results(app.task(counts)) == [
        StreamResult[int],
        type(None),
        Signature[None, StreamResult[int]],
    ]
    assert results(app.task(nothing)) == [AsyncResult[None], type(None), Signature[None]]
    assert results(app.task(later)) == [AsyncResult[Any], Any, Signature[Any]]
    assert results(app.task_named("only known by name")) == [AsyncResult[Any], Any, Signature[Any]]


def test_wrappers_partials_and_methods_show_the_parameters_that_a_call_takes() -> None:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    class Shop:
        def buy(self, n: int) -> list[str]: ...

    assert list(inspect.signature(app.task(name="w")(wrapper).delay).parameters) == ["x", "y", "loud"]
    assert list(inspect.signature(app.task(Shop().buy).delay).parameters) == ["n"]
    partial = app.task(name="p")(functools.partial(function, 1))
    assert list(inspect.signature(partial.delay).parameters) == ["y", "loud"]
    for task in (app.tasks["w"], app.tasks["p"]):
        assert inspect.signature(task.delay).return_annotation == AsyncResult[list[str]]


@pytest.mark.parametrize("on_a_loop", [False, True])
def test_a_forgotten_await_warns_once_and_names_what_was_called(on_a_loop: bool) -> None:
    async def forgets() -> None:
        add.delay(1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_a_loop:
            asyncio.run(forgets())
        else:
            add.delay(1)
        gc.collect()
    assert [str(warning.message) for warning in caught] == ["coroutine 'Task.delay' was never awaited"]


@pytest.mark.parametrize("name", METHODS)
def test_help_on_a_method_is_its_docstring(name: str) -> None:
    first_line = (inspect.getdoc(getattr(type(add), name)) or "").partition("\n")[0]

    assert first_line
    assert inspect.getdoc(getattr(add, name)) == inspect.getdoc(getattr(type(add), name))
    assert first_line in pydoc.render_doc(getattr(add, name))


def test_a_method_of_a_copy_belongs_to_the_copy() -> None:
    for _ in range(3):
        assert add.s(1).task is add
    other = add.options(queue="other")

    for _ in range(3):
        assert other.s(1).task is other
        assert copy.copy(other).s(1).task.builder.options.queue == "other"
        assert copy.copy(other).s(1).task is not other
        assert other.options(priority=1).s(1).task.builder.options.priority == 1
    assert add.s(1).task is add


def test_a_task_of_one_call_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        once = add.options(queue="q")
        assert once.s(1).args == (1,)
        freed = weakref.ref(once)
        del once
        assert freed() is None
    finally:
        gc.enable()
