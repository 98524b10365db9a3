"""Writes the reference pages, and the table of exceptions, from the code: `python docs/generate.py`. A test
compares them with it.

What is said once in the code (a setting's meaning, an option's text, a command's help, an error's docstring)
is shown here and written nowhere else.
"""  # noqa: INP001  a script beside the pages, not a package

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asyncq import config
from asyncq.cli.command_tree import cli
from asyncq.cli.main import run
from asyncq.tasks.options import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parent / "reference"
EXCEPTIONS = FOLDER.parent / "exceptions.md"
TABLE_MARK = "<!-- table: written by docs/generate.py from tests/helpers/exception_table.py -->"
MARK = "<!-- Written by docs/generate.py from the code: change the code, then run it. -->"

SETTINGS = """\
Each setting is a keyword of `AsyncQ(...)`, a variable of the environment, and a key of `[tool.asyncq]` in
the nearest `pyproject.toml`. The keyword wins, then the environment, then `pyproject.toml`. Durations are
seconds, or text such as `500ms`, `30s`, `1h30m`; sizes are bytes, or text such as `64kb`. A name that does
not exist raises `ValueError`. A variable that begins with `ASYNCQ_` and is not a setting gives a warning,
once per process; with `strict` it raises `ValueError`. Variables that Kubernetes and Docker set for a
service called asyncq (`ASYNCQ_SERVICE_HOST`, `ASYNCQ_PORT_6379_TCP`, ...) are ignored."""

OPTIONS = """\
`@app.task(...)` takes the options of a task, and `task.options(...)` the options of its calls. A call uses
the task's value of each option that it does not set itself. `apply_async`, `app.send` and the `set` and
`options` of a workflow take the options of calls. Options never share a namespace with the arguments of the
function. Durations are seconds, or a `timedelta`.

The second column has the default of each option that a task takes. The third says which options a call takes,
and the fourth which calls of a chain get an option that is given to the chain."""

OTHER_VARIABLES = """\
| variable | meaning |
|---|---|
| `ASYNCQ_APP` | The app of the command line, if the command names none: `module:attribute`, as `--app`. |
| `ASYNCQ_EMBEDDED` | Whether the embedded server may be used. `auto`, the default: yes, with a warning that \
says so, but not in production, where each container would get an empty server of its own. `always`: yes, \
without a warning. `never`: no, a URL must be set. |
| `ASYNCQ_ENV` | `production` marks this environment as production. asyncq recognizes Kubernetes, Cloud Run, \
ECS and Heroku without it. |"""

PLACES = {"each": "each call", "first": "the first calls", "last": "the last call", "alone": "refused"}


VALUES = FOLDER.parent / "values.md"
TABLE_OF_VALUES = re.compile(
    r"(<!-- The table is written by [^\n]*\n).*?(<!-- end of the table -->)", re.DOTALL
)


def main() -> None:
    """Writes each page that differs from what the code says."""
    FOLDER.mkdir(exist_ok=True)
    page, text = VALUES.read_text(encoding="utf-8"), page_of_values()
    if page != text:
        VALUES.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {VALUES.name}\n")
    for file, text in pages().items():
        page = FOLDER / file
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {page.name}\n")
    text = exceptions()
    if text != EXCEPTIONS.read_text(encoding="utf-8"):
        EXCEPTIONS.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {EXCEPTIONS.name}\n")


def exceptions() -> str:
    """The page of exceptions, with its table as the tests have it."""
    sys.path.append(str(FOLDER.parents[1] / "tests"))  # their tools; the libraries are those of development
    table = importlib.import_module("helpers.exception_table").TABLE
    head = EXCEPTIONS.read_text(encoding="utf-8").partition(TABLE_MARK)[0]
    lines = [TABLE_MARK, "", "| exception | arrives as |", "|---|---|"]
    lines += [f"| {row.name} | {_arrival(row.caught_as)} |" for row in table]
    return head + "\n".join(lines) + "\n"


def _arrival(caught_as: str | None) -> str:
    return "itself" if caught_as is None else f"a `RemoteError`, caught as `{caught_as}`"


def pages() -> dict[str, str]:
    """Every page by its file name, as the code has it now."""
    return {
        "settings.md": settings(),
        "options.md": options(),
        "cli.md": command_line(),
        **api_pages().pages(),
    }


def api_pages() -> Any:
    """The module beside this one that writes the pages of the Python API."""
    sys.path.append(str(FOLDER.parent))
    return importlib.import_module("api_pages")


def page_of_values() -> str:
    """The page of values as it is, with the table of the kinds that the tests try."""
    sys.path.insert(0, str(FOLDER.parents[1] / "tests"))
    from helpers.value_kinds import KINDS

    lines = ["", "| value | what arrives | what is checked | what is refused |", "|---|---|---|---|"]
    lines += [f"| {kind.name} | {kind.arrives} | {kind.checked} | {kind.refused} |" for kind in KINDS]
    table = "\n".join(lines) + "\n\n"
    return TABLE_OF_VALUES.sub(lambda found: found[1] + table + found[2], VALUES.read_text(encoding="utf-8"))


def settings() -> str:
    """The page of settings."""
    lines = [
        "# Settings",
        MARK,
        "",
        SETTINGS,
        "",
        "| setting | variable | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | `{variable}` | `{default}` | {doc} |"
        for name, variable, default, doc in config.describe()
    ]
    lines += ["", "## Variables that are no settings", "", OTHER_VARIABLES]
    return "\n".join(lines) + "\n"


def options() -> str:
    """The page of the options of tasks and calls."""
    lines = [
        "# Options of tasks and calls",
        MARK,
        "",
        OPTIONS,
        "",
        "| option | `@app.task` | `task.options` | in a chain | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, option in TABLE.items():
        of_task = "-" if option.giver == "call" else f"`{option.default}`"
        of_call, position = ("-", "-") if option.giver == "task" else ("yes", PLACES[option.position])
        lines.append(f"| `{name}` | {of_task} | {of_call} | {position} | {_sentence(option.text)} |")
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def command_line() -> str:
    """The page of the command line: the help of each command, as `--help` prints it."""
    lines = ["# Command line", MARK, "", "`asyncq COMMAND --help` prints the same.", ""]
    for words in commands():
        lines += [f"## {' '.join(('asyncq', *words))}", "", "```text", help_of(words), "```", ""]
    return "\n".join(lines)


def commands() -> Iterator[tuple[str, ...]]:
    """The words of each command, a group before what is in it."""
    yield from _below(typer.main.get_command(cli), ())


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, member in getattr(command, "commands", {}).items():
        yield from _below(member, (*words, name))


def help_of(words: tuple[str, ...]) -> str:
    """What `asyncq WORDS --help` prints on a terminal of 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = run([*words, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if code:
        raise RuntimeError(f"asyncq {' '.join(words)} --help ended with exit code {code}")
    return printed.getvalue().rstrip()


if __name__ == "__main__":
    main()
