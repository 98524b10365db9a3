"""The place: the two directories of a project's server, and what is in them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncq.broker.embedded.advice import advise
from asyncq.broker.embedded.answer import probe
from asyncq.errors import BrokerNotConfigured

logger: logging.Logger = logging.getLogger(__name__)

SUN_PATH = 103  # longest socket path: 108 bytes on Linux, 104 on macOS, with the closing NUL


@dataclass(frozen=True)
class Place:
    """Where the server of one project lives."""

    directory: Path
    runtime: Path

    @property
    def data(self) -> Path:
        """The data directory: what must survive a reboot."""
        return self.directory / ".asyncq"

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        return self.runtime / "s"

    @property
    def start_lock(self) -> Path:
        """Held while somebody starts, attaches or leaves."""
        return self.runtime / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Shared by all who use the server."""
        return self.runtime / "users.lock"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data / "server.log"

    def log_size(self) -> int:
        """Bytes in the log by now: what a start that begins now has to say comes after them."""
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0

    def meta(self) -> dict[str, Any]:
        """What the last start wrote down; empty if there was none, or if it was cut short."""
        try:
            found = json.loads((self.data / "meta.json").read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.debug("%s cannot be read: %s", self.data / "meta.json", error)
            return {}
        return found if isinstance(found, dict) else {}

    def write_meta(self, **entries: object) -> None:
        """Replace `meta.json` in one step, so that nobody reads half of it."""
        half = self.data / f"meta.json.{os.getpid()}"
        half.write_text(json.dumps(entries, indent=1) + "\n")
        half.replace(self.data / "meta.json")

    def create(self) -> None:
        """Make both directories, private to this user.

        Raises:
            BrokerNotConfigured: that is not possible; says why, and what helps.
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


def own_place(directory: Path) -> Place:
    """The place a new server of this project gets, from this process's environment."""
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    # After `sudo -E` the variable names somebody else's directory; a long one would not leave room for the
    # socket.
    if base and _is_private(Path(base)) and len(os.fsencode(f"{base}/asyncq/{name}/s")) <= SUN_PATH:
        return Place(directory, Path(base, "asyncq", name))
    return Place(directory, Path(f"/tmp/asyncq-{os.geteuid()}", name))  # noqa: S108  checked by create


def place_of(directory: Path) -> Place:
    """Where this project's server is now, or would be started.

    A process with another environment (cron, sudo, another login) may have started it in another runtime
    directory.
    """
    place = own_place(directory)
    if probe(place.socket).state == "absent":
        return elsewhere(place) or place
    return place


def elsewhere(place: Place) -> Place | None:
    """The other runtime directory in which the server was started, if it is there still."""
    socket = Path(str(place.meta().get("socket", "")))
    if socket.name != "s" or socket == place.socket or not _is_private(socket.parent):
        return None
    return None if probe(socket).state == "absent" else Place(place.directory, socket.parent)


def _is_private(directory: Path) -> bool:
    """Whether it is a real directory of this user that nobody else may enter."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory):
        # In /tmp somebody else may have made it first, to read our jobs or to answer in the server's place.
        raise BrokerNotConfigured(
            f"{directory} must belong to you with mode 0700, and does not. "
            "Remove it (or chmod 700 it, if it is yours), or set XDG_RUNTIME_DIR to a private directory."
        )
