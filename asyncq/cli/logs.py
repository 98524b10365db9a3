"""Logging of the command line: the logger `asyncq`, on stderr, one line a record."""

from __future__ import annotations

import logging
import sys

from asyncq.cli.console import colored, escaped

_COLORS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}
_EMBEDDED_NOTICE = "no ASYNCQ_URL, using the embedded"


class Line(logging.Formatter):
    """`12:30:01 INFO    text`.

    Line breaks become spaces and other control characters are written out, so that no record can pose as
    another.
    """

    def __init__(self) -> None:
        super().__init__("%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; of a traceback, only its last line, unless debug messages are shown."""
        text = record.getMessage()
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            text += "\n" + (
                trace
                if logging.getLogger("asyncq").isEnabledFor(logging.DEBUG)
                else trace.rpartition("\n")[2]
            )
        shown = escaped(" ".join(part.strip() for part in text.splitlines()).removeprefix("asyncq: "))
        level = f"{record.levelname:<7}"
        if record.levelno in _COLORS:
            level = colored(level, _COLORS[record.levelno], sys.stderr)
        return f"{self.formatTime(record, self.datefmt)} {level} {shown}"


def configure(level: int, *, banner: bool = False) -> None:
    """Sends the logger `asyncq` to stderr, from this level on.

    Args:
        level: of `logging`.
        banner: a banner is printed which names the server, so that the notice of the embedded server would
            say it again.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Line())
    if banner:
        handler.addFilter(lambda record: not record.getMessage().startswith(_EMBEDDED_NOTICE))
    logger = logging.getLogger("asyncq")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
