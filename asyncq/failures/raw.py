"""Reads and writes what exceptions and their classes hold, without running any code of these classes.

A class may define `__cause__`, `args`, `__setattr__` or a metaclass as it likes, and such code may raise, lie
or have side effects. The functions here are the descriptors of `BaseException` and `type` themselves, which
run none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EXCEPTION: Final = vars(BaseException)
_GROUP: Final = vars(BaseExceptionGroup)
_TYPE: Final = vars(type)
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, not a static struct of C

args_of: Final[Callable[[BaseException], tuple[Any, ...]]] = _EXCEPTION["args"].__get__
set_args: Final[Callable[[BaseException, tuple[Any, ...]], None]] = _EXCEPTION["args"].__set__
dict_of: Final[Callable[[BaseException], dict[Any, Any]]] = _EXCEPTION["__dict__"].__get__
cause_of: Final[Callable[[BaseException], BaseException | None]] = _EXCEPTION["__cause__"].__get__
set_cause: Final[Callable[[BaseException, BaseException], None]] = _EXCEPTION["__cause__"].__set__
context_of: Final[Callable[[BaseException], BaseException | None]] = _EXCEPTION["__context__"].__get__
hides_context: Final[Callable[[BaseException], bool]] = _EXCEPTION["__suppress_context__"].__get__
trace_of: Final[Callable[[BaseException], Any]] = _EXCEPTION["__traceback__"].__get__

members_of: Final[Callable[[BaseException], tuple[BaseException, ...]]] = _GROUP["exceptions"].__get__
group_message_of: Final[Callable[[BaseException], str]] = _GROUP["message"].__get__

module_of: Final[Callable[[type], Any]] = _TYPE["__module__"].__get__
qualname_of: Final[Callable[[type], str]] = _TYPE["__qualname__"].__get__
mro_of: Final[Callable[[type], tuple[type, ...]]] = _TYPE["__mro__"].__get__
names_in: Final[Callable[[type], dict[str, Any]]] = _TYPE["__dict__"].__get__
_base_of: Final[Callable[[type], type]] = _TYPE["__base__"].__get__
_flags_of: Final[Callable[[type], int]] = _TYPE["__flags__"].__get__
attribute_of: Final[Callable[[type, str], Any]] = type.__getattribute__


def is_heap_type(cls: type) -> bool:
    """Returns whether the class was made at run time; False for a class that is compiled into C code."""
    return bool(_flags_of(cls) & _HEAP_TYPE)


def solid_base(cls: type) -> type:
    """Returns the class in C that decides the memory layout of the instances: its `__new__` makes them."""
    while is_heap_type(cls):
        cls = _base_of(cls)
    return cls


def defines(cls: type[BaseException], name: str) -> bool:
    """Returns whether the class or a base class defines the name, other than `BaseException` and `object`."""
    return any(
        name in names_in(each) for each in mro_of(cls) if each is not BaseException and each is not object
    )
