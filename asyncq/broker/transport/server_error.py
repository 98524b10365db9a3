"""An error that the server answered, and what to do about it.

Apart from `connection`, which imports redis-py: a process that opens no connection does not need it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    from collections.abc import Mapping


class ErrorAction(Enum):
    """What to do about an error that the server answered."""

    RETRY = auto()
    """Passing: send the same command again, after a pause."""
    RECONNECT = auto()
    """This server is not the one to talk to (any more): close, connect anew, send again."""
    LOAD = auto()
    """The server does not know the script: load it, send again."""
    NO_GROUP = auto()
    """The stream or its group is gone: make it again, send again."""
    FULL = auto()
    """The server's memory is full."""
    DENIED = auto()
    """Wrong password or missing permission: fatal at the start; later somebody may be changing them, and a
    worker waits."""
    FATAL = auto()
    """A wrong type, a wrong argument: sending again will not help."""


ERROR_ACTIONS: Mapping[str, ErrorAction] = {
    "LOADING": ErrorAction.RETRY,
    "BUSY": ErrorAction.RETRY,
    "TRYAGAIN": ErrorAction.RETRY,
    "CLUSTERDOWN": ErrorAction.RETRY,
    "NOREPLICAS": ErrorAction.RETRY,
    "MASTERDOWN": ErrorAction.RETRY,
    "UNBLOCKED": ErrorAction.RETRY,
    "MISCONF": ErrorAction.RETRY,
    "READONLY": ErrorAction.RECONNECT,
    "NOSCRIPT": ErrorAction.LOAD,
    "NOGROUP": ErrorAction.NO_GROUP,
    "OOM": ErrorAction.FULL,
    "NOAUTH": ErrorAction.DENIED,
    "WRONGPASS": ErrorAction.DENIED,
    "NOPERM": ErrorAction.DENIED,
}


_DENIED_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
"""What Valkey and Redis 7.0 say when a script calls what its user may not."""


class ServerError(AsyncQError):
    """An error reply. `code` is its first word."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code: str = message.split(" ", 1)[0].removeprefix("-")
        if self.code == "ERR" and "max number of clients" in message:
            self.code = "MAXCLIENTS"
        elif any(words in message for words in _DENIED_IN_SCRIPT):
            self.code = "NOPERM"

    @property
    def action(self) -> ErrorAction:
        """What to do about it. What the table does not know is fatal: better a clear error than an endless
        retry.
        """
        if self.code == "MAXCLIENTS":
            return ErrorAction.RETRY
        return ERROR_ACTIONS.get(self.code, ErrorAction.FATAL)


class Unfit(ServerError):
    """What answers cannot be asyncq's server: too old, a part of a cluster, a Sentinel, or without that
    database. The second line says what to do.

    Treated as a refused password is: final when an app opens; later a worker waits, for somebody may be
    changing the server.
    """

    @property
    def action(self) -> ErrorAction:
        """Final at the start."""
        return ErrorAction.DENIED
