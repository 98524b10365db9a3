"""The app that `manage.py asyncq_worker` runs, as `asyncq worker` finds it: `...django.worker_app:app`.

Each process of a worker imports this module: that of the command, those of `--workers`, and the children that
run jobs. `app` is made when it is asked for first. That sets Django up, imports the tasks of the site, and
lets jobs keep the database connections usable.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Final

import django
from django import conf
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules

from asyncq.integrations.django import backend_options, database_threads, django_tasks
from asyncq.integrations.django.tasks_backend import AsyncqBackend

if TYPE_CHECKING:
    from asyncq.app import AsyncQ

TARGET: Final = f"{__name__}:app"
VARIABLE: Final = "DJANGO_ASYNCQ_APP"
"""The environment variable that says which app it is: `module:attribute`, or the alias of a backend. The
command sets it, for all processes."""


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app()


@functools.cache
def _app() -> AsyncQ:
    # Also where it is set up: so the logging of the site replaces that of the command line, as for any app.
    django.setup()
    app = found(os.environ.get(VARIABLE) or chosen(None, None))
    database_threads.install()
    return app


def chosen(alias: str | None, target: str | None) -> str:
    """Returns which app the worker runs: `module:attribute`, or the alias of a backend.

    Without either, it is the backend of `TASKS` that is asyncq's, `default` before the others; else the app
    that the environment variable `ASYNCQ_APP` names.

    Raises:
        ImproperlyConfigured: there is none, or no way to tell which.
    """
    if target is not None:
        return target if ":" in target else f"{target}:app"
    aliases = _aliases()
    if alias is not None:
        if alias not in aliases:
            known = ", ".join(aliases) or "none"
            raise ImproperlyConfigured(f"TASKS has no backend of asyncq called {alias!r}: there is {known}")
        return alias
    if "default" in aliases or len(aliases) == 1:
        return "default" if "default" in aliases else aliases[0]
    if aliases:
        raise ImproperlyConfigured(f"which backend? Write --backend, with one of {', '.join(aliases)}")
    named = os.environ.get("ASYNCQ_APP")
    if not named:
        raise ImproperlyConfigured(
            "which app? Set TASKS with a backend of asyncq (Django 6), or write --app module:attribute, or "
            "set ASYNCQ_APP"
        )
    return named if ":" in named else f"{named}:app"


def found(name: str) -> AsyncQ:
    """Returns an app with all tasks of the site, by what `chosen` has returned.

    Raises:
        ImproperlyConfigured: it cannot be imported or made.
    """
    app: AsyncQ = backend_options.imported_app(name) if ":" in name else django_tasks.task_backends[name].app
    autodiscover_modules("tasks")
    for backend in _backends_of(app):
        backend.import_tasks()
    return app


def queues_of(name: str) -> list[str]:
    """Returns the queues that a worker of the app serves by default: those of the backends, then others that
    tasks of the app name.
    """
    app = found(name)
    named = [queue for backend in _backends_of(app) for queue in backend.queue_names]
    return list(dict.fromkeys([*named, *app.queues()]))


def _backends_of(app: AsyncQ) -> list[Any]:
    backends: list[Any] = [django_tasks.task_backends[alias] for alias in _aliases()]
    return [backend for backend in backends if backend.app is app]


def _aliases() -> list[str]:
    if not django_tasks.IS_THERE:
        return []
    return [
        alias
        for alias in getattr(conf.settings, "TASKS", {})
        if isinstance(django_tasks.task_backends[alias], AsyncqBackend)
    ]
