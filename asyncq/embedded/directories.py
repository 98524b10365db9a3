"""The two directories of a project's server: names, files, and errors that quote the server's log.

Both directories belong to this user, and nobody else may enter them: the mode of the socket is the password
of the server. Functions block, and run under no lock of their own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncq.embedded.resp import probe
from asyncq.errors import BrokerNotConfigured

logger: logging.Logger = logging.getLogger(__name__)

SUN_PATH = 103  # longest path of a socket: 108 bytes on Linux, 104 on macOS, with the closing NUL


@dataclass(frozen=True)
class ServerDirectories:
    """The directories of one project's server.

    Attributes:
        directory: the project directory.
        runtime: the runtime directory, with the socket and two locks.
    """

    directory: Path
    runtime: Path

    @property
    def data(self) -> Path:
        """The data directory: what must survive a reboot."""
        return self.directory / ".asyncq"

    @property
    def socket(self) -> Path:
        """The socket on which the server listens."""
        return self.runtime / "s"

    @property
    def start_lock(self) -> Path:
        """The lock that a process holds while it starts, attaches or leaves."""
        return self.runtime / "start.lock"

    @property
    def users_lock(self) -> Path:
        """The lock that all users of the server share."""
        return self.runtime / "users.lock"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data / "server.log"

    def log_size(self) -> int:
        """Returns the size of the log in bytes. A start that begins now writes behind that offset."""
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0

    def meta(self) -> dict[str, Any]:
        """Returns what the last start wrote down; empty if there was none, or the file is damaged."""
        try:
            found = json.loads((self.data / "meta.json").read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.debug("%s cannot be read: %s", self.data / "meta.json", error)
            return {}
        return found if isinstance(found, dict) else {}

    def write_meta(self, **entries: object) -> None:
        """Replaces `meta.json` in one step, so that nobody reads half of it."""
        half = self.data / f"meta.json.{os.getpid()}"
        half.write_text(json.dumps(entries, indent=1) + "\n")
        half.replace(self.data / "meta.json")

    def create(self) -> None:
        """Makes both directories, private to this user.

        Raises:
            BrokerNotConfigured: that is not possible; the message says why, and what helps.
        """
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignore = self.data / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            _make_private(self.runtime.parent)
            _make_private(self.runtime)
        except OSError as error:
            advice = advise(
                str(error),
                self,
                "Make the project directory writable, name another with ASYNCQ_URL=embedded:///directory, "
                "or set ASYNCQ_URL=redis://host:6379/0.",
            )
            raise BrokerNotConfigured(
                f"The embedded server cannot keep its data in {self.data}: "
                f"{error.strerror} ({error.filename}).\n{advice}"
            ) from error


def own_directories(directory: Path) -> ServerDirectories:
    """Returns the directories for a new server of this project, by this process's environment."""
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    # After `sudo -E` the variable names another user's directory. With a long directory, the path of the
    # socket would be too long.
    if base and _is_private(Path(base)) and len(os.fsencode(f"{base}/asyncq/{name}/s")) <= SUN_PATH:
        return ServerDirectories(directory, Path(base, "asyncq", name))
    return ServerDirectories(directory, Path(f"/tmp/asyncq-{os.geteuid()}", name))  # noqa: S108  checked by create


def directories_of(directory: Path) -> ServerDirectories:
    """Returns the directories where this project's server runs, or would be started.

    A process with another environment (cron, sudo, another login) may have started it in another runtime
    directory.
    """
    directories = own_directories(directory)
    if probe(directories.socket).state == "absent":
        return elsewhere(directories) or directories
    return directories


def elsewhere(directories: ServerDirectories) -> ServerDirectories | None:
    """Returns the directories of a server that runs in another runtime directory, or None."""
    socket = Path(str(directories.meta().get("socket", "")))
    if socket.name != "s" or socket == directories.socket or not _is_private(socket.parent):
        return None
    return (
        None if probe(socket).state == "absent" else ServerDirectories(directories.directory, socket.parent)
    )


def _is_private(directory: Path) -> bool:
    """Returns whether a path is a real directory of this user that nobody else may enter."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory):
        # In /tmp another user may have made it first, to read our jobs or to pose as the server.
        raise BrokerNotConfigured(
            f"{directory} must belong to you with mode 0700, and does not. "
            "Remove it (or chmod 700 it, if it is yours), or set XDG_RUNTIME_DIR to a private directory."
        )


_ADVICE = {
    "Can't handle RDB format version": (
        "The data was written by a newer server ({wrote}) than this one. Use that version, "
        "or move {data} away to start empty."
    ),
    "the append only file": (
        "The append-only file cannot be read. Copy {data}/appendonlydir, then repair it with "
        "`valkey-check-aof --fix`, or move {data} away to start empty."
    ),
    "No space left on device": "The disk is full. Free some space, then start again.",
    "Permission denied": (
        "Make it writable (chown -R $(id -u) {data}), or name another directory with "
        "ASYNCQ_URL=embedded:///directory."
    ),
}
"""For a text in the server's log: the advice. The first text that is found decides."""


def failure(what: str, directories: ServerDirectories, log_from: int) -> BrokerNotConfigured:
    """Makes the error for a server that did not start: what happened, the end of its log, and what helps.

    Args:
        what: what happened.
        directories: the server's directories.
        log_from: the offset in the log at which this start began.
    """
    try:
        with directories.log.open("rb") as log:
            log.seek(log_from)
            lines = log.read()[-20_000:].decode(errors="replace").splitlines()
    except OSError as error:
        lines = [f"({directories.log}: {error.strerror})"]
    evidence = "\n".join([what, *lines])
    if shutil.disk_usage(directories.directory).free < 64 * 1024:
        evidence += "\nNo space left on device"  # on a full disk, the server could not log it
    words = "".join(f"    {line}\n" for line in lines[-8:])
    return BrokerNotConfigured(
        f"{what}\n{words}{advise(evidence, directories, f'The whole log: {directories.log}')}"
    )


def advise(evidence: str, directories: ServerDirectories, otherwise: str) -> str:
    """Returns the advice for an error of the server or the system, or `otherwise` if there is none."""
    for sign, advice in _ADVICE.items():
        if sign in evidence:
            return advice.format(
                wrote=directories.meta().get("version", "version unknown"), data=directories.data
            )
    return otherwise
