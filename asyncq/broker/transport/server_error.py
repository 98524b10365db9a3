"""The error replies of the server, and what to do about each: retry, reconnect, load the scripts, or give up.

`Commands` acts on it. This is apart from `connection`, which imports redis-py: a process that opens no
connection does not need that.
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
    """The cause passes: send the same command again, after a pause."""
    MOVED = auto()
    """Another node of the Cluster serves this shard: send the command again, to that node."""
    RECONNECT = auto()
    """This server is not the right one (any more): close the connection, connect again, send again."""
    LOAD = auto()
    """The server does not know the script: load it, send again."""
    NO_GROUP = auto()
    """The stream or its group is gone: make it again, send again."""
    FULL = auto()
    """The server's memory is full: report it to the caller."""
    DENIED = auto()
    """Wrong password or missing permission. Final when an app opens. A worker that runs already waits, for
    somebody may be changing them."""
    FATAL = auto()
    """A wrong type or a wrong argument, say: sending again will not help."""


ERROR_ACTIONS: Mapping[str, ErrorAction] = {
    "LOADING": ErrorAction.RETRY,
    "BUSY": ErrorAction.RETRY,
    "TRYAGAIN": ErrorAction.RETRY,
    "ASK": ErrorAction.RETRY,  # the slot is being moved: see `cluster_scripts`
    "MOVED": ErrorAction.MOVED,
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
"""The texts of Valkey and of Redis 7.0 when a script calls a command that its user must not call."""


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
        """What to do about this error. A code that the table does not have is fatal: a clear error is better
        than an endless retry.
        """
        if self.code == "MAXCLIENTS":
            return ErrorAction.RETRY
        return ERROR_ACTIONS.get(self.code, ErrorAction.FATAL)


class Unfit(ServerError):
    """The server cannot be asyncq's: it is too old, a node of a Cluster, a Sentinel, or lacks that database.
    The second line of the message says what to do.

    It is treated as a refused password: final when an app opens. A worker that runs already waits, for
    somebody may be changing the server.
    """

    @property
    def action(self) -> ErrorAction:
        """Always `DENIED`."""
        return ErrorAction.DENIED
