"""A stream of the fake server: entries in order, and groups whose consumers have pending entries."""

from __future__ import annotations

from dataclasses import dataclass, field

Id = tuple[int, int]
LAST: Id = (2**64 - 1, 2**64 - 1)


def parse(text: bytes, *, missing: int = 0) -> Id:
    """Parses an id. The part behind the dash is `missing` if the text has none."""
    if text == b"-":
        return (0, 0)
    if text == b"+":
        return LAST
    milliseconds, dash, number = text.partition(b"-")
    return int(milliseconds), int(number) if dash else missing


def parse_first(text: bytes) -> Id:
    """Parses the id at which a range begins. Behind a parenthesis, the id itself is excluded."""
    if not text.startswith(b"("):
        return parse(text)
    milliseconds, number = parse(text[1:])
    return milliseconds, number + 1


def text_of(id: Id) -> bytes:
    """Formats an id as the server does."""
    return b"%d-%d" % id


@dataclass(slots=True)
class Group:
    """A group of consumers of a stream, and its pending entries.

    Attributes:
        delivered: the last entry that was delivered to a consumer.
        consumers: the names of the consumers.
        pending: for each pending entry, oldest first: its consumer, since when in ms, and how often
            delivered.
    """

    delivered: Id = (0, 0)
    consumers: set[bytes] = field(default_factory=set)
    pending: dict[Id, tuple[bytes, int, int]] = field(default_factory=dict)


class Stream:
    """The entries of a stream by id, oldest first, and its groups by name."""

    def __init__(self) -> None:
        self.entries: dict[Id, list[bytes]] = {}
        self.last: Id = (0, 0)
        self.groups: dict[bytes, Group] = {}

    def add(self, id: bytes, fields: list[bytes], now: int) -> bytes:
        """Appends an entry; `*` stands for the next id.

        Raises:
            ValueError: the id is not above the last one.
        """
        if id == b"*":
            new = (now, 0) if now > self.last[0] else (self.last[0], self.last[1] + 1)
        else:
            new = parse(id)
            if new <= self.last:
                raise ValueError(
                    "The ID specified in XADD is equal or smaller than the target stream top item"
                )
        self.entries[new] = fields
        self.last = new
        return text_of(new)

    def range(self, low: bytes, high: bytes, count: int | None = None, *, newest: bool = False) -> list[Id]:
        """Returns the ids between two ids, both included unless a parenthesis stands before the first."""
        first, last = parse_first(low), parse(high, missing=LAST[1])
        found = [id_ for id_ in self.entries if first <= id_ <= last]
        return (found[::-1] if newest else found)[:count]

    def entry(self, id: Id) -> list[object]:
        """Returns an entry as the server replies it."""
        return [text_of(id), list(self.entries[id])]

    def delete(self, ids: list[bytes]) -> int:
        """Deletes entries, and returns how many there were. A deleted entry stays pending."""
        return sum(self.entries.pop(parse(id_), None) is not None for id_ in ids)

    def trim(self, kind: bytes, limit: bytes) -> int:
        """Deletes the oldest entries, down to a number (MAXLEN) or up to an id (MINID). Returns how many."""
        ids = list(self.entries)
        gone = (
            ids[: max(0, len(ids) - int(limit))]
            if kind == b"MAXLEN"
            else [i for i in ids if i < parse(limit)]
        )
        for id_ in gone:
            del self.entries[id_]
        return len(gone)

    def read(self, group: Group, consumer: bytes, count: int | None, now: int) -> list[object]:
        """Delivers entries to a consumer that were delivered to none, and returns them."""
        group.consumers.add(consumer)
        ids = [id_ for id_ in self.entries if id_ > group.delivered][:count]
        for id_ in ids:
            group.pending[id_] = (consumer, now, 1)
            group.delivered = id_
        return [self.entry(id_) for id_ in ids]

    def pending(
        self, group: Group, low: bytes, high: bytes, count: int, consumer: bytes | None, now: int
    ) -> list[object]:
        """Returns pending entries, oldest first: id, consumer, ms since its delivery, how often delivered."""
        first, last = parse_first(low), parse(high, missing=LAST[1])
        return [
            [text_of(id_), holder, now - since, times]
            for id_, (holder, since, times) in sorted(group.pending.items())
            if first <= id_ <= last and consumer in {None, holder}
        ][:count]

    @staticmethod
    def pending_summary(group: Group) -> list[object]:
        """Returns how many entries are pending, the first and the last of them, and how many each consumer
        has.
        """
        if not group.pending:
            return [0, None, None, None]
        holders = [holder for holder, _, _ in group.pending.values()]
        counts = [[holder, b"%d" % holders.count(holder)] for holder in sorted(set(holders))]
        return [len(holders), text_of(min(group.pending)), text_of(max(group.pending)), counts]
