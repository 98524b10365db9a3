"""Shards: the parts of a namespace, each in one slot of a cluster, and which of them a job lies in.

Where a job lies follows from its id alone, so that a handle made from an id anywhere knows where to look. The
ids that asyncq makes say it (`<24 hexadecimal digits>.<shard>`); of any other, a checksum does. Jobs that
belong together, a task's children and the members of a workflow, are made in one shard, so that what must
happen to them in one step can.

With one shard, which is the default, ids say nothing and nothing is computed.
"""

from __future__ import annotations

import itertools
import random
import zlib
from typing import TYPE_CHECKING

from asyncq.broker.schema.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RUN = 64
"""So many ids made one after the other lie in one shard: what is enqueued together travels in one call."""

MOST_SHARDS = 999_999_999
"""Whoever says that there are more has not written asyncq's number."""

_DIGITS = 24


class Shards:
    """The key names of all shards of a namespace.

    Args:
        namespace: of the app.
        count: how many shards it has, the same for everybody who uses it.
    """

    def __init__(self, namespace: str, count: int) -> None:
        self.namespace = namespace
        self.count = count
        self.is_one: bool = count == 1
        self._keys = tuple(Keys(namespace, number) for number in range(count))
        # Anywhere: many processes make but a few jobs, a command line's one, and not all in the first shard.
        self._made = itertools.count(random.randrange(count) * RUN)

    def __getitem__(self, number: int) -> Keys:
        return self._keys[number]

    def __iter__(self) -> Iterator[Keys]:
        return iter(self._keys)

    def number(self, id: str) -> int:
        """The number of the shard that a job, or anything else with an id, lies in.

        >>> Shards("shop", 1).number("order-17"), Shards("shop", 4).number("0123456789abcdef01234567.2")
        (0, 2)
        """
        if self.is_one:
            return 0
        if (
            id[_DIGITS : _DIGITS + 1] == "."
            and (number_text := id[_DIGITS + 1 :]).isdecimal()
            and number_text.isascii()
        ):
            return int(number_text) % self.count
        return zlib.crc32(id.encode("utf-8", "surrogatepass")) % self.count

    def of(self, id: str) -> Keys:
        """The key names of the shard that a job lies in."""
        return self._keys[self.number(id)]

    def apportion(self, ids: Iterable[str]) -> dict[int, list[str]]:
        """Ids by the number of the shard in which each lies, in their order."""
        found: dict[int, list[str]] = {}
        for id_ in ids:
            found.setdefault(self.number(id_), []).append(id_)
        return found

    def next(self) -> int:
        """The shard for new jobs that belong to no other: each in its turn."""
        return next(self._made) // RUN % self.count

    def new_id(self, digits: str, number: int | None = None) -> str:
        """An id for a new job.

        Args:
            digits: 24 random hexadecimal digits.
            number: of the shard it is to lie in; None for whichever has its turn.
        """
        if self.is_one:
            return digits
        return f"{digits}.{self.next() if number is None else number}"
