"""The file that `asyncq bench --save` writes and `--compare` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq.cli.bench.figure import Figure
from asyncq.cli.exits import CliError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping

OTHERS = 0.05
"""If the shares of the machine that others used differ by more, the measurements are not compared."""
SCHEMA = 1
"""The number of the format. A file of another number is refused."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved measurement: the file's name, where it was made, its parameters, its figures."""

    name: str
    about: Mapping[str, Any]
    parameters: Mapping[str, Any]
    figures: list[Figure]

    def differences(self, about: Mapping[str, Any]) -> list[str]:
        """Returns in what else the measurements differ, so that nobody takes it for the code's work."""
        keys = ("server", "worker", "loop", "cores", "cpu", "python")
        return [
            f"{key}: {self.about.get(key)} then, {about.get(key)} now"
            for key in keys
            if self.about.get(key) != about.get(key)
        ]

    def was_as_busy(self, about: Mapping[str, Any]) -> bool:
        """Returns whether other programs used about as much of the machine, as far as that is known."""
        then, now = self.about.get("others"), about.get("others")
        return then is None or now is None or abs(then - now) <= OTHERS

    def insist_same(self, parameters: Mapping[str, Any]) -> None:
        """Raises:
        CliError: the saved measurement had other parameters.
        """
        for key, value in parameters.items():
            if (old := self.parameters.get(key)) != value:
                raise CliError(
                    f"{self.name} was measured with {key} {old}, and this is {key} {value}",
                    "give the options that it was saved with",
                    Code.USAGE,
                )


def write(name: str, text: str) -> None:
    """Writes a file.

    Raises:
        CliError: it cannot be written.
    """
    try:
        Path(name).write_text(text, "utf-8")
    except OSError as error:
        raise CliError(f"cannot write {name}: {error.strerror}") from error


def read(name: str, command: str) -> Saved:
    """Reads what a command saved.

    Raises:
        CliError: there is no such file, or it is of another command or schema.
    """
    try:
        tree = json.loads(Path(name).read_text("utf-8"))
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}", code=Code.USAGE) from error
    except ValueError:
        tree = None
    if not isinstance(tree, dict) or "schema" not in tree:
        raise CliError(
            f"{name} is no file that `asyncq bench {command} --save` wrote", _hint(command), Code.USAGE
        )
    if tree["schema"] != SCHEMA:
        raise CliError(
            f"{name} has schema {tree['schema']}, and this version reads {SCHEMA}", _hint(command), Code.USAGE
        )
    if tree.get("command") != command:
        raise CliError(
            f"{name} was saved by `asyncq bench {tree.get('command')}`, and this is `asyncq bench {command}`",
            _hint(command),
            Code.USAGE,
        )
    try:
        figures = [Figure.from_json(each) for each in tree["figures"]]
        return Saved(name, dict(tree["about"]), dict(tree["parameters"]), figures)
    except (KeyError, TypeError, ValueError) as error:
        raise CliError(f"{name} is damaged", _hint(command), Code.USAGE) from error


def _hint(command: str) -> str:
    return f"make one: asyncq bench {command} --save {command}.json"
