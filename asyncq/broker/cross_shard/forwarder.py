"""Forwards the entries in the outbox of a shard to the shards that they are for. Runs on the session's loop.

A script that ends a job or accepts a workflow writes in the same step what another shard must learn. The
forwarder reads these entries in order, delivers them, and then deletes them. After a crash between two of
these steps another process delivers them again: every worker looks into every outbox when it checks in.

The order matters: a job is accepted in its shard before anything that ends can concern it. A forwarder starts
with the oldest entry, and goes on to the next only when the server has answered. Entries are applied in
order, so a shard stores one offset for each outbox: the last entry that was applied. An entry that is
delivered again, however much later, is not behind that offset, and changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncq import failpoints, wire
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.shards import MOST_SHARDS
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import AsyncQError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.scripts import Script

log: logging.Logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Most entries that are read at a time."""
ENOUGH_BYTES = 1024 * 1024
"""After so many bytes of outcomes and messages, no further entry is read. The last entry is read whole."""

_OF_AN_END = (b"p", b"n", b"h", b"w", b"c")
"""The fields of an entry for the end of a job, in the order in which `deliver_ends` takes them: the id of the
job, its request id, its status code, its outcome, and the jobs that wait for it.
"""

_WAITING = re.compile(rb"\S+ \S+ \S+(?:\n\S+ \S+ \S+)*")
"""The jobs that wait, one a line: its id, the index of the ended job among its parents, its request id."""

OutboxEntry = tuple[bytes, dict[bytes, bytes]]
"""The id of an entry, and its fields."""


class Reading(NamedTuple):
    """The oldest entries of an outbox."""

    shard: Keys
    asked: int
    """When the outbox was read, in ms by the server's clock."""
    entries: list[OutboxEntry]

    @property
    def is_after(self) -> float:
        """All entries that were written before this time (ms, by the server's clock) are delivered."""
        return int(self.entries[0][0].partition(b"-")[0]) if self.entries else float("inf")


@dataclass(slots=True, eq=False)
class DeliveryWait:
    """Waits until all entries that an outbox held at one time are delivered."""

    delivered: asyncio.Future[None]
    since: int | None = None
    """That time, by the server's clock: the time of the first reading after the wait began."""


@dataclass(slots=True, eq=False)
class OutboxTask:
    """The background task that empties one outbox."""

    requested: bool = True
    """Somebody has asked for a delivery since the task began its latest pass over the outbox."""
    waits: list[DeliveryWait] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def has_read(self, reading: Reading, asking: Iterable[DeliveryWait]) -> None:
        """Ends the waits whose entries are not in the outbox any more.

        Args:
            reading: what was read.
            asking: the waits that began before the outbox was read.
        """
        for wait in asking:
            wait.since = reading.asked
        done = [wait for wait in self.waits if wait.since is not None and wait.since < reading.is_after]
        for wait in done:
            self.waits.remove(wait)
            if not wait.delivered.done():
                wait.delivered.set_result(None)


class Sender(Protocol):
    """What the forwarder needs of `Commands`, which owns the forwarder."""

    @property
    def scripts(self) -> Mapping[str, Script]:
        """All scripts, by name."""
        ...

    @property
    def shards(self) -> Shards:
        """The shards of the namespace."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether the app is being closed: the forwarder starts no task any more."""
        ...

    async def run(
        self, shard: Keys, name: str, keys: Sequence[str] = (), arguments: Iterable[Any] = ()
    ) -> Any:
        """Runs a script."""
        ...

    async def send(self, shard: Keys, *command: Any) -> Any:
        """Sends a command."""
        ...

    def build(
        self, shard: Keys, name: str, keys: Sequence[str], arguments: Iterable[Any] = ()
    ) -> tuple[Any, ...]:
        """Returns the command that runs a script."""
        ...

    def without_ends(self, shard: Keys, answer: Any) -> Any:
        """Returns the answer of a script without the jobs that it says to have ended."""
        ...


class Forwarder:
    """Delivers entries between the shards, for one session.

    Args:
        commands: owns the forwarder, and sends its commands.
    """

    def __init__(self, commands: Sender) -> None:
        self._commands = commands
        self._outbox_tasks: dict[int, OutboxTask] = {}
        self._failing: set[int] = set()

    def call(self, shard: Keys) -> None:
        """Starts to deliver the entries of an outbox in the background, if there are any. Does nothing if the
        app is being closed.
        """
        if not self._commands.is_closed:
            self._outbox_task(shard)

    async def delivered(self, *shards: Keys, timeout: float | None = None) -> None:
        """Waits until all entries in the outboxes of these shards are delivered, or an attempt to deliver
        them failed. Does not wait for entries that come in meanwhile: that may never end. Returns at once if
        the app is being closed, and raises nothing when the time is over.

        Args:
            shards: whose outboxes are delivered.
            timeout: most seconds of the wait; None for no limit.
        """
        if self._commands.is_closed:
            return
        loop = asyncio.get_running_loop()
        waits = [DeliveryWait(loop.create_future()) for _ in shards]
        for shard, wait in zip(shards, waits, strict=True):
            self._outbox_task(shard).waits.append(wait)
        await asyncio.wait([wait.delivered for wait in waits], timeout=timeout)

    async def quiet(self, timeout: float) -> None:
        """Waits until this session has no task that delivers; at most `timeout` seconds. A delivery that
        fills the outbox of another shard starts a task for that shard, so its entries are waited for, too.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while (tasks := self._tasks()) and (left := end - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [
            outbox_task.task for outbox_task in self._outbox_tasks.values() if outbox_task.task is not None
        ]

    def close(self) -> list[asyncio.Task[None]]:
        """Ends all background tasks and returns them, to be awaited. Other processes deliver what is left."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        for number in list(self._outbox_tasks):
            # The task's own `finally` is not enough: a task that is cancelled before its first step never
            # enters its `try`.
            self._end(number)
        return tasks

    def _outbox_task(self, shard: Keys) -> OutboxTask:
        """Requests another pass over the outbox of a shard. Returns its task, which is started if need be."""
        outbox_task = self._outbox_tasks.get(shard.shard)
        if outbox_task is None:
            outbox_task = self._outbox_tasks[shard.shard] = OutboxTask()
            outbox_task.task = asyncio.create_task(self._run(shard, outbox_task))
        outbox_task.requested = True
        return outbox_task

    async def _run(self, shard: Keys, outbox_task: OutboxTask) -> None:
        """Empties an outbox until no further pass is requested. The waits for it end in any case."""
        try:
            while outbox_task.requested:
                outbox_task.requested = False
                await self._empty(shard, outbox_task)
            self._failing.discard(shard.shard)
        except (AsyncQError, PipeBroken, ServerError) as error:
            # A worker calls every few seconds, so a server that is away would fill the log. There is one
            # warning for each shard until a delivery succeeds.
            level = logging.DEBUG if shard.shard in self._failing else logging.WARNING
            self._failing.add(shard.shard)
            log.log(
                level,
                "the outbox of shard %d could not be forwarded (%s); a worker will forward it",
                shard.shard,
                error,
            )
        finally:
            # The entry is removed in the same step in which the loop above saw that nothing is requested. A
            # callback of the finished task would run a turn later, and a `call` between the two would find a
            # task that delivers nothing any more.
            self._end(shard.shard)

    def _end(self, number: int) -> None:
        outbox_task = self._outbox_tasks.pop(number, None)
        for wait in outbox_task.waits if outbox_task is not None else ():
            if not wait.delivered.done():
                wait.delivered.set_result(None)

    async def _empty(self, shard: Keys, outbox_task: OutboxTask) -> None:
        """Reads and delivers until the outbox is empty."""
        while True:
            # Taken before the read: a wait that begins while the read is under way may be for an entry that
            # the server wrote after it.
            asking = [wait for wait in outbox_task.waits if wait.since is None]
            reading = await self.read(shard)
            outbox_task.has_read(reading, asking)
            if not reading.entries:
                return
            await self.deliver(reading)

    async def read(self, shard: Keys) -> Reading:
        """Returns the oldest entries of an outbox. A damaged entry is deleted: entries are delivered in
        order, so it would block all entries behind it.
        """
        while True:
            asked, *found = await self._commands.run(
                shard, "outbox", (shard.outbox,), (AT_ONCE, ENOUGH_BYTES)
            )
            entries, damaged = [], []
            for entry, flat in found:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                try:
                    _check(fields, self._commands.shards.count, self._commands.scripts["accept"].repeated)
                except DecodeError as error:
                    what = f"entry {entry.decode()} of the outbox of shard {shard.shard} is dropped"
                    damaged_data.warn(log, "entry of an outbox", what, error)
                    damaged.append(entry)
                else:
                    entries.append((entry, fields))
            if damaged:
                await self._forget(shard, damaged)
            if entries or not damaged:
                return Reading(shard, asked, entries)

    async def deliver(self, reading: Reading) -> None:
        """Delivers the entries of a reading, in order, and deletes them."""
        for (to, is_batch), some in itertools.groupby(
            reading.entries, lambda one: (one[1][b"to"], b"b" in one[1])
        ):
            group = list(some)
            there = self._commands.shards[int(to)]
            failpoints.hit("forwarder.deliver")
            left = await (self._deliver_batches if is_batch else self._deliver_ends)(
                reading.shard, there, group
            )
            failpoints.hit("forwarder.delivered")
            # Deleted last: after a crash before this, another process delivers the entries again, and the
            # other shard sees by its offset that it has applied them.
            await self._forget(reading.shard, [entry for entry, _ in group])
            if left:
                self.call(there)  # the delivery ended jobs for which jobs in other shards wait

    async def _deliver_batches(self, shard: Keys, there: Keys, entries: Sequence[OutboxEntry]) -> int:
        """Has another shard accept batches, one in each call. Returns how many entries its outbox has."""
        left = 0
        for entry, fields in entries:
            channel, refusal, job_arguments = wire.decode_batch(fields[b"b"])
            arguments = (
                there.key_prefix,
                shard.shard,
                entry,
                channel,
                wire.PUSH_LIMIT,
                refusal,
                *job_arguments,
            )
            left = await self._send(there, "accept", arguments)
        return left

    async def _deliver_ends(self, shard: Keys, there: Keys, entries: Sequence[OutboxEntry]) -> int:
        """Informs another shard of the ends of jobs, in one call. Returns how many entries its outbox has."""
        ends: list[Any] = []
        for entry, fields in entries:
            ends += (entry, *(fields[name] for name in _OF_AN_END))
        arguments = (there.key_prefix, shard.shard, wire.PUSH_LIMIT, *ends)
        return await self._send(there, "deliver_ends", arguments)

    async def _send(self, there: Keys, script: str, arguments: Sequence[Any]) -> int:
        # `run` would have the outbox of that shard read after every delivery. `send` does not, and it need
        # not: these scripts return how many entries the outbox has.
        answer = await self._commands.send(there, *self._commands.build(there, script, (), arguments))
        left: int = self._commands.without_ends(there, answer)
        return left

    async def _forget(self, shard: Keys, entries: Sequence[bytes]) -> None:
        await self._commands.send(shard, "XDEL", shard.outbox, *entries)


def _check(fields: dict[bytes, bytes], shards: int, names_per_job: Sequence[str]) -> None:
    """Checks that an entry of an outbox can be delivered.

    Args:
        fields: of the entry.
        shards: how many shards there are.
        names_per_job: the names of the arguments that the script `accept` takes for each job.

    Raises:
        DecodeError: the entry is damaged.
    """
    to = fields.get(b"to", b"")
    shard = wire.number_in(to, MOST_SHARDS)
    if shard is None or shard >= shards:
        raise DecodeError(f"it is for shard {to[:20]!r}, but the number of shards is {shards}")
    if (batch := fields.get(b"b")) is not None:
        _check_job_arguments(wire.decode_batch(batch)[2], names_per_job)
        return
    if not all(name in fields for name in _OF_AN_END):
        raise DecodeError("it has too few fields")
    if not _WAITING.fullmatch(fields[b"c"]) or fields[b"h"].decode("latin-1") not in wire.FINAL:
        raise DecodeError("it does not say which job waits, or how the other job ended")


def _check_job_arguments(job_arguments: Sequence[str | int | bytes], names: Sequence[str]) -> None:
    """Checks that the jobs of a batch can be accepted. Raises as `_check`."""
    if len(job_arguments) % len(names):
        raise DecodeError("a job in the batch is incomplete")
    for at in range(0, len(job_arguments), len(names)):
        job = dict(zip(names, job_arguments[at : at + len(names)], strict=True))
        wait, ttl = str(job["wait"]), str(job["ttl"])
        if not all(
            text.isascii() and text.isdigit() and int(text[:16]) <= wire.LONGEST_TTL
            for text in (wait or "0", ttl)
        ):
            raise DecodeError("a job in the batch has a time that is out of range")
