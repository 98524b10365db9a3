"""Finds the app for a command: `module:attribute`, or just `module`.

The name comes from the command line, `ASYNCQ_APP` or pyproject.toml. Importing the module runs the user's
code on the main thread, with the working directory first on `sys.path`. An error there becomes a `CliError`
that names the user's line.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import operator
import pkgutil
import sys
import tomllib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq import config
from asyncq.app import AsyncQ
from asyncq.cli.exits import CliError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from asyncq.cli.invocation import Invocation


_CONNECT_TIMEOUT = 3.0
"""How many seconds a command tries to reach the server: a person waits for it."""


def load(target: str | None, invocation: Invocation) -> AsyncQ:
    """Finds the app, and puts the settings of the command line over its own.

    Args:
        target: `module:attribute` or `module`; None for the app that `--app`, `ASYNCQ_APP` or pyproject.toml
            names.
        invocation: the global options.

    Raises:
        CliError: there is no such app, or its module cannot be imported.
    """
    named = target or configured(invocation)
    if named is None:
        raise CliError(
            "which app?",
            "write asyncq worker module:app, or set ASYNCQ_APP, or [tool.asyncq] app",
            Code.CONFIGURATION,
        )
    app = find(named)
    reconfigure(app, invocation.settings)
    return app


def full_name(target: str, app: AsyncQ) -> str:
    """Returns `module:attribute` for an app that was found by a target, which may lack the attribute."""
    if ":" in target:
        return target
    return next(f"{target}:{name}" for name, value in _apps(sys.modules[target]).items() if value is app)


def load_or_bare(invocation: Invocation) -> AsyncQ:
    """Returns the app that `--app`, `ASYNCQ_APP` or pyproject.toml names, else a bare app without tasks."""
    if configured(invocation) is not None:
        return load(None, invocation)
    app = bare()
    reconfigure(app, invocation.settings)
    return app


def prepared(invocation: Invocation) -> tuple[Invocation, AsyncQ]:
    """Begins a command that needs the server and no tasks. Returns the global options, and the app to open.

    Raises:
        CliError: the app that is named cannot be imported.
    """
    invocation.begin()
    app = load_or_bare(invocation)
    use_short_timeouts(app)
    return invocation, app


def bare(**settings: Any) -> AsyncQ:
    """Makes an app with the settings and the embedded server of the project around the working directory.

    Raises:
        CliError: a setting does not fit.
    """
    try:
        app = AsyncQ(**settings)
        # This file makes the app, so it would else belong to the folder in which asyncq is installed.
        app.made_in = None
        app.reconfigure(**dataclasses.asdict(config.load(settings, project_root=Path.cwd())))
    except ValueError as error:
        raise CliError(str(error), code=Code.CONFIGURATION) from error
    return app


def configured(invocation: Invocation) -> str | None:
    """Returns the app's name from `--app` or `ASYNCQ_APP` (typer reads it), else from pyproject.toml."""
    if invocation.app:
        return invocation.app
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            try:
                name: str | None = (
                    tomllib.loads(file.read_text("utf-8")).get("tool", {}).get("asyncq", {}).get("app")
                )
            except (OSError, ValueError) as error:
                raise CliError(f"{file} cannot be read: {error}", code=Code.CONFIGURATION) from error
            return name
    return None


def reconfigure(app: AsyncQ, given: Mapping[str, Any]) -> None:
    """Puts settings over those of an app that is not open yet: a flag wins over the code.

    Raises:
        CliError: a value does not fit.
    """
    try:
        app.reconfigure(**given)
    except ValueError as error:
        raise CliError(str(error), code=Code.CONFIGURATION) from error
    if not is_local(app):
        from asyncq.broker.transport.connection import parse  # imports redis-py

        parse(app.settings.url)


def use_short_timeouts(app: AsyncQ) -> None:
    """Shortens how long a command tries to reach the server, unless `operation_timeout` is set."""
    default = type(app.settings)().operation_timeout
    if app.settings.operation_timeout == default:
        app.reconfigure(operation_timeout=_CONNECT_TIMEOUT)


def is_local(app: AsyncQ) -> bool:
    """Returns whether the app's server is an embedded one, which only processes of this machine can reach."""
    return app.settings.url.startswith(("embedded://", "memory://"))


def find(target: str) -> AsyncQ:
    """Returns the app that `module:attribute` names; without an attribute, the only app, or `app`.

    Raises:
        CliError: there is no such module or app, or the module cannot be imported.
    """
    name, _, attribute = target.partition(":")
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        near = name.removesuffix(".py").replace("/", ".").strip(".")
        hint = f"did you mean {near + ':' + (attribute or 'app')!r}?" if name != near else "write module:app"
        raise CliError(f"{name!r} is not the name of a module", hint, Code.CONFIGURATION)
    module = _imported(name)
    return _attribute(module, attribute) if attribute else _only_app(module)


def _imported(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise _no_module(name, error.name) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _no_module(name: str, missing: str) -> CliError:
    parent, _, last = missing.rpartition(".")
    guess = _dotted(name, parent) or _near_module(name, parent, last)
    hint = f"did you mean {guess!r}?" if guess else _apps_hint(sys.modules[parent], last) if parent else ""
    return CliError(
        f"cannot import {name!r}: no module named {missing!r} (looked in {Path.cwd()}, first on sys.path)",
        hint,
        Code.CONFIGURATION,
    )


def _dotted(name: str, parent: str) -> str:
    """Returns `module:attribute` for an app given as `module.attribute`, as in Celery; else nothing."""
    path = name.removeprefix(f"{parent}.")
    try:
        found = operator.attrgetter(path)(sys.modules[parent]) if parent else None
    except AttributeError:
        return ""
    return f"{parent}:{path}" if isinstance(found, AsyncQ) else ""


def _near_module(name: str, parent: str, last: str) -> str:
    # A module that is no package has no folder.
    folders = list(getattr(sys.modules[parent], "__path__", ())) if parent else [str(Path.cwd())]
    near = difflib.get_close_matches(last, [module.name for module in pkgutil.iter_modules(folders)], n=1)
    if not near:
        return ""
    begin = f"{parent}." if parent else ""
    return begin + near[0] + name.removeprefix(begin + last)


def _broken(name: str, error: BaseException) -> CliError:
    """Makes the error for a module that exists and cannot be imported. The hint is the failing line, in the
    user's code if the error went through it.
    """
    reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
    if isinstance(error, SyntaxError) and error.filename:
        return CliError(
            f"cannot import {name!r}: {reason}", f"at {error.filename}:{error.lineno}", Code.CONFIGURATION
        )
    here = str(Path.cwd())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ][2:]  # the first two frames are those of this file and of importlib
    own = [
        frame for frame in frames if frame.filename.startswith(here) and "site-packages" not in frame.filename
    ]
    where = (own or frames)[-1:]
    hint = "\n".join(f"at {frame.filename}:{frame.lineno}: {frame.line}" for frame in where)
    if isinstance(error, SystemExit):
        reason = "it ended the process while it was imported"
    return CliError(f"cannot import {name!r}: {reason}", hint, Code.CONFIGURATION)


def _attribute(module: ModuleType, path: str) -> AsyncQ:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise CliError(
                f"{module.__name__!r} has no {path!r}", _apps_hint(module, path), Code.CONFIGURATION
            )
        found = getattr(found, part)
    if not isinstance(found, AsyncQ):
        kind = type(found).__name__
        raise CliError(
            f"{module.__name__}:{path} is not an AsyncQ app, it is of type {kind}",
            _apps_hint(module),
            Code.CONFIGURATION,
        )
    return found


def _only_app(module: ModuleType) -> AsyncQ:
    apps = _apps(module)
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if "app" in apps:
        return apps["app"]
    what = f"holds {len(apps)} apps" if apps else "holds no AsyncQ app"
    raise CliError(
        f"{module.__name__!r} {what}", _apps_hint(module) or "make one: app = AsyncQ()", Code.CONFIGURATION
    )


def _apps(module: ModuleType) -> dict[str, AsyncQ]:
    return {name: value for name, value in vars(module).items() if isinstance(value, AsyncQ)}


def _apps_hint(module: ModuleType, near: str = "") -> str:
    names = list(_apps(module))
    close = difflib.get_close_matches(near, names, n=1)
    if close:
        return f"did you mean {module.__name__ + ':' + close[0]!r}?"
    return f"there is {', '.join(f'{module.__name__}:{name}' for name in names)}" if names else ""
