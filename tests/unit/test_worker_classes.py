"""The parts of a worker stay small enough to be kept in mind."""

from __future__ import annotations

import ast
from pathlib import Path

import asyncq.worker

MOST = 12
FILES = sorted(Path(asyncq.worker.__file__).parent.glob("*.py"))


def _attributes(definition: ast.ClassDef) -> set[str]:
    """What the methods of a class write on `self`."""
    return {
        node.attr
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_no_class_of_the_worker_has_more_than_twelve_attributes():
    counts = {
        f"{file.name}: {node.name}": len(_attributes(node))
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert counts["session.py: WorkerSession"] > 5, "the count counts nothing"
    assert {name: count for name, count in counts.items() if count > MOST} == {}
