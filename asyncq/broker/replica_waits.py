"""Waits until replicas have the jobs that one server has accepted: sends WAIT, on a connection of its own.
Runs on the session's loop.

WAIT blocks its connection until enough replicas have confirmed all writes up to the last one *of that
connection*. So it is sent behind a write of that connection:

- Redis 7.0 notes the offset of a connection at each of its commands. Valkey (and Redis from 7.2 on) notes it
  only at a command that has written something. Behind a PING, an MGET or a DEL of no key, WAIT on Valkey says
  at once that all replicas have everything, whatever the other connections have written. Measured with Redis
  7.0.15 and Valkey 8.1.8 and 9.1.2, with a replica that was stopped.
- PUBLISH would do on a single server, without a line in the append-only file. On a Cluster it does not reach
  the replicas as a write. A SET of a key with a short life does everywhere.

One WAIT is under way at a time: a second one would wait behind it all the same. What is accepted meanwhile
is gathered for the next. No job waits longer for that: a replica that lacks the earlier jobs lacks the later
ones, too.

The server may be replaced by one of its replicas between the enqueue and the WAIT, which then says nothing
about the jobs. So in the same packet, in front of the SET, the server is asked whether it has the jobs. If it
has, and replicas have confirmed the SET behind that, then those replicas have the jobs, whatever happened
before. The answers of a connection that broke count for nothing, and all is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq.broker.commands import KEEPALIVE
from asyncq.broker.transport.background import BackgroundTasks
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import AsyncQError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.transport.pipe import Pipe

log: logging.Logger = logging.getLogger(__name__)

MARK_MS = 60_000
"""How long the key of the SET lives."""
LATE = 0.25
"""Seconds that the server's last answer may come after the time of a job is over."""


@dataclass(slots=True, eq=False)
class _Accepted:
    """Jobs that the server has accepted, and that replicas must have.

    Attributes:
        records: their records.
        until: the loop's time at which the wait for replicas ends.
        answer: how many replicas have the jobs; None if the server itself does not have them.
    """

    shard: Keys
    records: Sequence[str]
    until: float
    answer: asyncio.Future[int | None]


class ReplicaWaits:
    """Asks one server what its replicas have.

    Args:
        commands: of the session.
        shard: the number of a shard that the server has.
    """

    def __init__(self, commands: Commands, shard: int = 0) -> None:
        timeout = commands.settings.operation_timeout / 2
        self._url = commands.address.safe_url
        self._wanted = commands.settings.replicas
        name = f"asyncq-wait:{commands.client}"
        self._connection = commands.new_connection(name, shard=shard, timeout=timeout, keepalive=KEEPALIVE)
        self._take_error = partial(commands.take_error, shard)
        # Shorter than the silence after which the connection is given up, so that this is noticed while a
        # WAIT is under way. Redis 7.0 takes each WAIT for the last command of the connection: from the third
        # one in a row on, it also waits for what was written since, so a replica that is so long behind all
        # the time is not seen to have anything.
        self._longest = timeout / 2
        self._gathered: list[_Accepted] = []
        self._loop = asyncio.get_running_loop()
        self._tasks = BackgroundTasks(log)
        self._is_asking = False
        self._problem: Exception | None = None

    async def replicas_with(self, shard: Keys, ids: Sequence[str], until: float) -> int | None:
        """Waits until as many replicas as the app wants have some jobs. A cancellation of this wait disturbs
        no other.

        Args:
            shard: of the jobs.
            ids: of jobs that the server has accepted.
            until: the loop's time at which the wait ends.

        Returns:
            How many replicas have the jobs: fewer than wanted if the time is over. None if the server does
            not have all of the jobs: it is another one, or it has lost its data.

        Raises:
            BrokerUnavailable: the server did not say it in time.
        """
        accepted = _Accepted(shard, [shard.records + id_ for id_ in ids], until, self._loop.create_future())
        self._gathered.append(accepted)
        if not self._is_asking:
            self._is_asking = True
            self._tasks.start(self._ask_all())
        try:
            async with asyncio.timeout_at(until + LATE):
                return await accepted.answer
        except TimeoutError:
            why = f": {self._problem}" if self._problem else ""
            raise BrokerUnavailable(f"{self._url} did not say in time what its replicas have{why}") from None

    async def close(self) -> None:
        """Closes the connection. Waits under way end with `BrokerUnavailable`. A second call does nothing."""
        self._connection.close()
        self._tasks.cancel()
        await self._tasks.wait(1.0)
        gathered, self._gathered = self._gathered, []
        for accepted in gathered:
            if not accepted.answer.done():
                accepted.answer.set_exception(BrokerUnavailable("the app was closed"))

    async def _ask_all(self) -> None:
        """Asks for what was gathered, until nothing is left."""
        attempt = 0
        asked: list[_Accepted] = []
        try:
            while self._gathered:
                asked, self._gathered = _open(self._gathered), []
                try:
                    if asked:
                        await self._ask(asked)
                except (PipeBroken, AsyncQError) as error:
                    self._problem = error
                    self._gathered[:0] = _open(asked)
                    if isinstance(error, ServerError):
                        self._take_error(error)
                        # It is a replica by now, or lacks memory for the SET, or was denied a right. The next
                        # connection may lead to another server.
                        self._connection.drop()
                    attempt += 1
                    await asyncio.sleep(pause(attempt))
                else:
                    attempt, self._problem = 0, None
        finally:
            # In the same step in which the loop saw that nothing is left. A callback of the task would come a
            # turn later, and what was gathered between the two would be asked for by nobody. After a
            # cancellation, `close` finds here what was under way.
            self._is_asking = False
            self._gathered[:0] = _open(asked)

    async def _ask(self, asked: list[_Accepted]) -> None:
        """Asks once, and answers all waits: those whose time is over sooner with what is known by then.

        Raises:
            PipeBroken, BrokerUnavailable, ServerError: not all were answered; another try may help.
        """
        pipe = self._connection.current or await self._connection.pipe()
        replicas = await self._first_answer(pipe, asked)
        while left := self._unanswered(asked, replicas):
            # Without another SET: the answer is about the same jobs, and later ones do not put it off.
            replicas = await pipe.call(*self._wait(left), now=True)

    async def _first_answer(self, pipe: Pipe, asked: list[_Accepted]) -> int:
        """Asks whether the server has the jobs, and returns how many replicas have them. Raises as `_ask`."""
        last: asyncio.Future[int] = self._loop.create_future()

        def on_reply(reply: Any, accepted: _Accepted | None = None) -> None:
            if isinstance(reply, Exception):
                if not last.done():
                    last.set_exception(reply)
            elif accepted is not None and reply != len(accepted.records) and not accepted.answer.done():
                # At once: the answer to the WAIT may take long, and the jobs are to be sent again.
                accepted.answer.set_result(None)

        def on_wait(reply: Any) -> None:
            on_reply(reply)
            if not last.done():
                last.set_result(reply)

        for accepted in asked:
            pipe.send(("EXISTS", *accepted.records), partial(on_reply, accepted=accepted))
        pipe.send(("SET", asked[0].shard.replica_mark, "", "PX", MARK_MS), on_reply)
        pipe.send(self._wait(asked), on_wait)
        return await last

    def _unanswered(self, asked: list[_Accepted], replicas: int) -> list[_Accepted]:
        """Answers the waits that have enough replicas, or whose time is over. Returns all others."""
        now = self._loop.time()
        for accepted in _open(asked):
            if replicas >= self._wanted or accepted.until <= now:
                accepted.answer.set_result(replicas)
        return _open(asked)

    def _wait(self, asked: list[_Accepted]) -> tuple[Any, ...]:
        """Returns the WAIT that ends when the first of some waits is over."""
        left = min(self._longest, min(accepted.until for accepted in asked) - self._loop.time())
        return ("WAIT", self._wanted, max(1, math.ceil(left * 1000)))  # 0 would be for ever


def _open(accepted: list[_Accepted]) -> list[_Accepted]:
    """Returns those that wait for an answer. Whose caller was cancelled or has given up does not."""
    return [one for one in accepted if not one.answer.done()]
