"""Origins: where the function of a task was defined, and whether a new function may take the name of a task.

`AsyncQ.task` asks this at each registration, on the thread that runs the module. A task's name belongs to one
function. But a reloaded module, and a notebook cell that is run again, define the same function anew, and the
new one must replace the old one. Python compiles the code at module level anew for each run. So two functions
come from one run exactly if the code at module level is the same object.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncq.system.main_module import task_module
from asyncq.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Self

Location = tuple[str, int]
"""A file and a line."""

_OWN: Final = frozenset({"asyncq.app", __name__})
_MAX_LOCATIONS: Final = 8


class _Run(NamedTuple):
    """One run of a module, or of one cell of a notebook.

    Attributes:
        code: the code object that runs at module level.
        name: the module's name.
        file: the module's file; None for a notebook.
    """

    code: CodeType
    name: str
    file: str | None

    @property
    def is_whole(self) -> bool:
        """Whether the whole module runs. Then all that an earlier run has defined is replaced."""
        return self.file is not None and self.file == self.code.co_filename

    def repeats(self, other: _Run) -> bool:
        """Returns whether this is another run of the same module."""
        return self.code is not other.code and (self.name, self.file) == (other.name, other.file)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a task was registered.

    Attributes:
        function: the task's function.
        locations: the function's own location, then the locations of the calls that led to the registration,
            innermost first.
        run: the run in which the registration happened; None if no module is being run on this thread.
    """

    function: Callable[..., Any]
    locations: tuple[Location, ...]
    run: _Run | None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Self:
        """Makes the origin of a function that the caller of the app registers now."""
        locations = _own_location(function)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__")
            if module not in _OWN:
                if len(locations) < _MAX_LOCATIONS:
                    locations.append((frame.f_code.co_filename, frame.f_lineno))
                # Code at module level: unlike a function's it is not optimized, and unlike a class body's its
                # locals are its globals.
                if not frame.f_code.co_flags & inspect.CO_OPTIMIZED and frame.f_locals is frame.f_globals:
                    run = _Run(frame.f_code, str(module), frame.f_globals.get("__file__"))
                    return cls(function, tuple(locations), run)
            frame = frame.f_back
        return cls(function, tuple(locations), None)

    def may_replace(self, other: Origin) -> bool:
        """Returns whether this function may take the name of the other one: both are the same, or a later run
        of the same module has defined the other one again as this one.
        """
        if _is_same(self.function, other.function, set()):
            return True
        if self.run is None or other.run is None or not self.run.repeats(other.run):
            return False
        return self.run.is_whole or _redefines(self.function, other.function, set())

    def conflict(self, name: str, other: Origin) -> ValueError:
        """Makes the error for a name that belongs to the other function."""
        here, there = _apart(self.locations, other.locations)
        locations = f"both made at {here}" if here == there else f"one at {there}, one at {here}"
        hint = ""
        if _code(inspect.unwrap(self.function)) is _code(inspect.unwrap(other.function)):
            hint = (
                ". If a function makes both, it must choose their names; if a decorator makes both, use "
                "functools.wraps in it, which keeps the names of the decorated functions"
            )
        return ValueError(
            f"a task named {name!r} is registered already, from another function ({locations}), and workers "
            f"run one of them only: give each a name of its own, @app.task(name=...){hint}"
        )


def local_of(function: Callable[..., Any]) -> Callable[[str], Any]:
    """Returns a function that looks up a local name in the code that registers a task now, and in the
    functions and classes around that code. It raises `LookupError` for other names.
    """

    def local(name: str) -> Any:
        names = getattr(inspect.unwrap(function), "__globals__", None)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_globals is names:
                if frame.f_locals is frame.f_globals:
                    break
                if name in frame.f_locals:
                    return frame.f_locals[name]
            frame = frame.f_back
        raise LookupError(name)

    return local


def _own_location(function: Callable[..., Any]) -> list[Location]:
    code = _code(inspect.unwrap(function))
    return [] if code is None else [(code.co_filename, code.co_firstlineno)]


def _code(function: Any) -> CodeType | None:
    code: CodeType | None = getattr(function, "__code__", None)
    return code


def _apart(here: tuple[Location, ...], there: tuple[Location, ...]) -> tuple[str, str]:
    """Returns the first pair of locations in which two origins differ. Functions that one factory has made
    differ in the location of the factory's caller.
    """
    pairs = list(zip(here, there, strict=False))
    mine, others = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0] if pairs else (None, None))
    return _shown(mine), _shown(others)


def _shown(location: Location | None) -> str:
    return "an unknown location" if location is None else f"{location[0]}:{location[1]}"


def _redefines(new: Any, old: Any, seen: set[tuple[int, int]]) -> bool:
    """Returns whether a function is a later definition of the other one, from a notebook cell that ran again.

    Two functions with the same code differ in what they close over, so that is compared in the same way.
    """
    if _is_same(new, old, set()) or (id(new), id(old)) in seen:
        return True
    seen.add((id(new), id(old)))
    if not isinstance(new, types.FunctionType) or not isinstance(old, types.FunctionType):
        return False
    if new.__code__ is not old.__code__:
        return (new.__module__, new.__qualname__) == (old.__module__, old.__qualname__)
    return _all_pairs(_redefines, new, old, seen)


def _is_same(one: Any, other: Any, seen: set[tuple[int, int]]) -> bool:
    """Returns whether two values are equal. Functions are, if code, defaults and closed-over values are."""
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    if not isinstance(one, types.FunctionType | types.MethodType | functools.partial | Task):
        try:
            return bool(one == other)
        except Exception:  # noqa: BLE001  the == of a foreign class may raise anything; arrays do
            return False
    seen.add((id(one), id(other)))  # a function may close over itself
    return _all_pairs(_is_same, one, other, seen)


def _all_pairs(
    holds: Callable[[Any, Any, set[tuple[int, int]]], bool], one: Any, other: Any, seen: set[tuple[int, int]]
) -> bool:
    mine, others = _parts(one), _parts(other)
    return len(mine) == len(others) and all(
        holds(part, other_part, seen) for part, other_part in zip(mine, others, strict=True)
    )


def _parts(function: Any) -> list[Any]:
    """Returns the values in which two equal functions agree."""
    if isinstance(function, Task):  # tasks that one factory makes may call each other
        return [function.app, function.name, function.function]
    if isinstance(function, types.MethodType):
        return [function.__func__, function.__self__]
    if isinstance(function, functools.partial):
        return [function.func, *function.args, *sorted(function.keywords), *_in_order(function.keywords)]
    return [
        task_module(function.__module__ or ""),
        function.__code__,
        *(function.__defaults__ or ()),
        *_in_order(function.__kwdefaults__ or {}),
        *map(_content, function.__closure__ or ()),
    ]


def _in_order(named: dict[str, Any]) -> list[Any]:
    return [named[name] for name in sorted(named)]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is still empty
        return None
