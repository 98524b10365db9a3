"""The script of this process: under which name another process finds the module that is `__main__` here.

A script is `__main__` in the process that runs it. A worker imports the same file under its own name, and a
process of `executor="process"` runs it again as `MAIN_AGAIN`. So a task or an exception class of a script has
the same name everywhere: the name that it has where the file is imported. Nothing here imports a module.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Final

MAIN_AGAIN: Final = "__asyncq_main__"
"""The name of a script in a process that runs it again to have its tasks. It is not `__main__`, so the block
under `if __name__ == "__main__"` does not run."""

_SCRIPT_NAMES: Final = frozenset({"__main__", MAIN_AGAIN, "__mp_main__"})
"""`__mp_main__` is its name in children of `multiprocessing`."""


def import_name(module: str) -> str:
    """Returns the name by which another process imports a module. The script's name is that of its file.

    `__main__` stays `__main__` where there is no file, as in a notebook.

    Example:
        >>> import_name("shop.tasks")
        'shop.tasks'
    """
    if module not in _SCRIPT_NAMES:
        return module
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return run_as() or (Path(file).stem if isinstance(file, str) and file else "__main__")


def run_as() -> str | None:
    """Returns the name under which the module that `python -m` runs can be imported; None without one."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return None if spec is None else str(spec.name)


def is_script(module: str) -> bool:
    """Whether the module of the script has this name in this process."""
    return module in _SCRIPT_NAMES


def surroundings() -> dict[str, list[str]]:
    """Returns what another process needs to import the modules of this one: `path` and `argv`, as text.

    A program may put anything into these lists. Python itself skips entries of `sys.path` that are no text,
    such as a `Path`.

    Example:
        >>> sorted(surroundings())
        ['argv', 'path']
    """
    return {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": [str(argument) for argument in sys.argv],
    }


def task_module(module: str) -> str:
    """Returns the module as it stands in names of tasks.

    It is `import_name`, but `shop` for `shop.__main__`, which `python -m shop` runs.

    Example:
        >>> task_module("shop.__main__")
        'shop'
    """
    return import_name(module).removesuffix(".__main__")


def modules_of(name: str) -> list[ModuleType]:
    """Returns the loaded modules of that name, without importing anything.

    The module that is imported under the name comes first. The script comes second, if that is its name. Both
    exist if a script has its own file imported, as main.py does with `uvicorn.run("main:site")`. Then the
    code that waits for results is in the imported one.
    """
    found = [sys.modules.get(name)]
    if name in _SCRIPT_NAMES or name == import_name("__main__"):
        found.append(sys.modules.get("__main__"))
    return [module for module in found if isinstance(module, ModuleType)]
