"""Codecs of a task that hands its one argument on as it came, so that classes in it survive a task that does
not know them.
"""

from __future__ import annotations

from typing import Any

from asyncq.errors import DecodeError
from asyncq.serializers.codecs import ArgumentCodec, ValueCodec


class PackedArgument(ArgumentCodec):
    """Gives the function its one argument packed."""

    def __init__(self) -> None:
        super().__init__(None)

    def loads(self, data: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Gives `([packed argument], {})`.

        Raises:
            DecodeError: `data` is not the arguments of a call with one argument.
        """
        # An array of two: an array of one, which is the argument, and an empty map.
        if data[:2] != b"\x92\x91" or data[-1:] != b"\x80":
            raise DecodeError("not one argument")
        return [data[2:-1]], {}


class PackedValue(ValueCodec):
    """Takes a value that is packed already."""

    def dumps(self, value: Any, path: str = "result") -> bytes:  # noqa: ARG002  nothing in it can be wrong
        """Gives `value` back, which is bytes."""
        packed: bytes = value
        return packed
