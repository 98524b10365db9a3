"""What another process imports to have an app with all of its tasks, and what it is given besides."""

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


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where an app is.

    Attributes:
        target: `module:attribute`.
        modules: where its tasks are.
        tasks: the names that must be there in the end; none: whatever is there is right.
    """

    target: str
    modules: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    @classmethod
    def find(cls, app: AsyncQ) -> AppSource | None:
        """Looks through the modules of this process. None if the app is an attribute of none, or if some of
        it stands in the script: to import that would run the program again. Whether the modules can be
        imported elsewhere, only another process can tell.
        """
        functions = [task.function for task in app.tasks.values()]
        modules = {module for one in functions if (module := getattr(one, "__module__", None)) is not None}
        target = _target_of(app, sorted(modules))
        if target is None or any(is_script(module) for module in modules):
            return None
        return cls(target, tuple(sorted(modules)), tuple(app.tasks))

    def load(self) -> AsyncQ:
        """Imports the app and its tasks; may raise whatever a module raises.

        Raises:
            LookupError: a task is not there.
        """
        module, _, attribute = self.target.partition(":")
        app: AsyncQ = operator.attrgetter(attribute)(importlib.import_module(module))
        for name in self.modules:
            importlib.import_module(name)
        for task in self.tasks:
            if task not in app.tasks:
                raise LookupError(f"{self.target} has no task {task!r} when its modules have been imported")
        return app


def _target_of(app: AsyncQ, first: Iterable[str]) -> str | None:
    """A module that has the app, and the name of the app there.

    Args:
        app: to be found.
        first: modules that are imported anyway. Of the others, some may have been loaded from a file under a
            name that nobody can import.
    """
    for name in (*first, *sys.modules):
        module = sys.modules.get(name)
        # By its dictionary: a module that imports itself when it is first used must not do that now.
        attributes = module.__dict__ if isinstance(module, ModuleType) and not is_script(name) else {}
        for attribute, value in list(attributes.items()):
            if value is app:
                return f"{name}:{attribute}"
    return None


def child_setup(app: AsyncQ, target: str | None, url: str) -> dict[str, Any]:
    """Makes the set-up. It goes over a pipe and not into arguments, for the URL may hold a password.

    Args:
        app: whose jobs they are.
        target: `module:attribute` of it; None if the worker was given none.
        url: of the server itself: what the app calls `memory://` would be another one there.
    """
    settings = {**dataclasses.asdict(app.settings), "url": url, "strict": False}
    return {**surroundings(), "target": target, "settings": settings, "logging": logs.for_children()}
