"""Encodes an exception into the bytes of a failure, within bounds of size, depth and number. Never raises.
May be called on any thread: a body ends on the worker's loop, in a thread or in a child process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import RemoteTraceback
from asyncq.failures import fields, plain, raw, validation
from asyncq.failures.attributes import attributes_of
from asyncq.failures.remote import is_stand_in, origin_of
from asyncq.failures.texts import (
    MAX_ARGS,
    MAX_ATTRIBUTES,
    MAX_EXCEPTIONS,
    MAX_LEFT_OUT,
    MAX_LINKS,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_NOTES,
    MAX_SHORT,
    MAX_TOTAL,
    MAX_TRACEBACK,
    base_names_of,
    cut,
    message_of,
    traceback_of,
    wire_name_of,
)
from asyncq.serializers import dumps

if TYPE_CHECKING:
    from asyncq.errors import RemoteError

_CUT_NOTE: Final = "... the exceptions that caused this one were left out"


def encode(exc: BaseException) -> bytes:
    """Encodes an exception: the name of its class, its message, arguments, attributes, notes and traceback,
    its causes, and the members of a group.

    The traceback begins below asyncq's own frames, and holds no values of local variables. A text that is too
    long is cut, and says so. If the arguments cannot travel, they are left out, and the message replaces
    them. Attributes that cannot travel are left out one by one.

    Never raises, also not for an exception whose methods raise.

    Example:
        >>> from asyncq.failures import decode
        >>> decode(encode(ValueError("no", 1))).rebuild()
        ValueError('no', 1)
    """
    try:
        encoder = _Encoder()
        encoder.add(exc, 0)
        return dumps(encoder.nodes)
    except BaseException as error:  # noqa: BLE001  the caller must learn of the failure in any case
        text = f"the exception could not be described: {type(error).__name__}"
        return dumps([{"type": wire_name_of(type(exc)), "message": text, "traceback": text}])


def encode_short(exc: BaseException) -> bytes:
    """Encodes an exception as `encode` does, in at most `MAX_SHORT` bytes: with few of its links, short
    texts, and only short arguments and attributes. Never raises.

    Example:
        >>> from asyncq.failures import decode
        >>> decode(encode_short(ValueError("no", "x" * 9000))).type_name
        'ValueError'
    """
    for exceptions in (8, 1):
        try:
            encoder = _Encoder(MAX_SHORT * 3 // 4, exceptions)
            encoder.add(exc, 0)
            data = dumps(encoder.nodes)
        except BaseException:  # noqa: BLE001  see `encode`
            break
        if len(data) <= MAX_SHORT:
            return data
    # Still too long, for it has many notes or long names: only the class, the message and the traceback.
    message = cut(message_of(exc), MAX_SHORT // 8)
    bases = base_names_of(type(exc))[:4]
    node = {"type": wire_name_of(type(exc)), "bases": bases, "message": message, "cut": True}
    return dumps([{**node, "traceback": cut(traceback_of(exc, message), MAX_SHORT // 4)}])


class _Encoder:
    """Makes a node of each exception of one failure, within the bounds.

    Args:
        bytes_left: most bytes of text, arguments and attributes; one of these takes a third at most.
        exceptions: most exceptions.

    A node comes after the nodes of all exceptions that it links to, and a link is the index of such a node.
    Two links to one exception (a member of a group that is also its context) get the same index, so the
    receiver makes one exception of it. A cycle of causes ends: the link back to an exception whose node is
    not made yet is dropped.
    """

    def __init__(self, bytes_left: int = MAX_TOTAL, exceptions: int = MAX_EXCEPTIONS) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.indexes: dict[int, int | None] = {}  # id of an exception -> its node; None while that is made
        self.bytes_left = bytes_left
        self.longest = bytes_left // 3
        self.most = exceptions

    def add(self, exc: BaseException, links: int) -> int:
        """Makes the node of an exception, behind those to which it links. Returns its index."""
        self.indexes[id(exc)] = None
        node = self.describe(exc)
        # The members first: callers catch members, so if a cycle must be cut, it is cut at a cause.
        if issubclass(type(exc), BaseExceptionGroup):
            members = [self.link(member, links) for member in raw.members_of(exc)]
            node["members"] = [member for member in members if member is not None]
            if None in members:
                node["left_out"] = members.count(None)
        cause, context = raw.cause_of(exc), raw.context_of(exc)
        if cause is not None:
            self.link_above(node, "cause", cause, links)
        if context is not None:
            self.link_above(node, "context", context, links)
        index = self.indexes[id(exc)] = len(self.nodes)
        self.nodes.append(node)
        return index

    def link_above(self, node: dict[str, Any], key: str, exc: BaseException, links: int) -> None:
        """Links a node to its cause or context. If a bound left that one out, adds a note instead."""
        is_known = id(exc) in self.indexes
        index = self.link(exc, links)
        if index is not None:
            node[key] = index
        elif not is_known:
            node["notes"] = [*(note for note in node.get("notes", ()) if note != _CUT_NOTE), _CUT_NOTE]

    def link(self, exc: BaseException, links: int) -> int | None:
        """Returns the index of the node of an exception; None for a cycle, or if a bound is reached."""
        if id(exc) in self.indexes:
            return self.indexes[id(exc)]
        if links >= MAX_LINKS or len(self.indexes) >= self.most:
            return None
        return self.add(exc, links + 1)

    def describe(self, exc: BaseException) -> dict[str, Any]:
        """Returns the node of an exception, still without its links."""
        cls = type(exc)
        message = message_of(exc)
        node = self.second_hop(exc) if is_stand_in(exc) else self.first_hop(exc, cls, message)
        notes = [self.text(note, 1024) for note in _notes_of(exc)]
        if notes:
            node["notes"] = notes
        node["traceback"] = self.text(traceback_of(exc, message), MAX_TRACEBACK)
        if raw.hides_context(exc):
            node["suppress"] = True
        return node

    def first_hop(self, exc: BaseException, cls: type[BaseException], message: str) -> dict[str, Any]:
        """Returns the node of an exception with its class, message, arguments and attributes."""
        node: dict[str, Any] = {"type": wire_name_of(cls)}
        bases = base_names_of(cls)
        if bases:
            node["bases"] = bases
        self.message(node, message)
        if not issubclass(cls, BaseExceptionGroup):
            node["args"] = self.packed(raw.args_of(exc), MAX_ARGS)
        if cls is RemoteTraceback:  # it has one attribute, and that is its argument
            node["missing"] = ["traceback"]
            return node
        attributes = validation.attributes_of(exc) if validation.is_one(node["type"]) else attributes_of(exc)
        if node.get("args") is not None:
            _drop_implied(cls, raw.args_of(exc), attributes)
        if attributes:
            self.attributes(node, attributes)
        return node

    def second_hop(self, exc: RemoteError) -> dict[str, Any]:
        """Returns the node of the exception for which a `RemoteError` stands: a task let the failure of
        another task pass.
        """
        origin = origin_of(exc)
        names = [list(name) for name in origin.names]
        node: dict[str, Any] = {"type": names[0], "bases": names[1:], "raised": origin.traceback}
        self.message(node, origin.message or "")
        args = raw.args_of(exc)
        node["args"] = self.packed(args, MAX_ARGS) if origin.has_args else None
        self.attributes(node, dict(origin.attributes), origin.left_out)
        return node

    def message(self, node: dict[str, Any], message: str) -> None:
        node["message"] = text = self.text(message, MAX_MESSAGE)
        if len(text) < len(message):
            node["cut"] = True

    def text(self, text: str, limit: int) -> str:
        shorter = cut(text, min(limit, self.longest, max(self.bytes_left, 200)))
        self.bytes_left -= len(shorter.encode())
        return shorter

    def packed(self, value: Any, limit: int) -> bytes | None:
        """Encodes a value; returns None if it cannot travel, or does not fit into what is left."""
        data = plain.packed(value)
        if data is None or len(data) > min(limit, self.longest, self.bytes_left):
            return None
        self.bytes_left -= len(data)
        return data

    def attributes(self, node: dict[str, Any], found: dict[str, Any], left_out: tuple[str, ...] = ()) -> None:
        """Puts the attributes that fit into a node, and the names of the others."""
        missing = list(left_out)
        data = self.packed(found, MAX_ATTRIBUTES)
        if data is None:
            data = self.one_by_one(found, missing)
        if len(data) > 1:
            node["attributes"] = data
        if missing:
            node["missing"] = [cut(name, MAX_NAME) for name in missing[:MAX_LEFT_OUT]]

    def one_by_one(self, found: dict[str, Any], missing: list[str]) -> bytes:
        """Encodes the attributes that fit, and appends the names of the others to `missing`."""
        bytes_left = min(MAX_ATTRIBUTES, self.longest, self.bytes_left)
        kept = {}
        for name, value in found.items():
            data = plain.packed({name: value})
            if data is not None and len(data) <= bytes_left:
                bytes_left -= len(data)
                kept[name] = value
            else:
                missing.append(name)
        return self.packed(kept, MAX_ATTRIBUTES) or b""


def _drop_implied(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    """Removes the fields of a Unicode error that are its arguments, too: the text may be long, and is sent
    once.
    """
    if cls is UnicodeDecodeError or cls is UnicodeEncodeError:
        found = tuple(map(attributes.get, fields.UNICODE))
        if len(args) == len(found) and all(map(plain.is_same, args, found)):
            for name in fields.UNICODE:
                del attributes[name]


def _notes_of(exc: BaseException) -> list[str]:
    notes = dict.get(raw.dict_of(exc), "__notes__")
    if type(notes) is not list:
        return []
    return [str.__str__(note) for note in notes[:MAX_NOTES] if isinstance(note, str)]
