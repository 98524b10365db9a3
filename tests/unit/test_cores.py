"""The number of cores is the number that the process may use, not the number that the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncq import AsyncQ
from asyncq.system import cores
from asyncq.worker.processes import pool

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = 64


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with many cores. The process may run on all of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: MACHINE)
    monkeypatch.setattr(os, "process_cpu_count", lambda: MACHINE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(MACHINE)), raising=False)


@pytest.fixture
def root(tmp_path: Path):
    """Writes files as the kernel has them, and returns their root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return write


V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/cpu/"
V1_LINE = "4:memory:/pod\n3:cpu,cpuacct:/pod/app\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "max 100000\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "nonsense\n"}, MACHINE),
        ({"proc/self/cgroup": "nonsense\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "99900000 100000\n"}, MACHINE),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                V2 + "a.slice/cpu.max": "300000 100000\n",
                V2 + "a.slice/b.scope/cpu.max": "max 100000\n",
            },
            3,
        ),
        # The path of the group is the path on the host. The container sees only its own group.
        ({"proc/self/cgroup": "0::/docker/abc\n", V2 + "cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": V1_LINE,
                V1 + "pod/cpu.cfs_quota_us": "250000\n",
                V1 + "pod/cpu.cfs_period_us": "100000\n",
                V1 + "pod/app/cpu.cfs_quota_us": "-1\n",
                V1 + "pod/app/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": V1_LINE,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
    ],
)
def test_the_quota_of_the_control_group_is_rounded_up(root, files, expected):
    assert cores.usable(root(files)) == expected


def test_only_cores_that_the_process_may_use_are_counted(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 5, 6}, raising=False)
    assert cores.usable(root({})) == 3


def test_the_cpu_count_of_python_is_used_and_a_system_without_affinity_works(root, monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 7, raising=False)
    assert cores.usable(root({})) == 7
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.usable(root({})) == 1


def test_a_worker_has_one_process_for_each_core_that_it_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    assert pool.size(AsyncQ("memory://")) == 1
    assert pool.size(AsyncQ("memory://", processes=5)) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process to cores")
def test_a_process_that_is_bound_to_one_core_counts_one():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from asyncq.system import cores; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(cores.usable())"], capture_output=True, check=True
    )
    assert done.stdout == b"1\n"
