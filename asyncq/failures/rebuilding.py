"""Makes an exception again from a `Failure`: the exception itself if an equal one can be made, otherwise a
`RemoteError`. Runs where a result is fetched, on any thread.

The data may be written by anybody. Nothing is imported, and nothing is called but `__new__`, `__init__` and
`__str__` of an `Exception` that is imported already.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import RemoteError, RemoteOrigin
from asyncq.failures import fields, lookup, plain, raw, validation
from asyncq.failures.attributes import give
from asyncq.failures.remote import remote_error
from asyncq.failures.texts import cut, message_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.failures.failure import Failure

# The texts of these are made of the arguments alone.
_PLAIN_STR: Final = (BaseException.__str__, KeyError.__str__)
_HEAD: Final = 50
"""So many characters at the beginning of a message that was cut are compared."""


def rebuilt(failure: Failure) -> Exception:
    """Returns the exception itself if an equal one can be made, else the `RemoteError` in its place."""
    cls = lookup.rebuildable(failure.module, failure.qualname)
    if cls is not None and cls is not RemoteError:
        made = _made(cls, failure)
        if made is not None:
            return made
    origin = RemoteOrigin(
        type_name=failure.type_name,
        traceback=failure.raised or failure.traceback,
        message=failure.message,
        attributes=failure.attributes,
        names=((failure.module, failure.qualname), *failure.bases),
        has_args=failure.args is not None,
        left_out=failure.missing,
    )
    return remote_error(origin, (failure.message,) if failure.args is None else failure.args)


def rebuilt_group(failure: Failure, members: list[Exception]) -> Exception:
    """Returns a group of its own class, or of the nearest base class that takes the members."""
    for module, qualname in ((failure.module, failure.qualname), *failure.bases):
        cls = lookup.find(module, qualname)
        if cls is not None and issubclass(cls, ExceptionGroup):
            made = _made_group(cls, failure, members)
            if made is not None:
                return made
    return _with_attributes(ExceptionGroup(failure.message, members), failure)


def _made(cls: type[Exception], failure: Failure) -> Exception | None:
    """Returns the exception itself; None if no equal one can be made."""
    if validation.is_one([failure.module, failure.qualname]):
        made = _tried(lambda: validation.rebuilt(cls, failure.attributes, failure.message))
        if made is not None:
            raw.set_args(made, failure.args or ())  # pydantic has put its constructor's arguments there
        return made
    args = failure.args
    if args is None or issubclass(cls, BaseExceptionGroup) or not fields.are_sound(cls, args):
        return None
    made = _tried(lambda: _by_constructor(cls, args, failure))
    return _tried(lambda: _by_new(cls, args, failure)) if made is None else made


def _tried(make: Callable[[], Exception | None]) -> Exception | None:
    """Returns what `make` makes; None if the code of the class raised."""
    try:
        return make()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  a constructor may refuse in any way; RemoteError takes its place
        return None


def _by_constructor(cls: type[Exception], args: tuple[Any, ...], failure: Failure) -> Exception | None:
    """Makes the exception by a call of its class; returns None if it is not what was sent."""
    # By `type.__call__`: a metaclass may have a `__call__` that does anything. The class is called only once,
    # for a constructor may have side effects.
    made: Any = type.__call__(cls, *args)
    if type(made) is not cls:
        return None
    fields.write_all_in_c(made, failure.attributes)  # the `str()` of an OSError shows its `filename`
    if not _says(made, args, failure):
        return None
    is_changed = give(made, failure.attributes, failure.missing)
    return None if is_changed and not _says(made, args, failure) else made


def _by_new(cls: type[Exception], args: tuple[Any, ...], failure: Failure) -> Exception | None:
    """Makes the exception without its constructor; returns None if it is not what was sent."""
    # The constructor does not run, so the instance has only the attributes that were sent. A `__getattr__`
    # that reads another attribute would call itself without end.
    if raw.defines(cls, "__getattr__") or raw.defines(cls, "__getattribute__"):
        return None
    made: Any = raw.attribute_of(cls, "__new__")(cls, *args)
    if type(made) is not cls:
        return None
    raw.set_args(made, args)  # some constructors in C set them only in `__init__`
    give(made, failure.attributes, failure.missing)
    return made if _says(made, args, failure) else None


def _says(made: Exception, args: tuple[Any, ...], failure: Failure) -> bool:
    """Returns whether the exception has the arguments and the message that were sent."""
    found = raw.args_of(made)
    if not plain.is_same(args, found) and not plain.is_same(args, plain.plain(found)):
        return False
    if not fields.is_sound(made):
        return False
    message = message_of(made)
    if failure.is_cut:
        return len(message) > _HEAD and message[:_HEAD] == failure.message[:_HEAD]
    if cut(message, 2**31) == failure.message:
        return True
    # The repr of a set differs from process to process.
    return raw.attribute_of(type(made), "__str__") in _PLAIN_STR and plain.has_set(args)


def _made_group(cls: type[Exception], failure: Failure, members: list[Exception]) -> Exception | None:
    """Makes a group of this class; returns None if the class does not take the members."""

    def by_constructor() -> Exception | None:
        return type.__call__(cls, failure.message, members)  # type: ignore[no-any-return]

    def by_new() -> Exception | None:
        return raw.attribute_of(cls, "__new__")(cls, failure.message, members)  # type: ignore[no-any-return]

    def by_base() -> Exception | None:
        # For a class whose constructor takes other arguments. The loop below checks what came out.
        return BaseExceptionGroup.__new__(cls, failure.message, members)  # type: ignore[type-var]

    for make in (by_constructor, by_new, by_base):
        made = _tried(make)
        if made is None or type(made) is not cls or raw.group_message_of(made) != failure.message:
            continue
        found = raw.members_of(made)
        if len(found) == len(members) and all(map(operator.is_, found, members)):
            return _tried(lambda group=made: _with_attributes(group, failure))  # type: ignore[misc]
    return None


def _with_attributes(made: Exception, failure: Failure) -> Exception:
    give(made, failure.attributes, failure.missing)
    return made
