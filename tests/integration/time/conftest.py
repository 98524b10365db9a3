"""A log of the acts of bodies, in this process."""

from __future__ import annotations

import time
from typing import Any

import pytest


class Diary:
    """Notes, each with its time (seconds since the epoch)."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, Any]] = []

    def note(self, what: Any) -> None:
        self.notes.append((time.time(), what))

    @property
    def texts(self) -> list[Any]:
        return [what for _, what in self.notes]

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.notes]


@pytest.fixture
def diary() -> Diary:
    return Diary()
