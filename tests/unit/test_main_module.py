"""The name that other processes use for the script of a process: in names of tasks,
exceptions and policies.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path

import pytest

from asyncq import AsyncQ, Retry, failures
from asyncq.execution.retry import delay, from_wire
from asyncq.system.main_module import MAIN_AGAIN, import_name, modules_of, surroundings, task_module

FILE = "/srv/shop_script.py"
SOURCE = """
class OutOfStock(Exception):
    pass

class SoldOut(OutOfStock):
    pass

async def buy():
    pass
"""


def module_of(name: str, file: str | None = FILE) -> types.ModuleType:
    module = types.ModuleType(name)
    if file is not None:
        module.__file__ = file
    exec(SOURCE, module.__dict__)
    return module


@pytest.fixture(params=["__main__", MAIN_AGAIN, "__mp_main__"])
def script(request, monkeypatch):
    """The module of a script, under each name by which Python or asyncq runs it."""
    module = module_of(request.param)
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


@pytest.fixture
def imported(monkeypatch):
    """The same file, imported."""
    module = module_of("shop_script")
    monkeypatch.setitem(sys.modules, "shop_script", module)
    return module


def test_tasks_and_exceptions_of_a_script_are_named_after_its_file(script):
    assert import_name(script.__name__) == "shop_script"
    assert AsyncQ("memory://").task(script.buy).name == "shop_script.buy"
    assert failures.decode(failures.encode(script.OutOfStock("tea"))).type_name == "shop_script.OutOfStock"
    assert Retry(on=(script.OutOfStock,)).to_wire()[-1] == ["shop_script.OutOfStock"]


def test_a_module_that_is_run_by_name_keeps_its_name(monkeypatch):
    module = module_of("__main__", "/srv/shop/__main__.py")
    module.__spec__ = importlib.machinery.ModuleSpec("shop.__main__", None)
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert (import_name("__main__"), task_module("__main__")) == ("shop.__main__", "shop")
    assert task_module("shop.__main__") == "shop"  # where a worker imports it


def test_names_of_a_main_module_without_a_file_stay_main(monkeypatch):
    module = module_of("__main__", file=None)
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert AsyncQ("memory://").task(module.buy).name == "__main__.buy"
    assert type(failures.decode(failures.encode(module.OutOfStock())).rebuild()) is module.OutOfStock


def test_an_exception_of_the_imported_file_is_rebuilt_as_that_of_the_script(script):
    error = failures.decode(failures.encode(module_of("shop_script").SoldOut("tea"))).rebuild()
    assert type(error) is script.SoldOut


def test_an_exception_of_the_script_is_rebuilt_as_that_of_the_imported_file(script, imported, monkeypatch):
    data = failures.encode(script.SoldOut("tea"))
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert type(failures.decode(data).rebuild()) is imported.SoldOut


def test_a_script_that_imports_its_own_file_gets_the_imported_class(script, imported):
    assert modules_of("shop_script") == [imported, script]
    assert type(failures.decode(failures.encode(script.OutOfStock())).rebuild()) is imported.OutOfStock


def test_a_program_with_the_name_of_a_module_does_not_hide_the_module(monkeypatch):
    main = types.ModuleType("__main__")
    main.__file__ = "/usr/bin/json.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert modules_of("json")[0] is sys.modules["json"]


@pytest.mark.parametrize("direction", ["the caller is the script", "the worker is the script"])
def test_a_retry_policy_names_classes_as_the_other_side_knows_them(script, imported, monkeypatch, direction):
    caller, worker = (script, imported) if direction.startswith("the caller") else (imported, script)
    policy = from_wire(Retry(on=(caller.OutOfStock,), jitter=False).to_wire())
    assert delay(policy, 0, worker.SoldOut()) == 1.0
    assert delay(policy, 0, ValueError()) is None


def test_a_log_line_names_an_exception_of_the_script_as_a_traceback_does(script):
    assert failures.one_line(script.OutOfStock("tea")) == "OutOfStock: tea"


def test_only_texts_of_path_and_arguments_are_passed_to_another_process(monkeypatch):
    monkeypatch.setattr(sys, "path", ["", Path("/srv"), b"/srv", "/lib"])
    monkeypatch.setattr(sys, "argv", [Path("/srv/shop.py"), "--port", 80])
    assert surroundings() == {"path": ["", "/lib"], "argv": ["/srv/shop.py", "--port", "80"]}
