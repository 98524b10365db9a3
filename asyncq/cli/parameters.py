"""Typer's parameters without pydantic, and the parsers of options that take a duration, a size or a rate.

Typer 0.29 sends every option through a pydantic adapter. That costs each command 90 ms and 10 MB, which an
idle worker would keep for its whole life. The commands use only a few types, so these are converted by hand.
A version of typer that works another way ignores this, and only the cost comes back; a test checks for that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from asyncq import config
from asyncq.tasks import options

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Converted:
    """Replaces typer's own converter of one parameter."""

    def __init__(self, annotation: Any, least: float | None) -> None:
        self._is_number = annotation is int
        self._least = least

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002  typer's signature
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        return self._number(value, param) if self._is_number else value

    def _number(self, value: Any, param: Any) -> int:
        try:
            number = int(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a whole number", param_hint=param.opts[-1]) from None
        if self._least is not None and number < self._least:
            raise typer.BadParameter(f"{number} is less than {self._least:g}", param_hint=param.opts[-1])
        return number


def without_pydantic(command: Any) -> None:
    """Makes a command and all commands below it convert their parameters without pydantic."""
    for param in command.params:
        _parameter_without_pydantic(param)
    make_help = command.get_help_option

    # A command makes its -h option only when it is parsed for the first time.
    def get_help_option(ctx: Any) -> Any:
        option = make_help(ctx)
        _parameter_without_pydantic(option)
        return option

    command.get_help_option = get_help_option
    for below in getattr(command, "commands", {}).values():
        without_pydantic(below)


def _parameter_without_pydantic(param: Any) -> None:
    descriptor = getattr(param, "type_descriptor", None)
    if descriptor is not None and descriptor.annotation in (str, bool, int, list[str]):
        param._runtime_param = _Converted(descriptor.annotation, getattr(param, "min", None))


def option(name: str) -> Any:
    """Makes the flag for an option of calls, as the table of options describes it."""
    return typer.Option(f"--{name}", metavar=name.upper(), help=options.TABLE[name].flag)


def duration(option: str, text: str) -> float:
    """Returns the duration that an option gives, in seconds, from `30`, `500ms`, `1h30m`.

    Raises:
        typer.BadParameter: it is not a duration.
    """
    return _parsed(config.seconds, option, text)


def size(option: str, text: str) -> int:
    """Returns the size that an option gives, in bytes, from `200`, `64kb`.

    Raises:
        typer.BadParameter: it is not a size.
    """
    return _parsed(config.size, option, text)


def _parsed(parse: Callable[[str], T], option: str, text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def rate(option: str, text: str) -> int:
    """Returns the rate that an option gives, per second, from `500` or `500/s`.

    Raises:
        typer.BadParameter: it is not a rate, or it is zero.
    """
    number = text.strip().removesuffix("/s")
    if not number.isdecimal() or not int(number):
        raise typer.BadParameter(f"{text!r} is not a rate: write 500 or 500/s", param_hint=option)
    return int(number)


def ids(values: list[str]) -> list[str]:
    """Returns the ids of a command line, each once. A `-` stands for the ids on stdin, one a line."""
    found: dict[str, None] = {}
    for word in values:
        lines = sys.stdin.read().split() if word == "-" else [word]
        found.update(dict.fromkeys(lines))
    return list(found)
