"""Asks before a command destroys something. Without a terminal nobody can answer, so it needs --yes."""

from __future__ import annotations

import asyncio
import sys

from asyncq.cli import console
from asyncq.cli.exits import CliError, Code


async def confirmed(question: str, what: str) -> bool:
    """Asks a question on the terminal, and returns whether the answer is yes.

    Args:
        question: for a person.
        what: what the command would do, for the error without a terminal.

    Raises:
        CliError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise CliError(what, "to do that, add --yes", Code.USAGE)
    # In a thread, so that Ctrl-C ends the command while it waits for the answer.
    return await asyncio.to_thread(console.agreed, question)
