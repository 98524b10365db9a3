"""Sends the `ValidationError` of pydantic and makes it again. It needs code of its own: its state is kept in
Rust, and only pydantic can make one. Nothing here imports pydantic: it is used where the program itself has
imported it.
"""

from __future__ import annotations

from typing import Any, Final

from asyncq.failures import lookup, plain
from asyncq.failures.texts import message_of, text_from

_MODULE: Final = "pydantic_core._pydantic_core"
_NAME: Final = [_MODULE, "ValidationError"]
_MORE: Final = "    For further information visit "
# Errors of these kinds have an exception in their context: the one that a validator of the user has raised.
_RAISED: Final[dict[str, type[Exception]]] = {"value_error": ValueError, "assertion_error": AssertionError}


def is_one(name: list[str]) -> bool:
    """Returns whether this is the name of pydantic's `ValidationError`."""
    return name == _NAME


def attributes_of(exc: Any) -> dict[str, Any]:
    """Returns what is needed to make a `ValidationError` again: its title, and its errors as `errors()` gives
    them. Leaves out an input that is no plain data.
    """
    errors = [_line(line) for line in exc.errors(include_url=False)]
    return {"title": exc.title, "line_errors": errors}


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """Returns one error of `errors()` as plain data."""
    kept: dict[str, Any] = {key: line[key] for key in ("type", "loc", "msg", "input") if key in line}
    if plain.packed(kept) is None:
        kept.pop("input", None)
    context = line.get("ctx")
    if context is not None:
        kept["ctx"] = {
            key: text_from(lambda: str(value)) if isinstance(value, Exception) else value  # noqa: B023  called here
            for key, value in context.items()
        }
        if plain.packed(kept["ctx"]) is None:
            del kept["ctx"]
    return kept


def rebuilt(cls: Any, attributes: dict[str, Any], message: str) -> Exception | None:
    """Makes the `ValidationError` again. Returns None if pydantic makes another message of what was sent.

    The links into the documentation are not compared: they name the version of pydantic.
    """
    title, lines = attributes.get("title"), attributes.get("line_errors")
    if type(title) is not str or type(lines) is not list:
        return None
    for source in ("python", "json"):
        for hides_input in (False, True):
            made = cls.from_exception_data(title, [_error(line) for line in lines], source, hides_input)
            if type(made) is cls and _without_links(message_of(made)) == _without_links(message):
                return made  # type: ignore[no-any-return]
    return None


def _error(line: dict[str, Any]) -> dict[str, Any]:
    """Returns one error in the form that pydantic takes."""
    kind, context = line["type"], dict(line.get("ctx", {}))
    if kind in _RAISED and type(context.get("error")) is str:
        context["error"] = _RAISED[kind](context["error"])
    error = {"type": kind, "loc": line["loc"], "input": line["input"]}
    if context:
        error["ctx"] = context
    if not _is_known(kind, context):
        custom: Any = lookup.find(_MODULE, "PydanticCustomError")
        error["type"] = custom(kind, line["msg"], context or None)
        error.pop("ctx", None)
    return error


def _is_known(kind: str, context: dict[str, Any]) -> bool:
    """Returns whether pydantic has errors of that kind. A validator may raise one of a kind of its own."""
    known: Any = lookup.find(_MODULE, "PydanticKnownError")
    try:
        known(kind, context or None)
    except Exception:  # noqa: BLE001  in Rust; KeyError in this version
        return False
    return True


def _without_links(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.startswith(_MORE))
