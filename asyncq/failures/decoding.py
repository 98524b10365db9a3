"""Decodes a `Failure` from bytes that anybody may have written. Checks every type, and runs no foreign code.
The first step on the caller's side; may be called on any thread.
"""

from __future__ import annotations

from typing import Any

from asyncq.errors import DecodeError
from asyncq.failures.failure import Failure
from asyncq.failures.fields import is_dunder
from asyncq.failures.texts import MAX_EXCEPTIONS, MAX_NAME
from asyncq.serializers import loads


def decode(data: bytes) -> Failure:
    """Decodes what `encode` has made.

    Raises:
        DecodeError: `data` is anything else.
    """
    nodes = loads(data)
    if type(nodes) is not list or not 0 < len(nodes) <= MAX_EXCEPTIONS:
        raise DecodeError("not a failure: a list of exceptions was expected")
    made: list[Failure] = []
    for node in nodes:
        made.append(_failure(node, made))
    return made[-1]


def _failure(node: Any, before: list[Failure]) -> Failure:
    """Makes a `Failure` of its node. `before` has those of the nodes before, to which it may link."""
    if type(node) is not dict:
        raise DecodeError("not a failure: a dict was expected")
    [name] = _names([node.get("type")])
    message, formatted, raised = (node.get(key, "") for key in ("message", "traceback", "raised"))
    if not type(message) is type(formatted) is type(raised) is str:
        raise DecodeError("not a failure: its message or its traceback is not text")
    notes = _texts(node, "notes")
    left_out = node.get("left_out")
    if type(left_out) is int and left_out:
        notes = (*notes, f"... {left_out} more members of this group were left out")
    return Failure(
        module=name[0],
        qualname=name[1],
        message=message,
        args=_arguments(node.get("args")),
        attributes=_attributes(node.get("attributes")),
        missing=_texts(node, "missing"),
        bases=_names(node.get("bases", [])),
        notes=notes,
        traceback=formatted,
        raised=raised,
        is_cut=node.get("cut") is True,
        cause=_link(node.get("cause"), before),
        context=_link(node.get("context"), before),
        suppress_context=node.get("suppress") is True,
        members=_members(node.get("members"), before),
    )


def _names(names: Any) -> tuple[tuple[str, str], ...]:
    if type(names) is not list or not all(_is_name(name) for name in names):
        raise DecodeError("not a failure: the name of a class is missing")
    return tuple((_printable(module), _printable(name)) for module, name in names)


def _is_name(name: Any) -> bool:
    return type(name) is list and len(name) == 2 and all(type(part) is str for part in name)


def _texts(node: dict[Any, Any], key: str) -> tuple[str, ...]:
    texts = node.get(key, [])
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise DecodeError(f"not a failure: {key!r} is not a list of texts")
    return tuple(texts)


def _link(index: Any, before: list[Failure]) -> Failure | None:
    """Returns the exception with that index. A link must lead to an earlier exception, so there are no
    cycles.
    """
    if index is None:
        return None
    if type(index) is not int or not 0 <= index < len(before):
        raise DecodeError("not a failure: it links to an exception that does not come before it")
    return before[index]


def _members(indexes: Any, before: list[Failure]) -> tuple[Failure, ...] | None:
    if indexes is None:
        return None
    if type(indexes) is not list:
        raise DecodeError("not a failure: its members are not a list")
    members = [_link(index, before) for index in indexes]
    return tuple(member for member in members if member is not None)


def _arguments(data: Any) -> tuple[Any, ...] | None:
    if data is None:
        return None
    args = loads(data) if type(data) is bytes else None
    if type(args) is not tuple:
        raise DecodeError("not a failure: its arguments are not a tuple")
    return args


def _attributes(data: Any) -> dict[str, Any]:
    if data is None:
        return {}
    found = loads(data) if type(data) is bytes else None
    if type(found) is not dict or not all(type(name) is str for name in found):
        raise DecodeError("not a failure: its attributes are not a dict of names")
    return {name: value for name, value in found.items() if not is_dunder(name)}


def _printable(name: str) -> str:
    """Escapes the control characters of a name (line ends, terminal codes, changes of direction)."""
    if name.isprintable():
        return name[:MAX_NAME]
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name[:MAX_NAME])
    return shown[:MAX_NAME]
