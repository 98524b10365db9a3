"""Prints figures that a test measures."""

from __future__ import annotations

import sys


def report(text: str) -> None:
    """Prints a measured figure. `pytest -s` shows it."""
    sys.stdout.write(f"{text}\n")
