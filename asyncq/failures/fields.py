"""Reads and writes the attributes of an exception that are not in its `__dict__`: the fields that classes in
C keep, by a fixed table, and the slots of classes in Python. Both are member descriptors, which only move a
value; no property is asked, so no code of the exception's class runs.
"""

from __future__ import annotations

import builtins
from types import MemberDescriptorType
from typing import Any, Final

from asyncq.failures import raw

UNICODE: Final = ("encoding", "object", "start", "end", "reason")
"""The fields of Unicode errors, in the order in which their constructors take them."""
# All public fields but `AttributeError.obj`, which may be any object of the task.
_IN_C: Final[dict[type[BaseException], tuple[str, ...]]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    UnicodeDecodeError: UNICODE,
    UnicodeEncodeError: UNICODE,
    UnicodeTranslateError: UNICODE,
    ImportError: ("msg", "name", "path", "name_from"),  # name_from: since Python 3.12
    SyntaxError: ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"),
    AttributeError: ("name",),
    NameError: ("name",),
    StopIteration: ("value",),
    SystemExit: ("code",),
}
_CHECKED: Final = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)

Fields = dict[str, MemberDescriptorType]


def _built_in() -> dict[int, Fields]:
    """Returns the fields of each built-in exception, by the id of its class. Not by the class itself: the
    metaclass of a foreign class may refuse to hash it.
    """
    found: dict[int, Fields] = {}
    for cls in vars(builtins).values():
        if isinstance(cls, type) and issubclass(cls, BaseException):
            fields: Fields = {}
            for base, names in _IN_C.items():
                if issubclass(cls, base):
                    fields |= {name: vars(base)[name] for name in names if name in vars(base)}
            found[id(cls)] = fields
    return found


_BUILT_IN: Final = _built_in()


def fields_of(cls: type[BaseException]) -> Fields:
    """Returns the fields of a class by their names. If two base classes have a field of one name, the nearer
    one counts.
    """
    known = _BUILT_IN.get(id(cls))
    if known is not None:
        return known
    fields: Fields = {}
    for base in raw.mro_of(cls):
        known = _BUILT_IN.get(id(base))
        if known is not None:
            fields = {**known, **fields}
        elif "__slots__" in raw.names_in(base):
            slots = {name: slot for name, slot in raw.names_in(base).items() if _is_slot(name, slot)}
            fields = {**slots, **fields}
    return fields


def _is_slot(name: str, found: Any) -> bool:
    return type(found) is MemberDescriptorType and not is_dunder(name)


def is_dunder(name: str) -> bool:
    """Returns whether the name is one of Python's own. Such an attribute is never sent, and never set."""
    return name.startswith("__") and name.endswith("__")


def read(exc: BaseException, fields: Fields) -> dict[str, Any]:
    """Returns the values of the fields. Leaves out empty slots, and None in C: there it means "empty"."""
    found = {}
    for name, field in fields.items():
        try:
            value = field.__get__(exc)
        except (AttributeError, TypeError):  # an empty slot; a Unicode error that was never initialised
            continue
        if value is not None or id(field.__objclass__) not in _BUILT_IN:
            found[name] = value
    return found


def write(exc: BaseException, field: MemberDescriptorType, value: Any) -> None:
    """Sets a field.

    Raises:
        ValueError: a value that the C code would accept unchecked, and that would make it read outside of the
            text later.
        Exception: the field is read-only, or refuses values of this class.
    """
    if issubclass(type(exc), _CHECKED) and not _fits(exc, field.__name__, value):
        raise ValueError(f"a Unicode error cannot have {field.__name__}={value!r}")
    field.__set__(exc, value)


def clear(exc: BaseException, field: MemberDescriptorType) -> None:
    """Makes a field empty."""
    if id(field.__objclass__) in _BUILT_IN:
        write(exc, field, None)
    else:
        field.__delete__(exc)


def _fits(exc: BaseException, name: str, value: Any) -> bool:
    if name in {"start", "end"}:
        return type(value) is int and 0 <= value < 2**31
    return type(value) is (bytes if name == "object" and issubclass(type(exc), UnicodeDecodeError) else str)


def write_all_in_c(exc: BaseException, values: dict[str, Any]) -> None:
    """Sets the fields in C whose names are among the values.

    Raises:
        Exception: a field does not take its value.
    """
    for name, field in fields_of(type(exc)).items():
        if name in values and id(field.__objclass__) in _BUILT_IN:
            write(exc, field, values[name])


def are_sound(cls: type[BaseException], args: tuple[Any, ...]) -> bool:
    """Returns whether it is safe to call the class with these arguments; see `is_sound`."""
    return not issubclass(cls, _CHECKED) or all(type(arg) is not int or arg >= 0 for arg in args)


def is_sound(exc: BaseException) -> bool:
    """Returns whether it is safe to call `str()` of the exception. A Unicode error in C reads its text at
    `start` without a check: before Python 3.12.7, a negative `start` reads memory in front of the text.
    """
    if not issubclass(type(exc), _CHECKED):
        return True
    found = read(exc, fields_of(type(exc)))
    return all(_fits(exc, name, value) for name, value in found.items())
