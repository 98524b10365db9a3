"""Redaction: a value as a log line or an error may show it: short, and without secrets."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from asyncq.serializers.models import is_model
from asyncq.serializers.places import name_of

_MASK: Final = "***"
_DEPTH: Final = 6
_TEXT: Final = 60  # characters of one text
_BRACKETS: Final[dict[Any, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}
_SHORT: Final = frozenset({NoneType, bool, float, date, timedelta, UUID})
_ZONES: Final = frozenset({NoneType, timezone, ZoneInfo})


def redacted(value: Any, limit: int = 200) -> str:
    """A value in at most `limit` characters, for people.

    Secrets of pydantic, and fields of models and dataclasses that are declared with `exclude=True` or
    `repr=False`, are shown as `***`. The `repr` of no class but the built-in ones is called: it may show
    anything, raise, or take for ever.

    Args:
        value: anything.
        limit: how many characters.

    Example:
        >>> redacted({"a": [1, "b"]})
        "{'a': [1, 'b']}"
    """
    drawing = _Drawing(limit)
    drawing.draw(value, 0)
    text = "".join(drawing.parts)
    return text if len(text) <= limit else text[: max(0, limit - 3)] + "..."


def _cut(text: Any, most: int) -> str:
    """A str or bytes, without its middle if it is long."""
    shown = repr(text[:most])
    if len(text) <= most and len(shown) <= most:
        return shown
    head = most // 2
    shown = repr(text[:head] + text[len(text) - head :])
    return f"{shown[:head]}...{shown[len(shown) - head :]}"


class _Drawing:
    """A text that is written until it is long enough, whatever the size of the value."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._left = limit

    def _write(self, text: str) -> None:
        self.parts.append(text)
        self._left -= len(text)

    def draw(self, value: Any, depth: int) -> None:
        """Writes a value that is `depth` containers deep."""
        kind = type(value)
        if kind in _BRACKETS:
            self._draw_items(value, kind, depth)
        elif isinstance(value, Enum):
            self._write(f"{kind.__qualname__}.{value._name_}")
        elif hasattr(kind, "get_secret_value"):
            self._write(_MASK)
        elif is_model(kind) or dataclasses.is_dataclass(kind):
            self._draw_fields(value, kind, depth)
        elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
            names: tuple[str, ...] = getattr(kind, "_fields", ())
            pairs = zip(names, tuple.__iter__(value), strict=False)
            self._draw_call(kind, [(name, item, False) for name, item in pairs], depth)
        else:
            self._write(self._plain(value, kind))

    def _plain(self, value: Any, kind: type) -> str:
        if kind is str or kind is bytes:
            return _cut(value, max(20, min(self._left, _TEXT)))
        if kind is int:
            return str(value) if value.bit_length() <= 256 else f"<int of {value.bit_length()} bits>"
        if kind in _SHORT or (kind in {datetime, time} and type(value.tzinfo) in _ZONES):
            return repr(value)
        if kind is Decimal:
            return repr(value) if len(value.as_tuple().digits) <= 100 else "<Decimal of many digits>"
        return f"<{name_of(kind)}>"

    def _draw_items(self, value: Any, kind: type, depth: int) -> None:
        opening, closing = _BRACKETS[kind]
        if kind is set and not value:
            opening, closing = "set(", ")"
        self._write(opening)
        for index, item in enumerate(value.items() if kind is dict else value):
            if index:
                self._write(", ")
            if self._left <= 0 or depth >= _DEPTH:
                self._write("...")
                break
            if kind is dict:
                self.draw(item[0], depth + 1)
                self._write(": ")
                self.draw(item[1], depth + 1)
            else:
                self.draw(item, depth + 1)
        if kind is tuple and len(value) == 1:
            self._write(",")
        self._write(closing)

    def _draw_fields(self, value: Any, kind: Any, depth: int) -> None:
        state = getattr(value, "__dict__", {})
        fields: list[tuple[str, Any, bool]] = []
        for name, is_hidden in _fields_of(kind):
            item = state.get(name, _MISSING)
            if item is _MISSING and name in getattr(kind, "__slots__", ()):
                item = getattr(value, name, _MISSING)
            if item is not _MISSING:
                fields.append((name, item, is_hidden))
        self._draw_call(kind, fields, depth)

    def _draw_call(self, kind: type, fields: list[tuple[str, Any, bool]], depth: int) -> None:
        self._write(f"{kind.__qualname__}(")
        for index, (name, item, is_hidden) in enumerate(fields):
            if index:
                self._write(", ")
            if self._left <= 0 or depth >= _DEPTH:
                self._write("...")
                break
            self._write(f"{name}=")
            if is_hidden:
                self._write(_MASK)
            else:
                self.draw(item, depth + 1)
        self._write(")")


_MISSING: Final = object()


def _fields_of(cls: Any) -> list[tuple[str, bool]]:
    """The fields of a class, each with whether it is hidden."""
    infos = cls.model_fields if is_model(cls) else getattr(cls, "__pydantic_fields__", {})
    if is_model(cls):
        return [(name, bool(info.exclude) or not info.repr) for name, info in infos.items()]
    return [
        (field.name, not field.repr or (field.name in infos and bool(infos[field.name].exclude)))
        for field in dataclasses.fields(cls)
    ]
