"""Finds the exception class of a name among the modules that this process has imported already. A name that
came over the wire never imports anything, and runs no code.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from asyncq.failures import raw
from asyncq.system.main_module import modules_of

_CONTROL_FLOW: Final = (StopIteration, StopAsyncIteration)


def find(module_name: str, qualname: str) -> type[Exception] | None:
    """Returns the exception class of a name; None if it is not imported here, or is no `Exception`."""
    classes = (_find_in(module, qualname) for module in modules_of(module_name))
    return next((cls for cls in classes if cls is not None), None)


def _find_in(module: ModuleType, qualname: str) -> type[Exception] | None:
    """Returns the class of that name in a module, or None. Reads dictionaries: `getattr` could run a lazy
    import.
    """
    found: Any = module
    for part in qualname.split("."):
        # By `type` and not by `isinstance`: a proxy object in a module may load something when it is asked
        # for its `__class__`.
        if issubclass(type(found), ModuleType):
            found = object.__getattribute__(found, "__dict__").get(part)
        elif issubclass(type(found), type):
            found = raw.names_in(found).get(part)
        else:
            return None
    return found if issubclass(type(found), type) and issubclass(found, Exception) else None


def rebuildable(module_name: str, qualname: str) -> type[Exception] | None:
    """Returns the exception class as `find` does, but None for `StopIteration` and `StopAsyncIteration`: if
    one of them were raised in a waiting coroutine or generator, its caller would take that for the end.
    """
    found = find(module_name, qualname)
    return None if found is None or issubclass(found, _CONTROL_FLOW) else found
