"""Makes the `AsyncQ` app of a backend, from its entry in `TASKS`: one app in a process for each entry.

Django makes a backend for each thread and each asynchronous context. All of them use the same app, so that
they share its connections.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django import conf
from django.core.exceptions import ImproperlyConfigured

from asyncq import config
from asyncq.app import AsyncQ
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OWN: Final = frozenset({"app", "enqueue_on_commit", "modules"})
"""The options of a backend that are no settings of the app."""

_apps: dict[str, AsyncQ] = {}
_lock = threading.Lock()


def app_of(alias: str, options: Mapping[str, Any], queues: Sequence[str]) -> AsyncQ:
    """Returns the app of a backend. The first call in a process makes or imports it.

    Args:
        alias: the alias of the backend in `TASKS`.
        options: its `OPTIONS`.
        queues: its `QUEUES`, in their order.

    Raises:
        ImproperlyConfigured: an option is not known, or does not fit; or there is no such app.
    """
    given = options.get("app")
    if isinstance(given, AsyncQ):
        return given
    if given is not None:
        return _imported(alias, given)
    key = repr((alias, sorted(options.items()), queues))  # a test may override `TASKS`
    with _lock:
        if key not in _apps:
            _apps[key] = _made(alias, options, queues)
        return _apps[key]


def imported_app(target: str) -> AsyncQ:
    """Returns the app that `module:attribute` names.

    Raises:
        ImproperlyConfigured: there is no such module, or no app of that name in it.
    """
    module, _, attribute = target.partition(":")
    try:
        app: Any = getattr(importlib.import_module(module), attribute or "app")
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"the app {target!r} cannot be imported: {error}") from error
    if not isinstance(app, AsyncQ):
        raise ImproperlyConfigured(f"{target!r} is not an AsyncQ app, but {brief(app)}")
    return app


def _imported(alias: str, target: Any) -> AsyncQ:
    if not isinstance(target, str):
        raise ImproperlyConfigured(
            f"TASKS[{alias!r}]: OPTIONS['app'] is 'module:attribute', or an AsyncQ app, not {brief(target)}"
        )
    try:
        return imported_app(target)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"TASKS[{alias!r}]: {error}") from error


def _made(alias: str, options: Mapping[str, Any], queues: Sequence[str]) -> AsyncQ:
    given = {name: value for name, value in options.items() if name not in _OWN}
    given.setdefault("result_extended", True)  # a result of Django shows the arguments of its call
    if queues and "default" not in queues:
        given.setdefault("default_queue", queues[0])
    names = {field.name for field in dataclasses.fields(config.Settings)}
    file = _settings_file()
    try:
        app = AsyncQ(**given)
        # This file makes the app, so it would else belong to the folder in which asyncq is installed.
        app.made_in = file
        explicit = {name: value for name, value in given.items() if name in names}
        folder = Path.cwd() if file is None else Path(file).resolve().parent
        app.reconfigure(**dataclasses.asdict(config.load(explicit, project_root=folder)))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"TASKS[{alias!r}]: OPTIONS: {error}") from error
    return app


def _settings_file() -> str | None:
    """Returns the file of the site's settings. The embedded server of a project is found from there."""
    module = sys.modules.get(getattr(conf.settings, "SETTINGS_MODULE", None) or "")
    return getattr(module, "__file__", None)
