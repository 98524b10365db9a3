"""How a command ends: the exit codes, and the exit code and hint for each error.

`invocation.command` maps every exception of a command through `explained`. An error that is not listed here
is a bug in asyncq and ends with code 70. It is written to a crash file.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from enum import IntEnum
from typing import Final

from asyncq.broker.transport.server_error import ServerError
from asyncq.broker.transport.url import mask
from asyncq.errors import (
    AsyncQError,
    BrokerNotConfigured,
    BrokerUnavailable,
    QueueFull,
    ResultNotFound,
    ResultTimeout,
    SerializationError,
    TaskRevoked,
)


class Code(IntEnum):
    """Exit codes, as the documentation lists them. Those above 63 are those of `sysexits.h`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    TIMEOUT = 4
    REVOKED = 5
    UNAVAILABLE = 69
    BUG = 70
    RETURNED_JOBS = 75
    NO_PERMISSION = 77
    CONFIGURATION = 78
    INTERRUPTED = 130
    TERMINATED = 143


class CliError(Exception):
    """A command cannot do what the user asked. Has the reason, a hint that helps, and the exit code."""

    def __init__(self, message: str, hint: str = "", code: int = Code.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


OTHER_APP: Final = (
    "if its app has a namespace or a server of its own: --app MODULE:APP, or --namespace and --url"
)
"""The hint where there is no job under an id."""

# HELLO, for redis-py strips NOAUTH from "NOAUTH HELLO must be called with the client already authenticated".
_NOT_ALLOWED = {"NOAUTH", "NOPERM", "WRONGPASS", "HELLO"}

# The first class that fits decides, so a subclass stands above its base.
_MEANINGS: tuple[tuple[type[Exception], Code, str], ...] = (
    (ResultTimeout, Code.TIMEOUT, ""),
    (TaskRevoked, Code.REVOKED, ""),
    (ResultNotFound, Code.NOT_FOUND, ""),
    (BrokerNotConfigured, Code.CONFIGURATION, ""),
    (
        BrokerUnavailable,
        Code.UNAVAILABLE,
        "start the server, or correct ASYNCQ_URL / --url; without either, the embedded server is used",
    ),
    (QueueFull, Code.FAILED, "try again later, or start more workers"),
    (SerializationError, Code.USAGE, ""),
    (AsyncQError, Code.FAILED, ""),
)


def cli_error(error: BaseException) -> CliError | None:
    """Returns an error as the user of a command should see it, or None for one that no user can cause."""
    if isinstance(error, CliError):
        return error
    answer = error if isinstance(error, ServerError) else error.__cause__
    if isinstance(answer, ServerError) and answer.code in _NOT_ALLOWED:
        first, _, mend = str(error).partition("\n")
        hint = mend or "check the user and the password in ASYNCQ_URL, and the rights of that user"
        return CliError(first, hint, Code.NO_PERMISSION)
    if isinstance(error, ServerError):
        return CliError(f"the server refuses: {error}")
    for kind, code, hint in _MEANINGS:
        if isinstance(error, kind):
            first, _, rest = str(error).partition("\n")
            return CliError(first, rest or hint, code)
    return None


def explained(error: Exception) -> CliError:
    """Returns any error as the user of a command should see it. Writes a bug in asyncq to a crash file."""
    known = cli_error(error)
    if known is not None:
        return known
    try:
        hint = f"please report it with {_crash_file(error)}"
    except OSError:  # the crash file cannot be written: the traceback goes to stderr
        hint = "please report it:\n" + "".join(traceback.format_exception(error))
    return CliError(f"this is a bug in asyncq: {type(error).__name__}: {error}", hint, Code.BUG)


def _crash_file(error: Exception) -> str:
    """Writes the traceback to a temporary file and returns the file's name. It is not printed, for it helps
    only a user who reports the bug.
    """
    with tempfile.NamedTemporaryFile("w", prefix="asyncq-crash-", suffix=".txt", delete=False) as file:
        arguments = " ".join(mask(word) for word in sys.argv[1:])
        file.write(f"asyncq {arguments}\npython {platform.python_version()} on {platform.platform()}\n\n")
        file.writelines(traceback.format_exception(error))
    return file.name
