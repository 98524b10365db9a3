"""Formats log records, and sets up logging in processes that belong to asyncq.

Modules log through `logging.getLogger(__name__)`. The library never sets up logging in another program: a
`Worker` there logs to the handlers of that program. Only the command line and the child processes of a worker
call `configure`.

A record is formatted on the thread that logs it. So the formatter reads the current job there.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from asyncq.context import current_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMATS = ("plain", "json")
LEVELS = ("debug", "info", "warning", "error", "critical")

MAX_TRACEBACK = 64 * 1024
"""The most characters of a traceback that are logged."""

_ROOT_NAME = "asyncq"
_COLORS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}
_JOB_FIELDS = ("job_id", "task", "queue", "worker", "attempt")
_more_fields: list[Callable[[], Mapping[str, Any]]] = []
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def escaped(text: str, *, keep: str = "") -> str:
    r"""Returns the text with control characters escaped, so that no text of a task can steer the terminal.

    >>> escaped("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return "".join(
        char if char in keep or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


class PlainFormatter(logging.Formatter):
    """Formats a record for a person: `2026-11-29 12:30:01 ERROR   text`, with the traceback below it.

    The time is local. The id of the job that logs stands before the text, unless the text names it. Records
    of other libraries also show the name of their logger. Further lines are indented and control characters
    are escaped, so that no text can look like another record.

    Args:
        color: puts a text into a colour, given as an SGR number; None for no colours.
    """

    def __init__(self, color: Callable[[str, str], str] | None = None) -> None:
        super().__init__("%(message)s", "%Y-%m-%d %H:%M:%S")
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        """Formats the record."""
        first, *rest = super().format(record).removeprefix("asyncq: ").splitlines() or [""]
        if not _is_ours(record.name):
            first = f"{record.name}: {first}"
        job_id = _job_fields(record).get("job_id")
        if job_id is not None and str(job_id) not in first:
            first = f"[{job_id}] {first}"
        level = f"{record.levelname:<7}"
        if self._color is not None and record.levelno in _COLORS:
            level = self._color(level, _COLORS[record.levelno])
        head = f"{self.formatTime(record, self.datefmt)} {level} "
        return "\n    ".join([head + escaped(first, keep="\t"), *(escaped(line, keep="\t") for line in rest)])

    def formatException(self, ei: Any) -> str:
        """Formats a traceback, see `cut`."""
        return cut(super().formatException(ei))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line.

    Its keys are `time` (ISO 8601, UTC), `level`, `logger` and `message`; `job_id`, `task`, `queue`, `worker`
    and `attempt` if the record is about a job; `duration` in seconds at the end of an attempt; `exception`
    with the traceback; all that was given as `extra=`; and what the functions of `add_fields` return.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Formats the record."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_job_fields(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_text or cut(self.formatException(record.exc_info))
        if record.stack_info:
            fields["stack"] = record.stack_info
        for name, value in vars(record).items():
            # A field of the caller's cannot replace a field of the record.
            if name not in _STANDARD_FIELDS and value is not None and (name not in _JOB_FIELDS or value):
                fields.setdefault(name, value)
        for more in _more_fields:
            for name, value in more().items():
                fields.setdefault(name, value)
        return json.dumps(fields, ensure_ascii=False, default=str)


def add_fields(fields: Callable[[], Mapping[str, Any]]) -> None:
    """Adds fields to each record that `JsonFormatter` formats in this process from now on. A second call with
    the same function has no effect.

    Args:
        fields: returns them. It is called for each record, on the thread that logs. A field of the record
            itself is never replaced.

    Example:
        ```python
        logs.add_fields(lambda: {"release": "2026-11"})
        ```
    """
    if fields not in _more_fields:
        _more_fields.append(fields)


def cut(text: str) -> str:
    """Cuts the middle out of a long text. The message of an exception may hold a whole document."""
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


def _is_ours(name: str) -> bool:
    return name == _ROOT_NAME or name.startswith(_ROOT_NAME + ".")


def _job_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Returns the fields of the job that a record is about: that of `extra=`, or else the job that runs here.

    An empty field means that the value is not known, and is left out.
    """
    given = vars(record)
    if "job_id" in given:
        return {name: given[name] for name in _JOB_FIELDS if given.get(name)}
    job = current_job.get()
    if job is None:
        return {}
    return {
        "job_id": job.id,
        "task": job.name,
        "queue": job.queue,
        "worker": job.worker,
        "attempt": job.attempt,
    }


# -- setup --


class _Handler(logging.StreamHandler[Any]):
    """Writes to stderr. It is a class of its own, so that it is not taken for a handler of the program."""

    def __init__(self, formatter: logging.Formatter, stream: IO[str]) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)


_setup: tuple[int, str] | None = None


def for_children() -> tuple[int, str | None]:
    """Returns the level and the format with which the child processes of a worker log: those of this process.

    The format is None if asyncq has not set up logging in this process.
    """
    return (logging.getLogger().getEffectiveLevel(), None) if _setup is None else _setup


def is_json() -> bool:
    """Whether this process logs as JSON. Then it writes its other output as records, too."""
    return _setup is not None and _setup[1] == "json"


def configure(
    level: int, format: str = "plain", *, color: Callable[[str, str], str] | None = None
) -> logging.Handler:
    """Sends all records of this process from this level on to stderr, and returns the handler.

    A second call replaces the handler of the first. Other handlers of the root logger stay.

    Args:
        level: a level of `logging`, for the root logger and for asyncq.
        format: `plain` or `json`.
        color: see `PlainFormatter`.
    """
    global _setup  # noqa: PLW0603  logging is global, too
    _setup = level, format
    # A process may be started with stderr closed. Then Python has no stderr, and nobody reads what it logs.
    stream = sys.stderr if sys.stderr is not None else io.StringIO()
    handler = _Handler(JsonFormatter() if format == "json" else PlainFormatter(color), stream)
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger(_ROOT_NAME).setLevel(level)
    return handler


def configure_child(level: int, format: str | None) -> logging.Handler:
    """Sets up logging in a child process of a worker, and returns the handler, for `keep`.

    The arguments are what `for_children` returned in the worker. What a job prints also appears at once,
    because the process may be killed before the job ends.
    """
    flush_each_line()
    handler = configure(level, format or "plain")
    if format is None:
        # The worker's program has set up logging by itself. If the app's module does that, it does so here,
        # too; but `logging.basicConfig` does nothing if it finds a handler.
        logging.getLogger().removeHandler(handler)
    return handler


def flush_each_line() -> None:
    """Makes stdout and stderr pass on each line at once, also into a pipe or a file.

    Python holds back what it writes into a pipe until there are 8 KiB, unless `PYTHONUNBUFFERED` is set. A
    reader that waits for one line would wait for ever, and a process that is killed loses what it holds back.
    Only for processes that belong to asyncq: `print` in a task writes here, too.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not a test's StringIO, nor None for a closed stream
            stream.reconfigure(line_buffering=True)


def end_streams() -> None:
    """Writes what stdout and stderr still hold back, at the end of a process.

    What cannot be written is dropped. Otherwise Python would try again and end the process with exit code
    120, whatever its exit code was before.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except ValueError:  # it is closed; Python checks that, too
            continue
        except OSError:
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123  only its descriptor is needed
                os.dup2(nowhere.fileno(), stream.fileno())


def keep(handler: logging.Handler, *, is_chosen: bool) -> None:
    """Restores what `configure` has set up, after the import of an app that may have set up logging itself.

    Handlers that the app has put in the place of ours stay, and get all records. If the root logger has no
    handler, ours comes back.

    Args:
        handler: what `configure` returned.
        is_chosen: whether the user has asked for this format. Then our handler comes back in any case. It
            replaces handlers that write to the terminal, where each record would appear twice.
    """
    root = logging.getLogger()
    if is_chosen:
        for other in root.handlers[:]:
            if type(other) is logging.StreamHandler and other.stream in {sys.stderr, sys.stdout}:
                root.removeHandler(other)
    if (is_chosen or not root.handlers) and handler not in root.handlers:
        root.addHandler(handler)
    enable_loggers()
    if _setup is not None and (is_chosen or not logging.getLogger(_ROOT_NAME).level):
        logging.getLogger(_ROOT_NAME).setLevel(_setup[0])


def enable_loggers() -> None:
    """Enables asyncq's loggers again.

    `logging.config.dictConfig` disables all loggers that exist and that it does not name, unless it gets
    `disable_existing_loggers=False`. No user wants a worker whose failures nobody sees. To see less, set a
    level: `logging.getLogger("asyncq").setLevel("ERROR")`.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if _is_ours(name) and isinstance(logger, logging.Logger):
            logger.disabled = False
