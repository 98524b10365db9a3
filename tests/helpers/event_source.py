"""Reads server-sent events as a browser does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


@dataclass(frozen=True)
class ServerSentEvent:
    id: str
    kind: str
    data: Any


def parse(lines: Iterable[str]) -> list[ServerSentEvent]:
    """Returns the events of a whole stream."""
    reader = _Reader()
    return [found for line in lines if (found := reader.take(line)) is not None]


async def parse_each(lines: AsyncIterator[str]) -> AsyncIterator[ServerSentEvent]:
    """Gives the events of a stream as they come."""
    reader = _Reader()
    async for line in lines:
        if (found := reader.take(line)) is not None:
            yield found


class _Reader:
    def __init__(self) -> None:
        self._id = ""
        self._kind = "message"
        self._data: list[str] = []

    def take(self, line: str) -> ServerSentEvent | None:
        line = line.rstrip("\r\n")
        if not line:
            data, kind = self._data, self._kind
            self._data, self._kind = [], "message"
            return ServerSentEvent(self._id, kind, json.loads("\n".join(data))) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                self._id = value
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
        return None
