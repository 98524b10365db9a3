"""Examples in docstrings that look like a Python session (`>>>`) give the results that they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import asyncq

ROOT = Path(asyncq.__file__).parent


def with_examples() -> list[str]:
    """Returns the modules that have such examples."""
    files = [path for path in ROOT.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in files)


@pytest.mark.parametrize("module", with_examples())
def test_examples_in_docstrings_are_true(module):
    assert not doctest.testmod(importlib.import_module(module)).failed
