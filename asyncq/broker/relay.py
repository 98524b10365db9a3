"""Brings what a shard has in its outbox to the shards that it is for.

What ends a job, or accepts a workflow, writes in the same step what another shard must hear. Here it is read
in order, told there, and then deleted. So a crash between any two of these means that it is told again, by
whoever looks next: every worker does, in every shard.

The order matters: a job is accepted in its shard before anything that ends can concern it. Who tells starts
from the oldest, and goes on to the next only when the server has answered. So each shard need remember but
one entry of each outbox, the last that it was told: what somebody tells again, however much later, is not
behind that one, and changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncq import damage, failpoints, wire
from asyncq.broker.pipe import PipeBroken
from asyncq.broker.server_error import ServerError
from asyncq.broker.shards import MOST_SHARDS
from asyncq.errors import AsyncQError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq.broker.keys import Keys
    from asyncq.broker.scripts import Script
    from asyncq.broker.shards import Shards

log: logging.Logger = logging.getLogger(__name__)

AT_ONCE = 100
ENOUGH_BYTES = 1024 * 1024
"""So many bytes of outcomes and messages are read and told at a time, and the rest of the last entry."""

_OF_AN_END = (b"p", b"n", b"h", b"w", b"c")
"""The fields of an entry that tells how a job ended, in the order in which `inform` takes them."""

_WAITING = re.compile(rb"\S+ \S+ \S+(?:\n\S+ \S+ \S+)*")

Letter = tuple[bytes, dict[bytes, bytes]]
"""The id of an entry, and its fields."""


class Reading(NamedTuple):
    """The oldest of what an outbox held."""

    shard: Keys
    asked: int
    """When, in ms by the server's clock."""
    letters: list[Letter]

    @property
    def is_after(self) -> float:
        """What was written before this moment (ms, by the server's clock) has been told."""
        return int(self.letters[0][0].partition(b"-")[0]) if self.letters else float("inf")


@dataclass(slots=True, eq=False)
class Wait:
    """For all that an outbox held at a moment."""

    told: asyncio.Future[None]
    since: int | None = None
    """The moment, by the server's clock: that of the first reading that was asked for afterwards."""


@dataclass(slots=True, eq=False)
class Errand:
    """The emptying of one outbox."""

    wanted: bool = True
    """Somebody has asked for it since it was found empty."""
    waits: list[Wait] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def has_read(self, reading: Reading, asking: Iterable[Wait]) -> None:
        """Ends the waits for what is not in the outbox any more."""
        for wait in asking:
            wait.since = reading.asked
        done = [wait for wait in self.waits if wait.since is not None and wait.since < reading.is_after]
        for wait in done:
            self.waits.remove(wait)
            if not wait.told.done():
                wait.told.set_result(None)


class Sender(Protocol):
    """What the relay needs of `Commands`, which owns it."""

    @property
    def scripts(self) -> Mapping[str, Script]:
        """By name."""
        ...

    @property
    def shards(self) -> Shards:
        """Those of the namespace."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether nothing is to be sent any more."""
        ...

    async def run(
        self, shard: Keys, name: str, keys: Sequence[str] = (), arguments: Iterable[Any] = ()
    ) -> Any:
        """Runs a script."""
        ...

    async def send(self, shard: Keys, *command: Any) -> Any:
        """Sends a command."""
        ...

    def build(self, name: str, keys: Sequence[str], arguments: Iterable[Any] = ()) -> tuple[Any, ...]:
        """The command that runs a script."""
        ...


class Relay:
    """The errands of one process between shards.

    Args:
        commands: owns it, and sends for it.
    """

    def __init__(self, commands: Sender) -> None:
        self._commands = commands
        self._errands: dict[int, Errand] = {}
        self._failing: set[int] = set()

    def call(self, shard: Keys) -> None:
        """There may be something in the outbox of a shard; it is told in the background. Does nothing if the
        app is being closed.
        """
        if not self._commands.is_closed:
            self._errand(shard)

    async def told(self, *shards: Keys, patience: float | None = None) -> None:
        """Waits until all that is in the outboxes of these shards has been told, or could not be. Not for
        what comes in meanwhile: that may never end.

        Args:
            shards: of the namespace.
            patience: most seconds of the wait.
        """
        if self._commands.is_closed:
            return
        loop = asyncio.get_running_loop()
        waits = [Wait(loop.create_future()) for _ in shards]
        for shard, wait in zip(shards, waits, strict=True):
            self._errand(shard).waits.append(wait)
        await asyncio.wait([wait.told for wait in waits], timeout=patience)

    async def quiet(self, patience: float) -> None:
        """Waits until this process has nothing to tell any more, nor what follows from that in other shards;
        at most so many seconds.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while (tasks := self._tasks()) and (left := end - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [errand.task for errand in self._errands.values() if errand.task is not None]

    def close(self) -> list[asyncio.Task[None]]:
        """Ends all errands; the tasks, to be waited for. What is left in an outbox is for others."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        for number in list(self._errands):
            self._over(number)  # a task that has not begun is cancelled without a word
        return tasks

    def _errand(self, shard: Keys) -> Errand:
        errand = self._errands.get(shard.shard)
        if errand is None:
            errand = self._errands[shard.shard] = Errand()
            errand.task = asyncio.create_task(self._run(shard, errand))
        errand.wanted = True
        return errand

    async def _run(self, shard: Keys, errand: Errand) -> None:
        try:
            while errand.wanted:
                errand.wanted = False
                await self._empty(shard, errand)
            self._failing.discard(shard.shard)
        except (AsyncQError, PipeBroken, ServerError) as error:
            # A worker looks every few seconds: it says so once, until it goes again.
            level = logging.DEBUG if shard.shard in self._failing else logging.WARNING
            self._failing.add(shard.shard)
            log.log(
                level,
                "what shard %d has for others could not be told (%s); a worker will",
                shard.shard,
                error,
            )
        finally:
            # Here, and not when the task is found done: who calls in between would be heard by nobody.
            self._over(shard.shard)

    def _over(self, number: int) -> None:
        errand = self._errands.pop(number, None)
        for wait in errand.waits if errand is not None else ():
            if not wait.told.done():
                wait.told.set_result(None)

    async def _empty(self, shard: Keys, errand: Errand) -> None:
        while True:
            asking = [wait for wait in errand.waits if wait.since is None]
            reading = await self.read(shard)
            errand.has_read(reading, asking)
            if not reading.letters:
                return
            await self.tell(reading)

    async def read(self, shard: Keys) -> Reading:
        """The oldest of what an outbox holds. An entry that nobody can tell is deleted: those behind it could
        not be told either, for they are told in order.
        """
        while True:
            asked, *entries = await self._commands.run(
                shard, "outbox", (shard.outbox,), (AT_ONCE, ENOUGH_BYTES)
            )
            letters, damaged = [], []
            for entry, flat in entries:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                try:
                    _check(fields, self._commands.shards.count, self._commands.scripts["accept"].repeated)
                except DecodeError as error:
                    what = f"entry {entry.decode()} of the outbox of shard {shard.shard} is dropped"
                    damage.warn(log, "entry of an outbox", what, error)
                    damaged.append(entry)
                else:
                    letters.append((entry, fields))
            if damaged:
                await self._forget(shard, damaged)
            if letters or not damaged:
                return Reading(shard, asked, letters)

    async def tell(self, reading: Reading) -> None:
        """Tells what was read, in order, and deletes it."""
        for (to, is_parcel), some in itertools.groupby(
            reading.letters, lambda one: (one[1][b"to"], b"b" in one[1])
        ):
            told = list(some)
            there = self._commands.shards[int(to)]
            failpoints.hit("relay.tell")
            left = await (self._deliver if is_parcel else self._inform)(reading.shard, there, told)
            failpoints.hit("relay.told")
            await self._forget(reading.shard, [entry for entry, _ in told])
            if left:
                self.call(there)  # what it was told ended jobs for which others wait, elsewhere

    async def _deliver(self, shard: Keys, there: Keys, letters: Sequence[Letter]) -> int:
        left = 0
        for entry, fields in letters:
            channel, refusal, words = wire.decode_parcel(fields[b"b"])
            arguments = (there.space, shard.shard, entry, channel, wire.PUSH_LIMIT, refusal, *words)
            left = await self._tell(there, "accept", arguments)
        return left

    async def _inform(self, shard: Keys, there: Keys, letters: Sequence[Letter]) -> int:
        words: list[Any] = []
        for entry, fields in letters:
            words += (entry, *(fields[name] for name in _OF_AN_END))
        arguments = (there.space, shard.shard, wire.PUSH_LIMIT, *words)
        return await self._tell(there, "inform", arguments)

    async def _tell(self, there: Keys, script: str, arguments: Sequence[Any]) -> int:
        # Not by `run`, which would look into the outbox of that shard every time: these scripts answer how
        # much there is in it.
        left: int = await self._commands.send(there, *self._commands.build(script, (), arguments))
        return left

    async def _forget(self, shard: Keys, entries: Sequence[bytes]) -> None:
        await self._commands.send(shard, "XDEL", shard.outbox, *entries)


def _check(fields: dict[bytes, bytes], shards: int, words_per_job: Sequence[str]) -> None:
    """Sees to it that an entry of an outbox can be told.

    Args:
        fields: of the entry.
        shards: how many there are.
        words_per_job: the names of what the script `accept` takes for each job.

    Raises:
        DecodeError: it cannot.
    """
    to = fields.get(b"to", b"")
    shard = wire.number_in(to, MOST_SHARDS)
    if shard is None or shard >= shards:
        raise DecodeError(f"it is for shard {to[:20]!r}, and there are {shards}")
    if (parcel := fields.get(b"b")) is not None:
        _check_words(wire.decode_parcel(parcel)[2], words_per_job)
        return
    if not all(name in fields for name in _OF_AN_END):
        raise DecodeError("it has too few fields")
    if not _WAITING.fullmatch(fields[b"c"]) or fields[b"h"].decode("latin-1") not in wire.FINAL:
        raise DecodeError("it does not say who waits, or how it ended")


def _check_words(words: Sequence[str | int | bytes], names: Sequence[str]) -> None:
    """Sees to it that the jobs of a parcel can be accepted."""
    if len(words) % len(names):
        raise DecodeError("a job in the parcel is not whole")
    for at in range(0, len(words), len(names)):
        job = dict(zip(names, words[at : at + len(names)], strict=True))
        wait, ttl = str(job["wait"]), str(job["ttl"])
        if not all(
            text.isascii() and text.isdigit() and int(text[:16]) <= wire.LONGEST_TTL
            for text in (wait or "0", ttl)
        ):
            raise DecodeError("a job in the parcel says a time that cannot be")
