"""The global options of the command line, and the frame around every command.

`@command` runs a command's body on the main thread, maps its errors to exit codes, and ends the process even
if threads or tasks of the user still run. An unknown error is written to a crash file.
"""

from __future__ import annotations

import functools
import logging
import platform
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from asyncq import logs
from asyncq.broker.transport.url import mask
from asyncq.cli import console
from asyncq.cli.exits import Code, cli_error
from asyncq.cli.loop import all_ended, leave

if TYPE_CHECKING:
    from collections.abc import Callable

log: logging.Logger = logging.getLogger(__name__)

VALUED = ("--url", "--namespace", "--app")
_EMBEDDED_NOTICE = "no ASYNCQ_URL, using the embedded"
FLAGS = ("--version", "--json", "--no-color", "-q", "--quiet", "-v", "--verbose")


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options of this run of the command line."""

    url: str | None = field(default=None, repr=False)
    namespace: str | None = None
    app: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    arguments: tuple[str, ...] = field(default=(), repr=False)
    settings: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = {"url": self.url, "namespace": self.namespace}
        object.__setattr__(self, "settings", {name: value for name, value in given.items() if value})

    def begin(self, level: int = logging.WARNING, *, banner: bool = False) -> None:
        """Sets up logging from `level` on, or as -q and -v say.

        Args:
            level: a level of `logging`.
            banner: see `log`.
        """
        self.log(self.level(level), banner=banner)

    def level(self, default: int) -> int:
        """Returns the lowest level that is logged: the default, unless -q or -v is given."""
        return logging.ERROR if self.quiet else logging.DEBUG if self.verbose else default

    def log(self, level: int, format: str = "plain", *, banner: bool = False) -> logging.Handler:
        """Sets up logging and returns its handler.

        Args:
            level: the lowest level that is logged.
            format: a format of `asyncq.logs`.
            banner: whether the command prints a banner that names the server. Then the notice of the embedded
                server is left out of the log.
        """

        def color(text: str, number: str) -> str:
            return console.colored(text, number, sys.stderr)

        handler = logs.configure(level, format, color=color)
        if banner:
            handler.addFilter(lambda record: not record.getMessage().startswith(_EMBEDDED_NOTICE))
        return handler


def global_options_first(arguments: list[str]) -> list[str]:
    """Returns the command line with its global options in front. They may stand anywhere before a `--`.

    >>> global_options_first(["call", "shop:app", "add", "1", "--json"])
    ['--json', 'call', 'shop:app', 'add', '1']
    """
    front: list[str] = []
    rest: list[str] = []
    queue = iter(arguments)
    for word in queue:
        if word == "--":
            rest += [word, *queue]
        elif word in FLAGS or (word.partition("=")[0] in VALUED and "=" in word):
            front.append(word)
        elif word in VALUED:
            front += [word, *[value for value in [next(queue, None)] if value is not None]]
        else:
            rest.append(word)
    return front + rest


def command(body: Callable[..., int]) -> Callable[..., None]:
    """Makes a command of a function that returns its exit code. Errors are printed without traceback."""

    @functools.wraps(body)
    def framed(*args: Any, **kwargs: Any) -> None:
        try:
            code = int(body(*args, **kwargs))
        except (typer.Exit, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            code = Code.INTERRUPTED
        except BrokenPipeError:  # `asyncq ... | head`: the reader needs no more
            code = Code.OK
        except Exception as error:  # noqa: BLE001  the outermost place there is
            code = _reported(error)
        # The interpreter would wait for threads of the user's code, perhaps for ever.
        if not all_ended():
            leave(code)
        raise typer.Exit(code)

    return framed


def _reported(error: Exception) -> int:
    known = cli_error(error)
    if known is not None:
        _complain(str(known), known.hint)
        return known.code
    try:
        hint = f"please report it with {_crash_file(error)}"
    except OSError:  # the crash file cannot be written: the traceback goes to stderr
        hint = "please report it:\n" + "".join(traceback.format_exception(error))
    _complain(f"this is a bug in asyncq: {type(error).__name__}: {error}", hint)
    return Code.BUG


def _complain(message: str, hint: str) -> None:
    if logs.is_json():
        log.critical("%s", message, extra={"hint": hint} if hint else None)
    else:
        console.complain(message, hint)


def _crash_file(error: Exception) -> str:
    """Writes the traceback to a temporary file and returns the file's name. It is not printed, for it helps
    only a user who reports the bug.
    """
    with tempfile.NamedTemporaryFile("w", prefix="asyncq-crash-", suffix=".txt", delete=False) as file:
        arguments = " ".join(mask(word) for word in sys.argv[1:])
        file.write(f"asyncq {arguments}\npython {platform.python_version()} on {platform.platform()}\n\n")
        file.writelines(traceback.format_exception(error))
    return file.name
