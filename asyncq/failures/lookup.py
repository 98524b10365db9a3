"""Which class a name means in this process. A name that came over the wire never makes it import anything."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from asyncq.failures import raw
from asyncq.system.main_module import modules_of

_CONTROL_FLOW: Final = (StopIteration, StopAsyncIteration)


def find(module_name: str, qualname: str) -> type[Exception] | None:
    """The exception class, if it is here already."""
    classes = (_find_in(module, qualname) for module in modules_of(module_name))
    return next((cls for cls in classes if cls is not None), None)


def _find_in(module: ModuleType, qualname: str) -> type[Exception] | None:
    """The class of that name in a module. Reads dictionaries: getattr could run a lazy import."""
    found: Any = module
    for part in qualname.split("."):
        # By `type`, not `isinstance`: a proxy that stands in a module would load what it stands for.
        if issubclass(type(found), ModuleType):
            found = object.__getattribute__(found, "__dict__").get(part)
        elif issubclass(type(found), type):
            found = raw.names_in(found).get(part)
        else:
            return None
    return found if issubclass(type(found), type) and issubclass(found, Exception) else None


def rebuildable(module_name: str, qualname: str) -> type[Exception] | None:
    """The exception class, if it is here and an instance of it may be raised where somebody waits.

    A coroutine or a generator that lets a `StopIteration` out has ended in the eyes of its caller.
    """
    found = find(module_name, qualname)
    return None if found is None or issubclass(found, _CONTROL_FLOW) else found
