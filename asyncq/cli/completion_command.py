"""`asyncq completion`: prints what makes a shell complete commands and options. The shell asks `asyncq`
itself, by a variable of the environment.
"""

from __future__ import annotations

from typing import Annotated

import typer

from asyncq.cli import console
from asyncq.cli.exits import CliError, Code
from asyncq.cli.invocation import command
from asyncq.cli.root_command import COMPLETE_VARIABLE

_SHELLS = ("bash", "zsh", "fish", "powershell")


@command
def completion(
    ctx: typer.Context,  # noqa: ARG001  the frame of each command has it
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")],
) -> int:
    """Prints a script that makes a shell complete the commands and options of asyncq.

    \b
    Examples:
      asyncq completion bash >> ~/.bashrc
      asyncq completion fish > ~/.config/fish/completions/asyncq.fish
      asyncq completion powershell >> $PROFILE
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    if shell not in _SHELLS:
        raise CliError(f"there is no script for {shell!r}", f"write one of {', '.join(_SHELLS)}", Code.USAGE)
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # lazily

    console.data(get_completion_script(prog_name="asyncq", complete_var=COMPLETE_VARIABLE, shell=shell))
    return Code.OK


def complete() -> None:
    """Makes the next run of the command line answer a shell that completes a command."""
    from typer.completion import completion_init  # type: ignore[attr-defined]  # lazily

    completion_init()
