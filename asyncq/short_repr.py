"""Writes values for messages, short: a reader of an error or a log sees as much as is of use.

`repr` of a large argument takes as long as the argument is large. `repr` of a foreign class runs foreign
code, which may raise or fill the log. `brief` takes no longer than what it shows, and never raises. It runs
on any thread.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import types
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT: Final = 60
"""The most characters of one text."""
MAX_ITEMS: Final = 6
"""The most items of one container."""
MAX_DEPTH: Final = 3
"""The greatest depth of containers inside each other."""
_MASK: Final = "***"
_MAX_BITS: Final = 200  # of a whole number: the time to write it grows with its square

_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
}
# Their own repr is short.
_SHORT: Final = frozenset({type(None), bool, float, complex, type(Ellipsis), type(NotImplemented), range})
_SHORT_MODULES: Final = frozenset({"datetime", "uuid", "zoneinfo"})
_CODE: Final = (
    *(type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
    *(types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType),
)


def brief(value: object) -> str:
    """Writes a value as Python would, cuts what is long and masks what is secret. It never raises.

    Secret are pydantic's secrets, and the fields of models and dataclasses with `repr=False` or
    `exclude=True`.

    Example:
        >>> brief(["a" * 100, *range(100)])
        "['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...', 0, 1, 2, 3, 4, ...]"
    """
    try:
        return _brief(value, MAX_DEPTH)
    except Exception:  # noqa: BLE001  foreign classes may do anything, and a message must not fail for that
        return f"<{type(value).__name__}>"


def _brief(value: Any, depth: int) -> str:
    kind = type(value)
    if kind in _SHORT:
        return repr(value)
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= _MAX_BITS else f"<int of {bits} bits>"
    if kind is str or kind is bytes or kind is bytearray:
        return _text(value)
    if kind in _BRACKETS or kind is dict:
        return _container(value, kind, depth)
    return _foreign(value, kind, depth)


def _text(value: str | bytes | bytearray) -> str:
    if len(value) <= MAX_TEXT:
        return repr(value)
    shown = repr(value[:MAX_TEXT])
    end = 2 if isinstance(value, bytearray) else 1
    return f"{shown[:-end]}...{shown[-end:]}"


def _container(value: Any, kind: type, depth: int) -> str:
    opening, closing = _BRACKETS.get(kind, ("{", "}"))
    if not value:
        return repr(value)
    if depth == 0:
        return f"{opening}...{closing}"
    if kind is dict:
        items = (f"{_brief(key, depth - 1)}: {_brief(item, depth - 1)}" for key, item in value.items())
    else:
        items = (_brief(item, depth - 1) for item in value)
    shown = joined(items)
    return f"{opening}{shown}{',' if kind is tuple and len(value) == 1 else ''}{closing}"


def joined(items: Iterable[str]) -> str:
    """Joins the first few texts with commas, and says if there are more.

    Example:
        >>> joined("abcdefgh")
        'a, b, c, d, e, f, ...'
    """
    several = iter(items)
    shown = list(itertools.islice(several, MAX_ITEMS))
    if next(several, None) is not None:
        shown.append("...")
    return ", ".join(shown)


def _foreign(value: Any, kind: type, depth: int) -> str:
    if isinstance(value, _CODE) or kind.__module__ in _SHORT_MODULES:
        return repr(value)
    if kind.__module__.partition(".")[0] == "asyncq":  # our own classes keep within these bounds
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{kind.__qualname__}.{value.name}"
    if hasattr(kind, "get_secret_value"):  # pydantic's secrets
        return _MASK
    if isinstance(value, BaseException):
        parts = [_brief(arg, depth - 1) for arg in value.args[:MAX_ITEMS]] if depth else ["..."]
    elif (fields := _fields_of(kind)) is not None and depth:
        parts = [_field(value, *field, depth - 1) for field in fields]
    else:
        return f"<{kind.__module__}.{kind.__qualname__} object>"
    return f"{kind.__qualname__}({joined(parts)})"


def _field(value: Any, name: str, is_hidden: bool, depth: int) -> str:
    try:
        # Not by `getattr`, which may run code of the class.
        item = value.__dict__[name]
    except (AttributeError, KeyError):
        item = getattr(value, name, ...)  # slots, and the fields of a named tuple
    return f"{name}={_MASK if is_hidden else _brief(item, depth)}"


def _fields_of(kind: Any) -> list[tuple[str, bool]] | None:
    """Returns the fields of a dataclass, a model or a named tuple, and whether each must be hidden."""
    # pydantic may not be installed: its models and dataclasses are known by this attribute.
    infos = getattr(kind, "__pydantic_fields__", {})
    hidden = {name for name, info in infos.items() if info.exclude or not info.repr}
    if dataclasses.is_dataclass(kind):
        return [(one.name, not one.repr or one.name in hidden) for one in dataclasses.fields(kind)]
    if infos:
        return [(name, name in hidden) for name in infos]
    names = getattr(kind, "_fields", None)
    return [(name, False) for name in names] if issubclass(kind, tuple) and names else None
