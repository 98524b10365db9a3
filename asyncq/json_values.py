"""Values as JSON: what the command line prints, and what a web site answers. Any thread."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from enum import Enum
from typing import Any


def plain(value: Any) -> Any:  # noqa: PLR0911  a table of types reads best as one
    """Returns the JSON value that is nearest to a value.

    Bytes become base64, times ISO 8601, a timedelta seconds, sets lists, keys strings; NaN and infinities
    become null.

    >>> plain({1: b"a", "day": date(2026, 1, 2)})
    {'1': 'YQ==', 'day': '2026-01-02'}
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    return _plain_record(value)


def _plain_record(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)  # a pydantic model; importing pydantic to ask would cost 100 ms
    return str(value) if dump is None else plain(dump())
