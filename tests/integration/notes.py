"""What bodies write down. No other folder has a module of this name: a process imports it by the path of the
whole run.
"""

from __future__ import annotations

from pathlib import Path


def note(log: str, text: str) -> None:
    """Appends a line in one write, so that lines of several processes never mix."""
    with Path(log).open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())
