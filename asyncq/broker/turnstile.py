"""The verbs of limited tasks: who may start, who waits, who is next. Keys are named after the task.

A claim is `<entry> <id>` of a job whose body runs, with the incarnation that runs it. One whose incarnation
has no beat any more counts for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncq.broker.commands import FOREVER
from asyncq.broker.keys import DAY_MS, name_from, name_to, text_of

if TYPE_CHECKING:
    from asyncq import wire
    from asyncq.broker.commands import Commands
    from asyncq.broker.keys import Keys
    from asyncq.limits import Limits

TOLERANCE = 100_000
"""Microseconds that a job may come late to the moment it was given, before it may have to wait anew. In any
time of `t` seconds, at most `rate * (t + 0.1) + 1` jobs start."""


SEATED = "p"
"""What a worker is told on the channel of its marks: `p<claim>`, a job of its own that waits has a place."""


class Turn(NamedTuple):
    """What the limits of its task say to a job.

    Attributes:
        starts: whether it may start, and then has its place.
        wait: milliseconds that it waits otherwise, at most.
        ticket: what it is to bring along when it comes again.
        parked: whether it waits for a place, and may be called.
        following: the id of a job that is to be called; empty if there is none.
    """

    starts: bool
    wait: int
    ticket: bytes
    parked: bool
    following: str


class Turnstile:
    """What one incarnation says and hears about the limits of tasks.

    Args:
        commands: of the session.
        incarnation: in whose name.
    """

    def __init__(self, commands: Commands, incarnation: str) -> None:
        self._commands = commands
        self._incarnation = incarnation

    async def enter(self, limits: Limits, delivery: wire.Delivery, left: int | None) -> Turn:
        """Whether a job may start.

        Args:
            limits: of its task.
            delivery: the job.
            left: milliseconds until it expires, if it does.
        """
        task = limits.task
        keys = self._commands.shards.of(task)
        steady_time = self._commands.steady_time
        verdict, wait, ticket, following, steady = await self._commands.run(
            keys,
            "limit",
            (keys.rates + task, keys.places_held + task, keys.places_wanted + task, keys.beats),
            (
                *(keys.space, delivery.claim, self._incarnation, delivery.job.id, limits.places),
                *(limits.interval, TOLERANCE, delivery.turn, "" if left is None else left, keys.marks),
                *(DAY_MS, steady_time.expected(keys.shard)),
            ),
            patience=FOREVER,
        )
        steady_time.saw(keys.shard, steady)
        return Turn(verdict == 1, wait, ticket, verdict == 2, text_of(following))

    async def resume(self, limits: Limits, delivery: wire.Delivery) -> tuple[bool, str]:
        """Takes a place again after a wait, and says whom to call; False if there is none yet: then it will
        be told, see `Consumer.marks_channel`.
        """
        keys = self._commands.shards.of(limits.task)
        seated, following = await self._commands.run(
            keys,
            "resume",
            _places(keys, limits),
            (delivery.claim, self._incarnation, limits.places, keys.marks, DAY_MS),
            patience=FOREVER,
        )
        return bool(seated), text_of(following)

    async def vacate(self, limits: Limits, held: str, aside: str = "") -> str:
        """Gives a place back, and says whom to call. With an empty claim, only says that; with the id of a
        job that was just put aside, that one if it was called too early.
        """
        keys = self._commands.shards.of(limits.task)
        following: bytes = await self._commands.run(
            keys,
            "vacate",
            _places(keys, limits),
            (name_to(held), limits.places, keys.marks, DAY_MS, aside),
            patience=FOREVER,
        )
        return text_of(following)

    async def forget(self, limits: Limits, id: str) -> None:
        """A job waits for no place any more."""
        keys = self._commands.shards.of(limits.task)
        await self._commands.send(keys, "ZREM", keys.places_wanted + limits.task, id, patience=FOREVER)

    async def call(self, id: str) -> bool:
        """Has a job come that waits for a place; False if there is no such job any more."""
        keys = self._commands.shards.of(id)
        answer = await self._commands.run(
            keys, "call", (keys.records + id, keys.delayed), (id, keys.wake), patience=FOREVER
        )
        return bool(answer)

    async def held(self, limits: Limits) -> set[str]:
        """The claims to places of a task that are ours, and keeps them for another day."""
        keys = self._commands.shards.of(limits.task)
        key = keys.places_held + limits.task
        claims = await self._commands.send(keys, "HGETALL", key)
        mine = self._incarnation.encode()
        ours = {name_from(one) for one, by in claims.items() if by == mine}
        if ours:
            await self._commands.send(keys, "PEXPIRE", key, DAY_MS)
        return ours


def _places(keys: Keys, limits: Limits) -> tuple[str, str, str]:
    return (keys.places_held + limits.task, keys.places_wanted + limits.task, keys.beats)
