"""Makes the `RemoteError` that is raised in the place of an exception that cannot be made again.

It is also an instance of the nearest class of the exception that is imported here, so that `except` catches
it: its class is made at run time and derives from both. No code of the exception's class runs for it. May be
called on any thread.
"""

from __future__ import annotations

from abc import ABCMeta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import AsyncQError, RemoteError, RemoteOrigin
from asyncq.failures import attributes, lookup, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import TypeIs

MAX_CLASSES: Final = 256
"""How many of these classes are kept: those that were used last."""

_STANDS_FOR: Final = "_stands_for"
# Not derived from these: whoever catches one of them takes it for something else than a failure of the task.
_NO_BASES: Final = (StopIteration, StopAsyncIteration, BaseExceptionGroup, AsyncQError)
# Taken from `BaseException` and `object`. The exception's class may override them, and its code would run on
# an exception whose constructor never ran.
_FROM_EXCEPTION: Final = (
    *("args", "__cause__", "__context__", "__traceback__", "__suppress_context__", "__dict__"),
    *("with_traceback", "add_note", "__getattribute__", "__setattr__", "__delattr__", "__repr__"),
)
_FROM_OBJECT: Final = (
    "__class__",
    "__eq__",
    "__ne__",
    "__hash__",
    "__format__",
    "__reduce_ex__",
    "__dir__",
    "__sizeof__",
)


def remote_error(origin: RemoteOrigin, args: tuple[Any, ...]) -> RemoteError:
    """Returns the error that is raised in the place of an exception.

    Args:
        origin: what is known of the exception.
        args: its arguments; its message, if they could not travel.
    """
    for cls in _classes(origin.names):
        try:
            return _filled(cls, origin, args)
        except Exception:  # noqa: BLE001, S112  a class in C may make its instances in another way
            continue
    return _filled(RemoteError, origin, args)


def is_stand_in(exc: BaseException) -> TypeIs[RemoteError]:
    """Returns whether the error is raised in the place of an exception. False for an error whose class a user
    has derived from `RemoteError`.
    """
    cls = type(exc)
    return cls is RemoteError or (issubclass(cls, RemoteError) and _STANDS_FOR in raw.names_in(cls))


def origin_of(error: RemoteError) -> RemoteOrigin:
    """Returns what is known of the exception in whose place the error is. Names its class in any case."""
    origin = error._origin
    names = origin.names or (_split(origin.type_name),)
    message = str(BaseException.__str__(error)) if origin.message is None else origin.message
    return origin._replace(names=names, message=message)


def _split(type_name: str) -> tuple[str, str]:
    module, _, name = type_name.rpartition(".")
    return module or "builtins", name


def _classes(names: tuple[tuple[str, str], ...]) -> Iterator[type[RemoteError]]:
    """Yields a class of errors for each class of the exception that is imported here, the nearest first."""
    for module, qualname in names:
        base = lookup.find(module, qualname)
        if base is None or base is Exception or issubclass(base, _NO_BASES):
            continue
        # Any other metaclass may run code of its own when a class is made or hashed.
        if type(base) is not type and type(base) is not ABCMeta:
            continue
        cls = _class_on(base)  # type: ignore[arg-type]
        if cls is not None:
            yield cls


@lru_cache(maxsize=MAX_CLASSES)
def _class_on(base: type[Exception]) -> type[RemoteError] | None:
    """Makes a class of errors that also derives from `base`, and runs none of its code; None if it cannot."""
    # In which of the two classes C defines a method differs between versions of Python.
    own: dict[str, Any] = {**vars(object), **vars(BaseException)}
    names = {name: own[name] for name in _FROM_EXCEPTION}
    names |= {name: vars(object)[name] for name in _FROM_OBJECT}
    names |= {
        "__module__": RemoteError.__module__,
        "__doc__": RemoteError.__doc__,
        "__str__": RemoteError.__str__,
        "__bool__": lambda _: True,
        "__getattr__": _no_attribute,
        "__reduce__": _reduced,
        _STANDS_FOR: base,
    }
    if raw.defines(base, "__del__"):
        names["__del__"] = lambda _: None
    try:
        return type("RemoteError", (RemoteError, base), names)
    except Exception:  # noqa: BLE001  the class cannot be derived from, or not together with `RemoteError`
        return None


def _no_attribute(self: RemoteError, name: str) -> Any:
    raise AttributeError(f"{self.type_name} arrived without an attribute {name!r}", name=name, obj=self)


def _filled(cls: type[RemoteError], origin: RemoteOrigin, args: tuple[Any, ...]) -> RemoteError:
    """Makes an instance of a class of errors, without its constructor."""
    # By `__new__` of the class in C that decides the layout: that of the exception's class may need
    # arguments, and must not run.
    layout: Any = raw.solid_base(cls)
    error: RemoteError = layout.__new__(cls)
    raw.set_args(error, args)
    attributes.set_all(error, origin.attributes)
    raw.dict_of(error)["_origin"] = origin
    return error


def _reduced(self: RemoteError) -> tuple[Any, ...]:
    return remote_error, (self._origin, self.args)
