"""The global options of the command line, and the frame around every command.

`@command` runs a command's body on the main thread, maps its errors to exit codes, and ends the process even
if threads or tasks of the user still run.
"""

from __future__ import annotations

import functools
import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncq import logs
from asyncq.cli import console
from asyncq.cli.exits import Code, explained
from asyncq.cli.loop import all_ended, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.cli.exits import CliError

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
    no_color: bool = False
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
        import typer  # a worker process of a supervisor has no command line, and does without it

        try:
            code = int(body(*args, **kwargs))
        except (typer.Exit, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            code = Code.INTERRUPTED
        except BrokenPipeError:  # `asyncq ... | head`: the reader needs no more
            code = Code.OK
        except Exception as error:  # noqa: BLE001  the outermost place there is
            known = explained(error)
            _complain(known)
            code = known.code
        # The interpreter would wait for threads of the user's code, perhaps for ever.
        if not all_ended():
            leave(code)
        raise typer.Exit(code)

    return framed


def _complain(error: CliError) -> None:
    if logs.is_json():
        log.critical("%s", error, extra={"hint": error.hint} if error.hint else None)
    else:
        console.complain(str(error), error.hint)
