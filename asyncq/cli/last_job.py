"""The last job that was enqueued from this terminal. Commands take it as `@last`.

It is kept in a file of the user's state directory (`XDG_STATE_HOME`, else `~/.local/state`), one for each
terminal: jobs of two terminals must not be mixed up. A terminal is a session of processes, so a script or a
pipe in it belongs to it. A file is good for a day, for the system gives the number of a session again later.
Functions block for some microseconds.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

from asyncq.cli.exits import CliError, Code

log: logging.Logger = logging.getLogger(__name__)

LAST: Final = "@last"
"""What stands for the id of the last job."""
GOOD_FOR: Final = 86_400.0
"""Seconds for which a job is known as the last one."""


def note(id_: str) -> None:
    """Notes a job as the last one of this terminal. A directory that cannot be written is no error: then
    there is no `@last`.
    """
    file = _file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_old(file.parent)
        half = file.with_name(f"{file.name}.{os.getpid()}")
        half.write_text(id_ + "\n", encoding="utf-8")
        half.replace(file)
    except OSError as error:
        log.debug("the last job could not be noted in %s: %s", file, error)


def read() -> str:
    """Returns the id of the last job of this terminal.

    Raises:
        CliError: there is none.
    """
    file = _file()
    try:
        if time.time() - file.stat().st_mtime < GOOD_FOR:
            return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CliError(f"{LAST}: {file} cannot be read: {error}", "write the id", Code.NOT_FOUND) from error
    raise CliError(
        f"{LAST}: no job was enqueued from this terminal within a day",
        "asyncq call, jobs retry, dlq requeue and schedule run note the jobs that they enqueue",
        Code.NOT_FOUND,
    )


def _file() -> Path:
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():
        folder = Path(os.environ.get("HOME", "/"), ".local", "state")
    return folder / "asyncq" / f"last-job-{os.getsid(0)}"


def _remove_old(folder: Path) -> None:
    """Removes what other terminals have left long ago."""
    oldest = time.time() - GOOD_FOR
    for other in folder.glob("last-job-*"):
        if other.stat().st_mtime < oldest:
            other.unlink(missing_ok=True)
