"""Reads what a process writes on stderr, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    from helpers.forked import Forked


def until_line(process: Forked | subprocess.Popen[str], text: str) -> str:
    """Returns what the process has written on stderr, up to a line that has the text. Blocks.

    Raises:
        AssertionError: the process has ended before that.
    """
    assert process.stderr is not None
    read: list[str] = []
    while not read or text not in read[-1]:
        line = process.stderr.readline()
        assert line, f"it ended with {process.wait(30)}: {read}"
        read.append(line)
    return "".join(read)
