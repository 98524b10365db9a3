"""The exception of a task as data (`Failure`): prints it as Python does, and makes the exception again."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any, Final

from asyncq.errors import RemoteTraceback
from asyncq.failures import raw
from asyncq.failures.rebuilding import rebuilt, rebuilt_group
from asyncq.failures.texts import full_name

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """An exception as data. Two failures may share a cause or a member; that is the same `Failure` then.

    Attributes:
        module: where the class is defined.
        qualname: the name of the class there.
        message: what `str()` of the exception gave; of a group, its message.
        args: its `args`; None if they could not travel.
        attributes: its attributes by their names, as far as they could travel.
        missing: the names of the attributes that could not travel.
        bases: module and name of each base class, the nearest first.
        notes: its notes.
        traceback: the formatted traceback of this exception alone, without its causes.
        raised: the traceback of where it was raised first, if a task let the failure of another task pass;
            else empty.
        is_cut: whether `message` is shorter than what the exception gave.
        cause: the exception from which it was raised.
        context: the exception that was being handled when it was raised.
        suppress_context: whether `context` must not be printed.
        members: the members of a group; None for any other exception.
    """

    module: str
    qualname: str
    message: str
    args: tuple[Any, ...] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    bases: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    traceback: str = ""
    raised: str = ""
    is_cut: bool = False
    cause: Failure | None = None
    context: Failure | None = None
    suppress_context: bool = False
    members: tuple[Failure, ...] | None = None

    @property
    def type_name(self) -> str:
        """The full name of the class, as a traceback prints it."""
        return full_name(self.module, self.qualname)

    def formatted(self) -> str:
        """Formats the failure as Python prints an exception: its cause or context first, the members of a
        group last. As Python does, it does not print a cause or context twice.
        """
        return _Text().of(self)

    def rebuild(self) -> Exception:
        """Makes the exception again, ready to be raised. Each call makes a new one.

        The exception is of its own class under two conditions: the class is an `Exception` that this process
        has imported already, and the new instance has the same arguments, message and attributes. Otherwise
        it is a `RemoteError`, which is also an instance of the nearest base class that is imported here. A
        group becomes an `ExceptionGroup` of its members. The `__cause__` is a `RemoteTraceback`; the cause
        and context that the exception had in the task are those of the `RemoteTraceback`.

        Never raises, whatever the classes do; only a `KeyboardInterrupt` passes.
        """
        return _Rebuilding().of(self)


class _Rebuilding:
    """Makes each exception of a failure once, however many others link to it."""

    def __init__(self) -> None:
        self._made: dict[int, Exception] = {}

    def of(self, failure: Failure) -> Exception:
        known = self._made.get(id(failure))
        if known is None:
            known = self._made[id(failure)] = self._new(failure)
        return known

    def _new(self, failure: Failure) -> Exception:
        """Makes the exception of a failure. Its causes are below its `RemoteTraceback`."""
        if failure.members:
            exc = rebuilt_group(failure, [self.of(member) for member in failure.members])
        else:
            exc = rebuilt(failure)
        remote = RemoteTraceback(failure.traceback or f"{failure.type_name}: {failure.message}")
        if failure.context is not None:
            remote.__context__ = self.of(failure.context)
        if failure.cause is not None:
            remote.__cause__ = self.of(failure.cause)
        remote.__suppress_context__ = failure.suppress_context
        # Not by the class's own `__setattr__`: that of a frozen dataclass refuses.
        raw.set_cause(exc, remote)
        if failure.notes:
            raw.dict_of(exc)["__notes__"] = list(failure.notes)
        return exc


class _Text:
    """Formats each exception of a failure at most once as a cause or context, and once as a member."""

    def __init__(self) -> None:
        self._above: set[int] = set()
        self._members: set[int] = set()

    def of(self, failure: Failure) -> str:
        self._above.add(id(failure))
        text = failure.traceback or f"{failure.type_name}: {failure.message}\n"
        above, link = failure.cause, _CAUSE
        if above is None and not failure.suppress_context:
            above, link = failure.context, _CONTEXT
        if above is not None and id(above) not in self._above:
            text = f"{self.of(above)}\n{link}\n\n{text}"
        for number, member in enumerate(failure.members or (), 1):
            text += f"  +---------------- {number} ----------------\n"
            text += textwrap.indent(self._member(member), "    | ")
        return text

    def _member(self, failure: Failure) -> str:
        if id(failure) in self._members:
            return f"{failure.type_name}: {failure.message}\n"
        self._members.add(id(failure))
        return self.of(failure)


def add_note(exc: Exception, note: str) -> None:
    """Adds a note to an exception, also if its class refuses to set attributes (a frozen dataclass)."""
    raw.dict_of(exc).setdefault("__notes__", []).append(note)
