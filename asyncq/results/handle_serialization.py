"""Handles as data: a handle with all that it came after and all its members, as rows of ids.

This is what a pickled handle and a saved group hold. A workflow may be a line of thousands of steps, so no
function here recurses, and the rows are flat: they are not nested as deep as the line is long. All of it may
run on any thread; nothing talks to the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HANDLE = ""
GROUP = "g"
STREAM = "s"

Row = tuple[str, int | None, list[int] | None, str]
"""An id; the number of the row of what it came after; if it is a group, the numbers of the rows of its
members; and the kind of handle: `GROUP`, `STREAM` for that of a generator task, or `HANDLE` for any other.
"""


def of_handle(handle: Any) -> list[Row]:
    """Returns the rows of a handle. Each row stands after those that it names; that of the handle is the
    last.
    """
    return _rows(handle, _parts_of_handle)


def of_tuple(data: Any) -> list[Row]:
    """Returns the rows of what `as_tuple` gave, also after a way through JSON.

    Raises:
        ValueError: it is no such tuple.
    """
    return _rows(data, _parts_of_tuple)


def as_tuple(handle: Any) -> Any:
    """Returns the ids as Celery writes them: `((id, parent's tuple or None), members' tuples or None)`."""
    written: list[Any] = []
    for id_, above, inside, _ in of_handle(handle):
        parent = None if above is None else written[above]
        written.append(
            ((id_, parent), None if inside is None else [written[row_number] for row_number in inside])
        )
    return written[-1]


_classes: dict[str, Callable[..., Any]] = {}
_kinds: dict[type[Any], str] = {}


def register(kind: str, made: type[Any]) -> None:
    """Registers the class that a kind of row becomes; handles of that class, and of those that derive from
    it, become rows of that kind. Each class does this when its module is imported; `import asyncq` imports
    all.
    """
    _classes[kind] = made
    _kinds[made] = kind


def _kind_of(handle: Any) -> str:
    return next(_kinds[kind] for kind in type(handle).__mro__ if kind in _kinds)


def from_rows(rows: Sequence[Row], app: Any = None) -> Any:
    """Returns the handle or group that the rows describe. Pickles name this function: do not move or rename
    it.
    """
    made: list[Any] = []
    for id_, above, inside, kind in rows:
        parent = None if above is None else made[above]
        if kind == GROUP:
            one: Any = _classes[kind](id_, [made[row_number] for row_number in inside or ()], parent, app)
        else:
            one = _classes[kind if kind in _classes else HANDLE](id_, app)
            one.parent = parent
        made.append(one)
    return made[-1]


Parts = tuple[str, Any, Any, str]
"""An id, what it came after, its members, and its kind."""


def _rows(root: Any, parts: Callable[[Any], Parts]) -> list[Row]:
    rows: list[Row] = []
    row_numbers: dict[int, int] = {}  # by identity, so that what many came after is described once
    visited: set[int] = set()
    todo = [root]
    while todo:
        one = todo[-1]
        id_, parent, members, kind = parts(one)
        named = (*(members or ()), *(() if parent is None else (parent,)))
        missing = [other for other in named if id(other) not in row_numbers]
        if missing:
            visited.add(id(one))
            if any(id(other) in visited for other in missing):
                raise ValueError(f"{id_!r} comes after itself")
            todo += missing
            continue
        todo.pop()
        if id(one) not in row_numbers:
            row_numbers[id(one)] = len(rows)
            above = None if parent is None else row_numbers[id(parent)]
            rows.append(
                (id_, above, None if members is None else [row_numbers[id(one)] for one in members], kind)
            )
    return rows


def _parts_of_handle(handle: Any) -> Parts:
    kind = _kind_of(handle)
    return handle.id, handle.parent, handle.results if kind == GROUP else None, kind


def _parts_of_tuple(data: Any) -> Parts:
    try:
        (id_, parent), members = data
    except (TypeError, ValueError):
        raise ValueError(
            f"{brief(data)} is not a value of as_tuple(): ((id, parent), None), or with a list of members "
            "instead of None"
        ) from None
    if members is not None and not isinstance(members, (list, tuple)):
        raise ValueError(f"the members of group {id_!r} are not a list, but {brief(members)}")
    return id_, parent, members, "" if members is None else GROUP
