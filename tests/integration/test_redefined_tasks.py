"""A task is defined again while a worker runs: later calls run the new function."""

from __future__ import annotations

import importlib
import sys
import types

import pytest

from asyncq import Worker

pytestmark = pytest.mark.anyio

CELL = "@app.task(name='add')\nasync def add(x: int, y: int) -> int:\n    return x + y\n"


async def test_later_calls_run_the_new_function_of_an_edited_cell(app):
    names = {"__name__": "__main__", "app": app}
    async with Worker(app):
        exec(compile(CELL, "<ipython-input-1>", "exec"), names)
        first = names["add"]
        assert await first.options(wait=10).call(3, 4) == 7
        exec(compile(CELL.replace("+", "*"), "<ipython-input-2>", "exec"), names)
        assert await names["add"].options(wait=10).call(3, 4) == 12
        assert await first.options(wait=10).call(3, 4) == 12  # a job has only the name of its task


async def test_later_calls_run_the_new_function_of_a_reloaded_module(app, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    its_app = types.ModuleType("app_of_redefined")
    its_app.app = app
    monkeypatch.setitem(sys.modules, "app_of_redefined", its_app)
    file = tmp_path / "redefined_tasks.py"
    async with Worker(app):
        file.write_text(f"from app_of_redefined import app\n{CELL}")
        module = importlib.import_module("redefined_tasks")
        assert await module.add.options(wait=10).call(3, 4) == 7
        file.write_text(f"from app_of_redefined import app\n\n{CELL.replace('+', '*')}")
        importlib.reload(module)
        assert await module.add.options(wait=10).call(3, 4) == 12
    del sys.modules["redefined_tasks"]
