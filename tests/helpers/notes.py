"""A log file into which bodies write, in whatever process they run."""

from __future__ import annotations

from pathlib import Path


def note(log: str, text: str) -> None:
    """Appends a line to a log, in one write, so that lines of several processes never mix."""
    with Path(log).open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def lines(log: Path) -> list[str]:
    """Returns the lines that bodies have written into a log so far."""
    return log.read_text().splitlines() if log.exists() else []
