"""What a child process imports to have an app with all of its tasks, and what else the worker gives to it.

`AppSource.find` and `child_setup` run in the worker, `AppSource.load` in the child.
"""

from __future__ import annotations

import dataclasses
import importlib
import operator
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from asyncq import logs
from asyncq.system.main_module import is_script, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq.app import AsyncQ

NO_APP = 113
"""The exit code of a process that could not import the app. Hardly any body ends its process with it."""
WORKER_FAILED = 114
"""The exit code of a process in which the worker failed and no job, for example because of its lifespan."""


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where an app can be imported.

    Attributes:
        target: `module:attribute` of the app.
        modules: the modules that hold its tasks.
        tasks: the names that the app must have after the import; if empty, any app is accepted.
    """

    target: str
    modules: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    @classmethod
    def find(cls, app: AsyncQ) -> AppSource | None:
        """Searches the modules of this process for the app.

        Returns None if no module has the app as an attribute, or if a task stands in the script: to import
        the script would run the program again. Only another process can tell whether it can import the
        modules.
        """
        functions = [task.function for task in app.tasks.values()]
        modules = {module for one in functions if (module := getattr(one, "__module__", None)) is not None}
        target = _target_of(app, sorted(modules))
        if target is None or any(is_script(module) for module in modules):
            return None
        return cls(target, tuple(sorted(modules)), tuple(app.tasks))

    def load(self) -> AsyncQ:
        """Imports the app and its tasks. It raises whatever a module raises.

        Raises:
            LookupError: the app lacks a task after the import.
        """
        module, _, attribute = self.target.partition(":")
        app: AsyncQ = operator.attrgetter(attribute)(importlib.import_module(module))
        for name in self.modules:
            importlib.import_module(name)
        for task in self.tasks:
            if task not in app.tasks:
                raise LookupError(f"{self.target} has no task {task!r} after its modules were imported")
        return app


def _target_of(app: AsyncQ, first: Iterable[str]) -> str | None:
    """Returns `module:attribute` of the app, or None if no module has it.

    Args:
        app: the app.
        first: modules that are imported anyway, searched first. Some of the others may have been loaded from
            a file, under a name that nobody can import.
    """
    for name in (*first, *sys.modules):
        module = sys.modules.get(name)
        # `__dict__` and not `getattr`: a module that imports itself on first use must not do so now.
        attributes = module.__dict__ if isinstance(module, ModuleType) and not is_script(name) else {}
        for attribute, value in list(attributes.items()):
            if value is app:
                return f"{name}:{attribute}"
    return None


def child_setup(app: AsyncQ, target: str | None, url: str) -> dict[str, Any]:
    """Makes the setup of a child. It goes through a pipe and not into arguments: the URL may hold a password,
    and the settings may hold secrets.

    Args:
        app: the app whose jobs the child runs.
        target: `module:attribute` of the app; None if the worker was given none.
        url: the URL of the server. The app's own URL will not do: `memory://` would be another server in the
            child.
    """
    settings = {**dataclasses.asdict(app.settings), "url": url, "strict": False}
    if not settings["secrets"]:
        del settings["secrets"]  # an empty list would be refused
    return {**surroundings(), "target": target, "settings": settings, "logging": logs.for_children()}
