"""What Python's own tools are told of a task's methods."""

from __future__ import annotations

import copy
import gc
import inspect
import pydoc
import typing
import weakref

import pytest

from asyncq import AsyncQ

METHODS = ("delay", "delay_sync", "call", "call_sync", "s", "si")

app = AsyncQ("memory://")


async def function(x: int, y: str = "a", *, loud: bool = False) -> list[str]:
    """Repeats a text."""
    return [y.upper() if loud else y] * x


add = app.task(function)


@pytest.mark.parametrize("name", METHODS)
def test_method_has_the_signature_and_the_hints_of_the_function(name: str) -> None:
    for task in (add, add.options(queue="q")):
        for _ in range(3):  # the first access, and those after it
            assert inspect.signature(getattr(task, name)) == inspect.signature(function)
            assert typing.get_type_hints(getattr(task, name)) == typing.get_type_hints(function)


@pytest.mark.parametrize("name", METHODS)
def test_help_on_a_method_is_its_docstring(name: str) -> None:
    first_line = (inspect.getdoc(getattr(type(add), name)) or "").partition("\n")[0]

    assert first_line
    assert inspect.getdoc(getattr(add, name)) == inspect.getdoc(getattr(type(add), name))
    assert first_line in pydoc.render_doc(getattr(add, name))


def test_method_of_a_copy_belongs_to_the_copy() -> None:
    for _ in range(3):
        assert add.s(1).task is add
    other = add.options(queue="other")

    for _ in range(3):
        assert other.s(1).task is other
        assert copy.copy(other).s(1).task.builder.options.queue == "other"
        assert copy.copy(other).s(1).task is not other
        assert other.options(priority=1).s(1).task.builder.options.priority == 1
    assert add.s(1).task is add


def test_task_of_one_call_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        once = add.options(queue="q")
        assert once.s(1).args == (1,)
        freed = weakref.ref(once)
        del once
        assert freed() is None
    finally:
        gc.enable()
