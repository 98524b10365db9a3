"""Finds the shard of a job by its id, and makes ids for new jobs. A shard is a part of the namespace whose
keys lie in one slot of a Cluster. Used on any loop or thread.

The shard follows from the id alone, so a handle that any process makes from an id finds its job. Ids that
asyncq makes end with the shard (`<24 hexadecimal digits>.<shard>`). For any other id, a checksum decides.
Jobs that belong together, a task's children and the members of a workflow, get ids of one shard, so that one
step can change them together. So do the jobs of a schedule: an id that ends with a tick lies in the shard of
what stands before the tick, which is where the schedule lies.

With one shard, which is the default, ids have no shard in them and nothing is computed.
"""

from __future__ import annotations

import itertools
import random
import re
import zlib
from typing import TYPE_CHECKING

from asyncq.broker.schema.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RUN = 64
"""So many new ids in a row are of one shard: jobs that are enqueued together travel in one call."""

MOST_SHARDS = 999_999_999
"""A larger number of shards in the server's data is damaged."""

_TICK = re.compile(r"(.+):\d{8}T\d{6}Z(?:\.\d+)?", re.ASCII | re.DOTALL)
"""The id of a job that a schedule has made: the name of the schedule, and the time of the tick."""

_DIGITS = 24
"""How many hexadecimal digits are in front of the shard in an id."""


class Shards:
    """The key names of all shards of a namespace.

    Args:
        namespace: of the app.
        count: how many shards it has; the same number in every app that uses the namespace.

    Attributes:
        namespace, count: as given.
        is_one: whether there is only one shard.
    """

    def __init__(self, namespace: str, count: int) -> None:
        self.namespace = namespace
        self.count = count
        self.is_one: bool = count == 1
        self._keys = tuple(Keys(namespace, number) for number in range(count))
        # Starts at a random shard: many processes make only a few jobs, and they must not all fill the first
        # shard.
        self._made = itertools.count(random.randrange(count) * RUN)

    def __getitem__(self, number: int) -> Keys:
        return self._keys[number]

    def __iter__(self) -> Iterator[Keys]:
        return iter(self._keys)

    def number(self, id: str) -> int:
        """Returns the number of the shard of a job, or of anything else with an id.

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
        tick = _TICK.fullmatch(id) if ":" in id else None
        hashed = id if tick is None else tick[1]
        return zlib.crc32(hashed.encode("utf-8", "surrogatepass")) % self.count

    def of(self, id: str) -> Keys:
        """Returns the key names of the shard of a job, or of anything else with an id."""
        return self._keys[self.number(id)]

    def apportion(self, ids: Iterable[str]) -> dict[int, list[str]]:
        """Returns the ids by the number of their shard, in their order."""
        found: dict[int, list[str]] = {}
        for id_ in ids:
            found.setdefault(self.number(id_), []).append(id_)
        return found

    def next(self) -> int:
        """Returns the number of the shard for a new job that belongs to no other job. All shards take turns,
        `RUN` ids each.
        """
        return next(self._made) // RUN % self.count

    def new_id(self, digits: str, number: int | None = None) -> str:
        """Returns an id for a new job.

        Args:
            digits: 24 random hexadecimal digits.
            number: of the job's shard; None for the shard whose turn it is.
        """
        if self.is_one:
            return digits
        return f"{digits}.{self.next() if number is None else number}"
