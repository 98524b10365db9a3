"""Hides log records of test programs that have nothing to do with the test."""

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
    """Returns the lines of stderr without the warning that no worker listens. It appears on a busy machine,
    where a worker takes two seconds to start.
    """
    return [line for line in errors.splitlines() if "but no worker listens on queue" not in line]


def without_job_log(folder: Path, *path: Path) -> str:
    """Returns a `PYTHONPATH` with which a program does not print records of failed jobs, unless it sets up
    logging. This is for programs whose jobs fail on purpose.

    Args:
        folder: a folder for the file that does it; it is made if it does not exist.
        path: the other folders of the path, which come first.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_STARTUP)
    return os.pathsep.join(map(str, (*path, folder)))
