"""Imports go down: the contract in pyproject.toml holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers import structure

ROOT = Path(__file__).parent.parent


def test_the_layer_contract_is_kept():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_circles_of_files_are_small_and_stay_inside_a_package():
    circles = structure.circles(structure.imports())
    assert all(len(circle) <= 5 for circle in circles), circles


def test_no_import_climbs_to_a_higher_layer():
    climbing = structure.climbing(structure.imports())
    assert not climbing


def test_files_leave_the_private_names_of_others_alone():
    uses = structure.private_uses()
    assert len(uses) <= 10, uses


def test_nothing_below_the_app_imports_it():
    importers = {module for module, others in structure.imports().items() if "asyncq.app" in others}
    below = {one for one in importers if one != "asyncq" and one.split(".")[1] not in {"cli", "worker"}}
    assert not below, below


def test_no_two_files_and_no_two_classes_share_a_name():
    assert not structure.shared_names()
