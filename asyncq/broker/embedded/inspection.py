"""The inspection: what is known about a project's server, from outside."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq.broker.embedded.answer import probe
from asyncq.broker.embedded.locks import starting, try_exclusive
from asyncq.broker.embedded.place import Place, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What is known about the server of a project.

    Attributes:
        running: whether somebody is at the socket.
        pid: the server's process id, if it answers.
        version: as in "Valkey 9.1.2"; of the last start, if none runs; None if there never was one.
        socket: where its socket is, or would be.
        directory: the project directory.
        started: when it was started, in seconds since the epoch; None if it does not run.
        in_use: whether any process (this one too) holds it; None if that is not known.
        memory: bytes in use; None if it does not answer.
        keys: number of keys; None if it does not answer.
        aof_size: bytes of the append-only file on disk.
    """

    running: bool
    pid: int | None
    version: str | None
    socket: Path
    directory: Path
    started: float | None
    in_use: bool | None
    memory: int | None
    keys: int | None
    aof_size: int


def status(directory: Path) -> Status:
    """Looks at the server of a project, without starting or holding it.

    Example:
        >>> status(Path("/srv/shop")).running  # doctest: +SKIP
        False
    """
    place = place_of(directory.resolve())
    answer = probe(place.socket)
    info = answer.info
    running = answer.state != "absent"
    uptime = info.get("uptime_in_seconds")
    return Status(
        running=running,
        pid=int(info["process_id"]) if "process_id" in info else None,
        version=answer.version if info else place.meta().get("version"),
        socket=place.socket,
        directory=place.directory,
        started=time.time() - int(uptime) if uptime else None,
        in_use=_in_use(place) if running else False,
        memory=int(info["used_memory"]) if "used_memory" in info else None,
        keys=_count_keys(info) if info else None,
        aof_size=sum(file.stat().st_size for file in (place.data / "appendonlydir").glob("*")),
    )


def _count_keys(info: Mapping[str, str]) -> int:
    """Sum of `db0:keys=3,expires=0,...` over the databases."""
    databases = (text for name, text in info.items() if re.fullmatch(r"db\d+", name))
    return sum(int(text.split(",")[0].removeprefix("keys=")) for text in databases)


def _in_use(place: Place) -> bool | None:
    # Only under start.lock: our own exclusive try would make somebody's last-out believe that it was not the
    # last.
    try:
        with starting(place):
            alone = try_exclusive(place.users_lock)
    except OSError as error:
        logger.debug("no look at the users of %s: %s", place.directory, error)
        return None
    if alone is None:
        return True
    os.close(alone)
    return False
