"""Reads and sets the attributes of an exception: its `__dict__`, its fields in C, and its slots. Never
touches a property, so no code of the exception's class runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.failures import fields, plain, raw

if TYPE_CHECKING:
    from collections.abc import Collection


def attributes_of(exc: BaseException) -> dict[str, Any]:
    """Returns all attributes by their names, whether they can travel or not."""
    known = fields.fields_of(type(exc))
    found = fields.read(exc, known)
    for name, value in list(dict.items(raw.dict_of(exc))):
        if type(name) is str and name not in known and not fields.is_dunder(name):
            found[name] = value
    return found


def give(exc: BaseException, attributes: dict[str, Any], left_out: Collection[str]) -> bool:
    """Makes the attributes of an exception equal to those that were sent. Returns whether it had to change
    one.

    An attribute that the constructor has set stays in three cases: it is equal to what was sent, it was left
    out when the exception was sent, or it cannot travel.

    Args:
        exc: the exception that was made again.
        attributes: those that were sent.
        left_out: the names of those that were not sent.

    Raises:
        Exception: a field does not take the value.
    """
    known = fields.fields_of(type(exc))
    own = raw.dict_of(exc)
    found = attributes_of(exc)
    is_changed = False
    for name, value in attributes.items():
        if name in found and _is_same(value, found[name]):
            continue
        is_changed = True
        if name in known:
            fields.write(exc, known[name], value)
        else:
            own[name] = value
    for name, value in found.items():
        if name in attributes or name in left_out or plain.packed(value) is None:
            continue
        is_changed = True
        if name not in known:
            del own[name]
        elif not issubclass(type(exc), UnicodeError):  # its fields were not sent: its arguments hold them
            fields.clear(exc, known[name])
    return is_changed


def _is_same(sent: Any, found: Any) -> bool:
    """Returns whether a value is what was sent, or becomes it as plain data."""
    if plain.is_same(sent, found):
        return True
    try:
        return plain.is_same(sent, plain.plain(found))
    except Exception:  # noqa: BLE001  a subclass of a container may do anything when its items are read
        return False


def set_all(exc: BaseException, attributes: dict[str, Any]) -> None:
    """Sets the attributes of an exception that has none yet. Leaves out a value that its field refuses."""
    known = fields.fields_of(type(exc))
    own = raw.dict_of(exc)
    for name, value in attributes.items():
        if name not in known:
            own[name] = value
            continue
        try:
            fields.write(exc, known[name], value)
        except Exception:  # noqa: BLE001, S112  `RemoteError.attributes` has the value all the same
            continue
