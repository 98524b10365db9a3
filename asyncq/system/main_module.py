"""The script of this process: what another process calls the module that is `__main__` here.

A script is `__main__` in the process that runs it. A worker imports the same file under its own name, and a
process of `executor="process"` runs it again as `MAIN_AGAIN`. So a task or an exception class of a script has
the same name everywhere: the one that it has where the file is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Final

MAIN_AGAIN: Final = "__asyncq_main__"
"""What a script is called in a process that runs it again for the sake of its tasks: not `__main__`, so that
its `if __name__ == "__main__"` does not run."""

_SCRIPT_NAMES: Final = frozenset({"__main__", MAIN_AGAIN, "__mp_main__"})
"""The last one is what children of `multiprocessing` call it."""


def import_name(module: str) -> str:
    """Returns the name by which another process imports a module: the script's is that of its file.

    `__main__` stays what it is where there is no file, as in a notebook.

    Example:
        >>> import_name("shop.tasks")
        'shop.tasks'
    """
    if module not in _SCRIPT_NAMES:
        return module
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return run_as() or (Path(file).stem if isinstance(file, str) and file else "__main__")


def run_as() -> str | None:
    """Returns the name by which the module that `python -m` runs can be imported; None if it runs none."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return None if spec is None else str(spec.name)


def is_script(module: str) -> bool:
    """Says whether this is a name that the module of the script has in this process."""
    return module in _SCRIPT_NAMES


def surroundings() -> dict[str, list[str]]:
    """Returns what another process needs to import what this one has: `path` and `argv`, as text.

    A program may put anything into these lists. Python itself passes over entries of `sys.path` that are no
    text, such as a `Path`.

    Example:
        >>> sorted(surroundings())
        ['argv', 'path']
    """
    return {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": [str(argument) for argument in sys.argv],
    }


def task_module(module: str) -> str:
    """Returns the module as names of tasks have it: as `import_name`, but `shop` for `shop.__main__`, which
    `python -m shop` runs.

    Example:
        >>> task_module("shop.__main__")
        'shop'
    """
    return import_name(module).removesuffix(".__main__")


def modules_of(name: str) -> list[ModuleType]:
    """Returns what this process has loaded of the module of that name, without importing anything.

    The module that is imported under the name comes first. The script comes second, if that is its name. Both
    exist where a script has its own file imported, as main.py with `uvicorn.run("main:site")` has: the code
    that waits for results is the imported one there.
    """
    found = [sys.modules.get(name)]
    if name in _SCRIPT_NAMES or name == import_name("__main__"):
        found.append(sys.modules.get("__main__"))
    return [module for module in found if isinstance(module, ModuleType)]
