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


def test_import_cycles_are_small_and_stay_inside_a_package():
    import_cycles = structure.import_cycles(structure.imports())
    assert all(len(cycle) <= 5 for cycle in import_cycles), import_cycles


def test_no_import_goes_to_a_higher_layer():
    upward_imports = structure.upward_imports(structure.imports())
    assert not upward_imports


def test_files_do_not_use_private_names_of_other_files():
    uses = structure.private_uses()
    assert len(uses) <= 10, uses


def test_no_module_below_the_app_imports_the_app():
    importers = {module for module, others in structure.imports().items() if "asyncq.app" in others}
    below = {
        one
        for one in importers
        if one != "asyncq" and one.split(".")[1] not in {"cli", "integrations", "testing", "worker"}
    }
    assert not below, below


def test_no_class_has_too_many_methods():
    too_many = {name: count for name, count in structure.methods().items() if count > 45}
    assert too_many == {}, "inherited ones count"


def test_no_object_has_too_many_attributes():
    too_many = {name: count for name, count in structure.attributes().items() if count > 15}
    assert too_many == {}


class _Base:
    def __len__(self) -> int:
        return 0

    def public(self) -> None: ...

    def _private(self) -> None: ...

    other_name = public


class _Derived(_Base):
    number = 1

    @property
    def shown(self) -> int:
        return 1

    def public(self) -> None: ...

    @classmethod
    def made(cls) -> None: ...

    @staticmethod
    def plain() -> None: ...


def test_inherited_private_and_special_methods_are_counted_once():
    assert len(structure.methods_of(_Base, __name__)) == 3
    inherited = {"__len__", "_private", "other_name"}  # here `other_name` is another method than `public`
    assert structure.methods_of(_Derived, __name__) == {"public", "made", "plain", *inherited}


def test_no_two_files_and_no_two_classes_share_a_name():
    assert not structure.shared_names()
