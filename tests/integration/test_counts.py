"""What one job costs, in counts and not in time: the commands that the server runs, also those inside
scripts; the commands and bytes that client and worker send and receive, with their writes and reads; and the
bytecode instructions that they execute, asyncq's own and those of the libraries that it calls.

`counts.txt` has the figures of one job, one a line. If a figure is more than 2 % higher, a job costs more. If
it is more than 2 % lower, the stored figure would hide the next rise. `make counts` writes the file again, in
seconds. Do that in the commit that changes the costs on purpose, and say why there.

`python tests/integration/test_counts.py --functions` prints which functions execute most instructions.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.forked import TESTS
from helpers.own_server import own_server

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.bundled  # another server has ids and answers of other lengths

FILE = Path(__file__).with_name("counts.txt")
WAYS = ("lone", "batched", "map", "get", "get_by_id", "middleware")
"""In which ways `helpers.counted` runs jobs."""
NEAR = 0.02
"""How far a figure may be from the stored one, as a share of that."""
PYTHON = (3, 11)
"""The version whose instructions are stored. Every other one compiles the same code to others."""

Figures = dict[str, float]


def output(*options: str) -> str:
    """Returns what `helpers.counted` prints, in a process of its own and on a server of its own."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("ASYNCQ_", "PYTHON"))
    }
    with (
        tempfile.TemporaryDirectory(prefix="q-") as folder,
        own_server(Path(folder) / "server", durable=False, save="3600 1") as server,
    ):
        process = subprocess.run(
            [sys.executable, "-m", "helpers.counted", server.url.removeprefix("unix://"), *options],
            cwd=TESTS,
            env={**environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert (process.returncode, process.stderr) == (0, ""), process.stderr
    return process.stdout


def counted() -> Figures:
    return json.loads(output())


def stored() -> Figures:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return {name: float(figure) for name, figure in map(str.split, lines)}


def has_instructions(name: str) -> bool:
    return ".instructions" in name


def too_high(now: Figures, before: Figures) -> set[str]:
    """Returns the names of the figures that are too high, or new."""
    return {name for name, figure in now.items() if figure > before.get(name, 0.0) * (1 + NEAR)}


def too_low(now: Figures, before: Figures) -> set[str]:
    """Returns the names of the figures that are too low, or gone."""
    return {name for name, figure in before.items() if now.get(name, 0.0) < figure * (1 - NEAR)}


def changes(now: Figures, before: Figures, names: set[str]) -> str:
    return "".join(f"{name}: {before.get(name, 0.0):g} -> {now.get(name, 0.0):g}\n" for name in sorted(names))


def problem(now: Figures, before: Figures) -> str:
    """Returns what is wrong and what to do. The text is empty if all figures are near the stored ones."""
    high, low = too_high(now, before), too_low(now, before)
    text = ""
    if high:
        text += f"A job costs more than {FILE.name} says:\n{changes(now, before, high)}"
    if low:
        text += f"A job costs less than {FILE.name} says. Store it, so that it stays so:\n"
        text += changes(now, before, low)
    if text:
        text += "`make counts` writes the file again. Say in the commit why a job costs something else now."
    return text


@pytest.fixture(scope="module")
def now() -> Figures:
    return counted()


def check(now: Figures, is_wanted: Callable[[str], bool]) -> None:
    """Fails if one of the figures with some names is far from the stored one."""
    wanted, before = ({name: all_[name] for name in all_ if is_wanted(name)} for all_ in (now, stored()))
    if text := problem(wanted, before):
        pytest.fail(text, pytrace=False)


@pytest.mark.parametrize("way", WAYS)
def test_a_job_takes_the_commands_and_bytes_and_round_trips_that_are_stored(now, way):
    check(now, lambda name: name.startswith(f"{way}.") and not has_instructions(name))


@pytest.mark.skipif(sys.version_info[:2] != PYTHON, reason="the stored instructions are those of Python 3.11")
@pytest.mark.parametrize("way", WAYS)
def test_a_job_takes_the_instructions_that_are_stored(now, way):
    check(now, lambda name: name.startswith(f"{way}.") and has_instructions(name))


@pytest.mark.trial
def test_every_count_is_the_same():
    first, *others = [counted() for _ in range(5)]
    for other in others:
        assert other == pytest.approx(first, rel=0.001)


@pytest.mark.parametrize("way", WAYS)
def test_the_file_has_figures_of_each_kind_for_each_way(way):
    names = set(stored())
    assert {f"{way}.client.{figure}" for figure in ("bytes_received", "instructions", "reads")} <= names
    assert f"{way}.server.commands_run" in names


def test_the_file_is_sorted_so_that_its_changes_can_be_read():
    assert FILE.read_text(encoding="utf-8") == written(stored())


# -- the comparison --

BEFORE = {"lone.client.reads": 2.0, "lone.server.commands_run": 12.0}


def test_figures_within_two_percent_are_no_problem():
    assert problem({"lone.client.reads": 1.97, "lone.server.commands_run": 12.2}, BEFORE) == ""


def test_a_figure_that_is_too_high_is_named_with_both_values_and_what_to_do():
    text = problem({"lone.client.reads": 2.05, "lone.server.commands_run": 12.2}, BEFORE)
    assert text.startswith("A job costs more")
    assert "lone.client.reads: 2 -> 2.05\n" in text
    assert "commands_run" not in text
    assert "make counts" in text


def test_a_figure_that_is_too_low_is_to_be_stored():
    text = problem({"lone.client.reads": 2.0, "lone.server.commands_run": 11.0}, BEFORE)
    assert text.startswith("A job costs less")
    assert "lone.server.commands_run: 12 -> 11\n" in text
    assert "make counts" in text


def test_a_new_figure_is_too_high_and_one_that_is_gone_is_too_low():
    text = problem({"lone.client.reads": 2.0, "lone.server.commands_run.get": 1.0}, BEFORE)
    assert "lone.server.commands_run.get: 0 -> 1\n" in text
    assert "lone.server.commands_run: 12 -> 0\n" in text


# -- to write the file --


def written(figures: Figures) -> str:
    return "".join(f"{name} {figure:g}\n" for name, figure in sorted(figures.items()))


def renew() -> str:
    """Writes the file again. Returns what has changed."""
    before = stored() if FILE.exists() else {}
    now = counted()
    if sys.version_info[:2] != PYTHON:
        others = {name: figure for name, figure in before.items() if has_instructions(name)}
        now = {name: figure for name, figure in now.items() if not has_instructions(name)} | others
    FILE.write_text(written(now), encoding="utf-8")
    now = stored()
    text = changes(now, before, {name for name in {*now, *before} if now.get(name) != before.get(name)})
    if sys.version_info[:2] != PYTHON:
        text += "The instructions are still those of before: they need Python {}.{}.\n".format(*PYTHON)
    return text or "Nothing has changed.\n"


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(output(*sys.argv[1:]) if sys.argv[1:] else renew())
