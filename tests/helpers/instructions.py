"""Counts the bytecode instructions that functions execute. Their number depends neither on the machine nor on
what else it does, but it depends on the version of Python.
"""

from __future__ import annotations

import contextlib
import sys
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = Path(asyncq.__file__).parent
_TESTS = Path(__file__).parents[1]


class Origin(Enum):
    """Whose a function is."""

    ASYNCQ = auto()
    LIBRARY = auto()
    TESTS = auto()


class Function:
    """What was counted of one function.

    Attributes:
        origin: whose it is. A function that a library has generated, such as the constructor of a data class,
            is its caller's.
        name: with its file and line, and without the folders of this machine.
        executed: how many instructions were executed.
        entered: how often the function was called, or its coroutine resumed.
    """

    __slots__ = ("_code", "entered", "executed", "name", "origin")

    def __init__(self, frame: FrameType) -> None:
        # Kept, for as long as its identity stands for it.
        self._code = frame.f_code
        self.origin: Origin = _origin_of(frame)
        self.name: str = _name_of(frame)
        self.executed: int = 0
        self.entered: int = 0

    def __call__(self, _frame: FrameType, event: str, _argument: Any) -> Function:
        """Takes an event of a frame, as `sys.settrace` hands it over."""
        if event == "opcode":
            self.executed += 1
        return self


def _origin_of(frame: FrameType | None) -> Origin:
    while frame is not None and _is_generated(frame):
        frame = frame.f_back
    file = Path("" if frame is None else frame.f_code.co_filename)
    if file.is_relative_to(PACKAGE):
        return Origin.ASYNCQ
    return Origin.TESTS if file.is_relative_to(_TESTS) else Origin.LIBRARY


def _name_of(frame: FrameType) -> str:
    code = frame.f_code
    if _is_generated(frame):
        arguments = code.co_varnames[:1]
        first = frame.f_locals.get(arguments[0]) if arguments else None
        owner = first if isinstance(first, type) else type(first)
        return f"{owner.__qualname__}.{code.co_name} (generated)"
    path = Path(code.co_filename)
    short = path.relative_to(PACKAGE.parent) if path.is_relative_to(PACKAGE) else Path(*path.parts[-2:])
    return f"{code.co_qualname} ({short}:{code.co_firstlineno})"


def _is_generated(frame: FrameType) -> bool:
    return frame.f_code.co_filename == "<string>"


class Instructions:
    """The instructions of asyncq and of libraries that a thread executes while `counting` is open.

    Python 3.13 reports none of the first call of a function: count each function twice.
    """

    def __init__(self) -> None:
        # By the identity of the code: to hash a code object is slow.
        self._functions: dict[int, Function] = {}

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Counts what this thread calls in the block."""
        # Python 3.12 reports instructions only if some frame has asked for them before.
        sys._getframe().f_trace_opcodes = True
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def clear(self) -> None:
        """Counts from 0 again."""
        self._functions.clear()

    def functions(self) -> list[Function]:
        """Returns the functions that were called, and first those that executed most."""
        return sorted(self._functions.values(), key=lambda function: function.executed, reverse=True)

    def total(self, origin: Origin) -> int:
        """Returns how many instructions were executed of functions of one origin."""
        return sum(each.executed for each in self._functions.values() if each.origin is origin)

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Function | None:
        function = self._functions.get(id(frame.f_code))
        if function is None:
            function = self._functions[id(frame.f_code)] = Function(frame)
        if function.origin is Origin.TESTS:
            return None
        function.entered += 1
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return function
