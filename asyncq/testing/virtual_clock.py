"""The virtual clock of a test: the machine's clock, set ahead by what the test has advanced.

It is one clock for the whole process, see `system.clock`, so all harnesses of a process share it, and each
server follows: its scripts add what stands in one of its keys. Time goes on by itself, too. When the last
harness ends, the clock is the machine's again.

Setting it ahead does at once what the time in between would have done at the server: results expire, and
delayed jobs become due. What goes by the clock of the event loop, or by `time.time` in the user's code, does
not change: bodies that run, their time limits, waits, heartbeats and leases.
"""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import TYPE_CHECKING, ClassVar

from asyncq.broker.schema.keys import GROUP, Keys
from asyncq.broker.transport import virtual_time
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq.testing.private_servers import HarnessServer


def script(name: str) -> str:
    """Reads the text of a script of the testing kit. Blocks: call it at import."""
    return resources.files("asyncq.testing").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


_SET_AHEAD = script("set_ahead")


class ProcessClock:
    """The clock of this process, which is set ahead. Lives on the loop of a harness."""

    _all: ClassVar[set[ProcessClock]] = set()
    ahead: ClassVar[float] = 0.0
    """By how many seconds the clock is ahead of the machine's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Follows the clock from now on."""
        ProcessClock._all.add(self)
        if self.ahead:
            await self.follow(self.ahead, 0.0)

    def stop(self) -> None:
        """Follows the clock no more. If nobody does, it is the machine's again. May be called twice."""
        ProcessClock._all.discard(self)
        if not ProcessClock._all:
            ProcessClock.ahead = 0.0
            clock.set_ahead(0.0)

    async def set_ahead(self, seconds: float) -> None:
        """Sets the clock ahead of the machine's by so many seconds, which is never less than before."""
        by = seconds - self.ahead
        ProcessClock.ahead = seconds
        clock.set_ahead(seconds)
        for other in list(ProcessClock._all):
            if other._loop is self._loop:
                await other.follow(seconds, by)
            else:
                following = asyncio.run_coroutine_threadsafe(other.follow(seconds, by), other._loop)
                await asyncio.wrap_future(following)

    async def follow(self, seconds: float, by: float) -> None:
        """Does nothing: there is no server."""


class VirtualClock(ProcessClock):
    """The clock of this process, as one server follows it.

    Args:
        connected: the server.
        shards: the shards of the app.
    """

    def __init__(self, connected: HarnessServer, shards: Iterable[Keys]) -> None:
        super().__init__()
        self._connected = connected
        self._shards = tuple(shards)

    async def follow(self, seconds: float, by: float) -> None:
        """Sets the server's clock, expires keys, and wakes the workers that promote delayed jobs and make the
        jobs of schedules.
        """
        kept = [prefix for keys in self._shards for prefix in _renewed_by_workers(keys)]
        ahead, more = round(seconds * 1000), round(by * 1000)
        await self._connected.send("EVAL", _SET_AHEAD, 1, virtual_time.KEY, ahead, more, *kept)
        for keys in self._shards:
            for channel in (keys.wake, keys.schedules_wake):
                await self._connected.send("PUBLISH", channel, "")


def _renewed_by_workers(keys: Keys) -> tuple[str, ...]:
    """Returns the beginnings of the keys that living workers renew, by the machine's clock."""
    return (
        keys.beats,
        keys.beat_observations,
        keys.observations,
        keys.observation_ages,
        keys.signals,
        keys.announcements,
        keys.started,
        keys.watchers,
        keys.permits_held,
        keys.permits_waiting,
    )


def shard_arguments(keys: Keys) -> tuple[str, ...]:
    """Returns the arguments that `live_jobs` takes for one shard."""
    patterns = (_escaped(prefix) + "*" for prefix in (keys.records, keys.permits_waiting))
    schedules = keys.schedules, keys.schedules_due
    return *patterns, keys.records, keys.delayed, keys.queues, keys.outbox, *schedules, GROUP


def _escaped(prefix: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in prefix)
