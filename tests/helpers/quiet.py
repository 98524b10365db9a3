"""What programs of tests log that is not what the test is about."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STARTUP = """
import logging
logging.getLogger("asyncq.worker.job_log").addHandler(logging.NullHandler())  # else they go to stderr
"""


def without_late_worker(errors: str) -> list[str]:
    """The lines of stderr, but for one that is said when a worker that was just started takes two seconds to
    listen, on a busy machine.
    """
    return [line for line in errors.splitlines() if "but no worker listens on queue" not in line]


def without_job_log(folder: Path, *path: Path) -> str:
    """A `PYTHONPATH` with which a program shows no records of failed jobs unless it sets up logging: its jobs
    fail on purpose.

    Args:
        folder: where a file may be put for it; made if it is not there.
        path: the other folders of the path, which come first.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_STARTUP)
    return os.pathsep.join(map(str, (*path, folder)))
