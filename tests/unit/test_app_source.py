"""Tests that the module is found from which another process can import an app."""

from __future__ import annotations

import sys
from types import ModuleType

from asyncq import AsyncQ
from asyncq.worker.processes.app_source import AppSource


def test_the_module_of_the_tasks_is_preferred_to_other_modules_that_hold_the_app(monkeypatch):
    app = AsyncQ()
    names = ("loaded_by_hand", "shop_app", "shop_tasks")
    for name in names:
        module = ModuleType(name)
        module.app = app
        monkeypatch.setitem(sys.modules, name, module)

    def pay() -> None: ...

    pay.__module__ = "shop_tasks"
    app.task(name="pay")(pay)
    assert AppSource.find(app) == AppSource("shop_tasks:app", ("shop_tasks",), ("pay",))
    del sys.modules["shop_tasks"].app
    monkeypatch.delitem(sys.modules, "loaded_by_hand")
    assert AppSource.find(app) == AppSource("shop_app:app", ("shop_tasks",), ("pay",))
