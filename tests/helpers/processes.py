"""Asks the system whether a process has ended, or is stopped."""

from __future__ import annotations

from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Returns whether a process is stopped by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def is_gone(pid: int) -> bool:
    """Returns whether a process has ended. A zombie, for which its parent has not waited, counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True
