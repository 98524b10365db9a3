"""Counts the processor cores that this process may use.

A worker asks for them when it sizes its pool of processes. The files of control groups are read at import, so
no call reads a file on an event loop.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable(root: Path | None = None) -> int:
    """Returns the number of cores that this process may keep busy, at least 1.

    It is the smallest of three numbers: the cores that the machine has, or that `PYTHON_CPU_COUNT` names; the
    cores on which the process may run (taskset, cpusets); and the quota of the container, rounded up
    (`docker run --cpus 1.5` gives 2).

    Args:
        root: where /proc and /sys are, for tests. Default: the quota of this process as it was when this
            module was imported.
    """
    counts = [_of_python(), _QUOTA if root is None else _quota(root)]
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        counts.append(len(os.sched_getaffinity(0)))
    return max(1, min(count for count in counts if count is not None))


def _of_python() -> int:
    count = getattr(os, "process_cpu_count", os.cpu_count)  # since Python 3.13
    return count() or 1


def _quota(root: Path) -> int | None:
    """Returns the smallest quota of the process's control group and of the groups above; None without one."""
    quotas = [
        quota
        for folder in _groups(root)
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return math.ceil(min(quotas)) if quotas else None


def _groups(root: Path) -> list[Path]:
    """Returns the folders of the process's control groups and of the groups above.

    In a container the path may be the host's. Then the container sees its own group at the mount itself.
    """
    mount = root / "sys/fs/cgroup"
    folders: list[Path] = []
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                bases = [mount]
            elif "cpu" in controllers.split(","):
                bases = [mount / "cpu", mount / controllers]
            else:
                continue
            inner = PurePosixPath(path.lstrip("/"))
            folders += [base / part for base in bases for part in (inner, *inner.parents)]
    return folders


def _quota_v2(folder: Path) -> float | None:
    with suppress(OSError, ValueError):  # "max 100000" has no quota
        quota, period = map(int, (folder / "cpu.max").read_text().split())
        return quota / period
    return None


def _quota_v1(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        if quota > 0:  # -1: none
            return quota / int((folder / "cpu.cfs_period_us").read_text())
    return None


_QUOTA = _quota(Path("/"))
"""Read at import, because a worker asks on its event loop, and no file is to be read there."""
