"""The instructions of a function are counted exactly, and for whoever has written it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.instructions import Instructions, Origin

import asyncq

SOURCE = """
from dataclasses import dataclass

@dataclass
class Point:
    x: int

def loop(times):
    for _ in range(times):
        Point(1)

async def wait(awaitable):
    await awaitable
"""


def made_of(source: str, path: Path) -> dict:
    module: dict = {"__name__": "made_up"}
    exec(compile(source, path, "exec", dont_inherit=True), module)
    return module


@pytest.fixture
def ours():
    """Functions as asyncq might have them."""
    return made_of(SOURCE, Path(asyncq.__file__).with_name("made_up.py"))


def counted(call) -> Instructions:
    instructions = Instructions()
    for _ in range(2):
        instructions.clear()
        with instructions.counting():
            call()
    return instructions


def test_each_call_executes_the_same_number_of_instructions(ours):
    totals = [counted(lambda: ours["loop"](10)).total(Origin.ASYNCQ) for _ in range(20)]
    assert len(set(totals)) == 1


def test_each_turn_of_a_loop_adds_the_same_number(ours):
    ten, twenty, thirty = (counted(lambda n=n: ours["loop"](n)).total(Origin.ASYNCQ) for n in (10, 20, 30))
    assert twenty - ten == thirty - twenty > 50


def test_a_generated_constructor_is_its_callers_and_has_the_name_of_its_class(ours):
    functions = {function.name: function for function in counted(lambda: ours["loop"](3)).functions()}
    constructor = functions["Point.__init__ (generated)"]
    assert constructor.origin is Origin.ASYNCQ
    assert constructor.entered == 3
    assert functions["loop (asyncq/made_up.py:8)"].entered == 1


def test_functions_of_a_library_are_counted_apart(ours, tmp_path):
    library = made_of("def call(function):\n    function(2)\n", tmp_path / "library.py")
    instructions = counted(lambda: library["call"](ours["loop"]))
    assert instructions.total(Origin.LIBRARY) > 0
    assert instructions.total(Origin.ASYNCQ) == counted(lambda: ours["loop"](2)).total(Origin.ASYNCQ)


def test_a_function_of_the_tests_is_not_counted():
    assert counted(lambda: [n + 1 for n in range(10)]).total(Origin.LIBRARY) < 10


def test_a_coroutine_is_counted_each_time_that_it_is_resumed(ours):
    class Twice:
        def __await__(self):
            yield
            yield

    def drive() -> None:
        coroutine = ours["wait"](Twice())
        for _ in range(2):
            coroutine.send(None)
        with pytest.raises(StopIteration):
            coroutine.send(None)

    functions = {function.name: function for function in counted(drive).functions()}
    assert functions["wait (asyncq/made_up.py:12)"].entered == 3
