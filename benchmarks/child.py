"""The process that plays the client: runs one scenario against one system, in the system's environment.

    python benchmarks/child.py SYSTEM SCENARIO URL [--grid GRID] [--folder FOLDER]
    python benchmarks/child.py SYSTEM describe

Prints what it measured as JSON, or `{"skipped": why}`. Imports nothing but the standard library, the
harness's files, and what `requirements/harness.txt` installs; the adapter imports the rest.
"""

import argparse
import ast
import asyncio
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grid
import system
import uvloop


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("system")
    parser.add_argument("scenario")
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--grid", default="bench")
    parser.add_argument("--folder", type=Path)  # where the profiles go
    options = parser.parse_args()
    system.raise_on_sigterm()
    tree = describe(options.system) if options.scenario == "describe" else measure(options)
    json.dump(tree, sys.stdout)


def describe(name: str) -> dict[str, Any]:
    """Returns what the results say about a system."""
    found = system.load(name)
    docstring = ast.get_docstring(ast.parse((system.HERE / "adapters" / f"{name}.py").read_text())) or ""
    return {
        "settings": " ".join(docstring.split()),
        "promise": found.promise,
        "recovery": found.recovery,
        "python": platform.python_version(),
        "versions": {
            package: _version(package) for package in (*found.packages, "redis", "hiredis", "uvloop")
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the scenario, and returns its figures as a tree."""
    chosen = grid.scenarios(options.grid)[options.scenario]
    # Before the adapter is imported: a peer's app reads them once.
    os.environ.update({"BENCH_URL": options.url, **chosen.environment})
    tested = system.load(options.system)
    limit = chosen.limit
    if options.folder is not None:
        import profiled

        chosen, tested = profiled.SCENARIOS[options.scenario], profiled.Profiled(tested, options.folder)

    async def bounded() -> Any:
        # Before the parent kills this process, so that the worker is stopped properly.
        async with asyncio.timeout(limit - 10):
            return await chosen.run(tested, options.url)

    try:
        if options.folder is None:
            tree: dict[str, Any] = uvloop.run(bounded()).to_json()
        else:
            tree = profiled.run(bounded, options.folder).to_json()
    except system.Skipped as why:
        return {"skipped": str(why)}
    return tree


if __name__ == "__main__":
    main()
