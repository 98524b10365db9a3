"""Imports go down: the contract in pyproject.toml holds."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
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


def test_imports_inside_the_broker_go_down_those_for_types_counted():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [one for one in settings["contracts"] if one.get("containers") == ["asyncq.broker"]]
    graph = grimp.build_graph("asyncq", exclude_type_checking_imports=False, cache_dir=None)
    layers = [grimp.Layer(*line.split(" | "), independent=True) for line in contract["layers"]]
    assert graph.find_illegal_dependencies_for_layers(layers=layers, containers={"asyncq.broker"}) == set()


def test_circles_of_files_are_small_and_stay_inside_a_package():
    circles = structure.circles(structure.imports())
    assert all(len(circle) <= 6 for circle in circles), circles


def test_few_imports_climb_to_a_higher_layer():
    climbing = structure.climbing(structure.imports())
    assert len(climbing) <= 5, climbing


def test_files_leave_the_private_names_of_others_alone():
    uses = structure.private_uses()
    assert len(uses) <= 10, uses


def test_nothing_below_the_app_imports_it():
    importers = {module for module, others in structure.imports().items() if "asyncq.app" in others}
    below = {one for one in importers if one != "asyncq" and one.split(".")[1] not in {"cli", "worker"}}
    assert not below, below
