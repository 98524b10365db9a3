"""Figures that a test measures."""

from __future__ import annotations

import sys


def report(text: str) -> None:
    """A measured figure, shown by `pytest -s`."""
    sys.stdout.write(f"{text}\n")
