"""A worker in a process of its own, and sites and scripts as real processes beside it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.program import Program
from helpers.quiet import without_job_log
from helpers.signed import of_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SITES = Path(__file__).parent / "sites"
WORK = "import asyncio, tasks; asyncio.run(tasks.work())"
"""The program of a worker. It prints `ready`."""


@pytest.fixture(scope="session")
def shared_namespace() -> str:
    """One for all of these tests: they share a worker."""
    return f"web{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def environ(
    server_url: str, shared_namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    # This lives for the whole run: the fixture that clears such variables for each test comes too late.
    return {
        **{name: text for name, text in os.environ.items() if not name.startswith(("ASYNCQ_", "PYTHON"))},
        **of_secrets(),
        "ASYNCQ_URL": server_url,
        "ASYNCQ_NAMESPACE": shared_namespace,
        "PYTHONPATH": without_job_log(tmp_path_factory.mktemp("quiet"), SITES),
    }


@pytest.fixture(scope="module")  # not for the whole run: other tests cut every connection of the server
def worker(environ: dict[str, str]) -> Iterator[Program]:
    program = Program(["-c", WORK], SITES, environ)
    assert program.first_line() == "ready"
    yield program
    status, errors = program.stop()
    program.close()
    assert (status, errors) == (0, "")


@pytest.fixture(scope="module")  # the tests of a file share its site
def start(environ: dict[str, str], worker: Program) -> Iterator[Callable[..., Program]]:
    """Starts a program beside the worker: a file of `sites` with its arguments, a script given as text, or
    `"worker"`. Variables of its environment may follow.
    """
    programs = []

    def start(what: str, *arguments: str, **variables: str) -> Program:
        script = WORK if what == "worker" else what
        words = [what, *arguments] if what.endswith(".py") else ["-c", script]
        program = Program(words, SITES, {**environ, **variables})
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.close()


@pytest.fixture(scope="session")
def django_folder() -> Path:
    return Path(__file__).parent / "django_project"


@pytest.fixture(scope="module")
def django_environ(
    server_url: str, tmp_path_factory: pytest.TempPathFactory, django_folder: Path
) -> dict[str, str]:
    """The environment of a site with a database and a namespace of its own. The database has its tables."""
    folder = tmp_path_factory.mktemp("django")
    environ = {
        **{name: text for name, text in os.environ.items() if not name.startswith(("ASYNCQ_", "PYTHON"))},
        **of_secrets(),
        "DJANGO_SETTINGS_MODULE": "django_settings",
        "PYTHONPATH": without_job_log(folder / "quiet"),
        "SHOP_DATABASE": str(folder / "shop.sqlite3"),
        "SHOP_NAMESPACE": f"django{uuid.uuid4().hex[:12]}",
        "SHOP_SERVER": server_url,
    }
    Program(["manage.py", "migrate", "--run-syncdb", "--verbosity", "0"], django_folder, environ).end()
    return environ


@pytest.fixture(scope="module")
def django_program(django_environ: dict[str, str], django_folder: Path) -> Iterator[Callable[..., Program]]:
    """Starts a Python program beside the site."""
    programs = []

    def start(*words: str, folder: Path = django_folder) -> Program:
        programs.append(Program([*words], folder, django_environ))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


@pytest.fixture(scope="module")
def manage(django_program: Callable[..., Program]) -> Callable[..., Program]:
    """Starts `manage.py` with these words."""

    def start(*words: str) -> Program:
        return django_program("manage.py", *words)

    return start
