"""A program as a user would start it, whose warnings and errors fail the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.forked import Forked

if TYPE_CHECKING:
    from pathlib import Path


class Program:
    """A Python process that warns of all that it leaves open. `end` fails if it has printed to stderr."""

    def __init__(self, arguments: list[str], folder: Path, environ: dict[str, str]) -> None:
        self.process = Forked(["-W", "always::ResourceWarning", *arguments], folder, environ)

    def first_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1]
        return line

    def end(self) -> str:
        """Waits for the end, and returns the output. Exit code must be 0, and stderr empty."""
        output, errors = self.process.communicate(timeout=60)
        assert (self.process.returncode, errors) == (0, "")
        return output

    def stop(self) -> tuple[int, str]:
        """Sends SIGTERM, and returns the exit code and the text on stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
