"""Python's own prompt, in which `await` works: what `asyncq shell` opens without IPython."""

from __future__ import annotations

import ast
import asyncio
import code
import inspect
import sys
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any


class Prompt(code.InteractiveConsole):
    """Python's prompt, with `await` outside of functions.

    Args:
        names: what it has.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._runner = asyncio.Runner()

    def raw_input(self, prompt: str = "") -> str:
        """Reads a line. Nobody reads a prompt where nobody types."""
        return super().raw_input(prompt if sys.stdin.isatty() else "")

    def runcode(self, code: CodeType) -> None:
        """Runs what was typed, and waits for it if it awaits something."""
        try:
            made = FunctionType(code, self.locals)()
            if inspect.iscoroutine(made):
                self._runner.run(made)
        except SystemExit:
            raise
        except BaseException:  # noqa: BLE001  it is shown, and the prompt goes on
            self.showtraceback()

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        """Reads and runs lines until there are no more, or until `exit()`."""
        with self._runner, suppress(SystemExit):
            super().interact(banner, exitmsg)
