"""Asks the server about the limits of tasks (`concurrency=`, `rate_limit=`): which job may start, which waits
for a permit, which is next. The worker's `permits` calls it, on the worker's loop.

The state is in the shard of the task's name, so that a limit holds for all workers and queues. A permit
belongs to a claim, `<entry> <id>` of the job whose body runs, and is stored with its worker session. The
permits of a worker session without a heartbeat do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncq.broker.commands import FOREVER
from asyncq.broker.schema.keys import DAY_MS, name_from, name_to, text_of

if TYPE_CHECKING:
    from asyncq import wire
    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.limits import Limits

TOLERANCE = 100_000
"""So many microseconds after its start time, a job may still start without asking for another start time. In
any time of `t` seconds, at most `rate * (t + 0.1) + 1` jobs start."""


PERMIT_GRANTED = "p"
"""First letter of a message on the channel of a worker session: `p<claim>` grants a permit to a job that
the worker session holds and that waits to go on.
"""


class LimiterAnswer(NamedTuple):
    """The answer of the limiter to a job.

    Attributes:
        starts: whether the job may start. Then it has its permit.
        wait: otherwise, how many milliseconds it waits at most.
        state: the limiter state, which the job sends with its next question.
        waits_for_permit: whether it waits for a permit, so that it may be woken before `wait` is over.
        next_job: the id of the job that the worker must wake; empty if there is none.
    """

    starts: bool
    wait: int
    state: bytes
    waits_for_permit: bool
    next_job: str


class Permits:
    """Asks the server about the limits of tasks, for one worker session.

    Args:
        commands: of the session.
        session_id: of the worker session, which is its consumer name.
    """

    def __init__(self, commands: Commands, session_id: str) -> None:
        self._commands = commands
        self._session_id = session_id

    async def ask(self, limits: Limits, delivery: wire.Delivery, left: int | None) -> LimiterAnswer:
        """Asks whether a job may start. The question is sent again for as long as it takes. However often it
        arrives, the job gets one permit.

        Args:
            limits: of its task.
            delivery: the job.
            left: milliseconds until the job expires; None if it does not.
        """
        task = limits.task
        keys = self._commands.shards.of(task)
        monotonic_time = self._commands.monotonic_time
        answer, wait, state, next_job, monotonic = await self._commands.run(
            keys,
            "limit",
            (keys.rates + task, keys.permits_held + task, keys.permits_waiting + task, keys.beats),
            (
                *(keys.key_prefix, delivery.claim, self._session_id, delivery.job.id, limits.concurrency),
                *(
                    limits.interval,
                    TOLERANCE,
                    delivery.limiter_state,
                    "" if left is None else left,
                    keys.signals,
                ),
                *(DAY_MS, monotonic_time.expected(keys.shard)),
            ),
            timeout=FOREVER,
        )
        monotonic_time.update(keys.shard, monotonic)
        return LimiterAnswer(answer == 1, wait, state, answer == 2, text_of(next_job))

    async def reacquire(self, limits: Limits, delivery: wire.Delivery) -> tuple[bool, str]:
        """Reacquires a permit after a wait. Returns whether there is one, and the id of the job to wake. If
        there is none yet, the server grants it later by a message on `Consumer.signal_channels`.
        """
        keys = self._commands.shards.of(limits.task)
        granted, next_job = await self._commands.run(
            keys,
            "reacquire_permit",
            _permit_keys(keys, limits),
            (delivery.claim, self._session_id, limits.concurrency, keys.signals, DAY_MS),
            timeout=FOREVER,
        )
        return bool(granted), text_of(next_job)

    async def release(self, limits: Limits, held: str, deferred: str = "") -> str:
        """Releases a permit, and returns the id of the job to wake. With an empty claim it releases nothing.
        With the id of a job that was just deferred it returns that one, if it was called too early.
        """
        keys = self._commands.shards.of(limits.task)
        next_job: bytes = await self._commands.run(
            keys,
            "release_permit",
            _permit_keys(keys, limits),
            (name_to(held), limits.concurrency, keys.signals, DAY_MS, deferred),
            timeout=FOREVER,
        )
        return text_of(next_job)

    async def forget(self, limits: Limits, id: str) -> None:
        """Removes a job from those that wait for a permit."""
        keys = self._commands.shards.of(limits.task)
        await self._commands.send(keys, "ZREM", keys.permits_waiting + limits.task, id, timeout=FOREVER)

    async def wake(self, id: str) -> bool:
        """Wakes a job that waits for a permit: makes it due now. Returns False if there is no such job any
        more.
        """
        keys = self._commands.shards.of(id)
        answer = await self._commands.run(
            keys, "wake_job", (keys.records + id, keys.delayed), (id, keys.wake), timeout=FOREVER
        )
        return bool(answer)

    async def held(self, limits: Limits) -> set[str]:
        """Returns the claims whose permits this worker session holds. Prolongs the life of the key by a day
        if there are any.
        """
        keys = self._commands.shards.of(limits.task)
        key = keys.permits_held + limits.task
        claims = await self._commands.send(keys, "HGETALL", key)
        mine = self._session_id.encode()
        ours = {name_from(one) for one, by in claims.items() if by == mine}
        if ours:
            await self._commands.send(keys, "PEXPIRE", key, DAY_MS)
        return ours


def _permit_keys(keys: Keys, limits: Limits) -> tuple[str, str, str]:
    return (keys.permits_held + limits.task, keys.permits_waiting + limits.task, keys.beats)
