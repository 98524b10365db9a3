"""How a command gets to the server: it is built, sent, and sent again; and what it leaves for other shards is
forwarded to them.

Everything in this package talks to the server through `Commands`, on the loop that made it. Each command
names the shard in which its keys lie, and only `Commands` knows which connection serves a shard. Today all
shards lie on one server, so one connection serves them all.

Retrying is asyncq's own. Whatever breaks on the way, the same command goes out again, with pauses, until it
is answered or its time is over. The scripts make sure that a command which arrives twice counts once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from asyncq.broker.cross_shard.forwarder import Forwarder
from asyncq.broker.schema.shards import Shards
from asyncq.broker.transport import scripts
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import Line, pause
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.config import shown
from asyncq.errors import AsyncQError, BrokerUnavailable, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.transport.connection import Address, BlockingConnection
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

FOREVER = float("inf")
"""The timeout of a worker: what it has to say is true however long the server is away. It ends with its
app."""


class SteadyTime:
    """What a session knows of the steady time in each shard.

    The limits of tasks go by a clock at the server that is never set back, see `lua/_monotonic.lua`. Only a
    process that was told the time before, and has counted since by a clock that nobody sets, notices that the
    clock of the machine was set back.
    """

    def __init__(self) -> None:
        self._reported: dict[int, tuple[int, float]] = {}

    def expected(self, shard: int) -> int | str:
        """What the steady time must have come to by now, in ms; empty if none was reported yet. Rather too
        little than too much: it counts from when the last answer was here.
        """
        reported = self._reported.get(shard)
        if reported is None:
            return ""
        steady, at = reported
        return steady + int((time.monotonic() - at) * 1000)

    def update(self, shard: int, steady: int) -> None:
        """The server has said the steady time, in ms."""
        self._reported[shard] = steady, time.monotonic()


class Commands:
    """The commands of one session.

    Args:
        address: the server.
        settings: of the app.
        channel: on which this process is notified of outcomes.

    Attributes:
        address, settings, channel: as given.
        shards: of the app's namespace.
        scripts: by name.
        client: names this process, for the names of its connections at the server.
        is_closed: whether it gives up instead of trying again.
        forwarder: forwards what shards have for each other.
        steady_time: what this session knows of it.
    """

    def __init__(self, address: Address, settings: Settings, channel: str) -> None:
        self.address = address
        self.settings = settings
        self.channel = channel
        self.shards: Shards = Shards(settings.namespace, settings.shards)
        self.scripts: dict[str, scripts.Script] = scripts.load()
        self.client: str = f"{socket.gethostname()}-{os.getpid()}"
        self.is_closed: bool = False
        self.forwarder: Forwarder = Forwarder(self)
        self.steady_time: SteadyTime = SteadyTime()
        self._loop = asyncio.get_running_loop()
        # Well under the operation timeout, so that a call on a connection that died in silence still has its
        # time to try again.
        self._line = Line(address, f"asyncq:{self.client}", timeout=settings.operation_timeout / 2)

    # -- connections --

    async def connect(self) -> None:
        """Connects, in one try, and loads the scripts.

        Raises:
            BrokerUnavailable, PipeBroken: not now.
            ServerError: the server refuses this user.
        """
        await self._line.pipe()
        await self.load_scripts()

    async def load_scripts(self) -> None:
        """Makes all scripts known to the server, in one round trip. Raises as `connect`."""
        pipe = await self._line.pipe()
        await asyncio.gather(
            *(pipe.call("SCRIPT", "LOAD", script.source) for script in self.scripts.values())
        )

    def reconnect(self) -> None:
        """Breaks the connection. The next command makes another."""
        self._line.drop()

    def new_line(self, name: str, **options: Any) -> Line:
        """Makes another connection, for what holds up all commands behind it: a read that blocks, or a
        subscription.

        Args:
            name: of the connection, in the server's CLIENT LIST.
            options: those of `Pipe`.
        """
        return Line(self.address, name, **options)

    def new_blocking_connection(self, name: str, timeout: float) -> BlockingConnection:
        """Makes another connection, for a thread that must not depend on any loop."""
        from asyncq.broker.transport.connection import BlockingConnection  # imports redis-py

        return BlockingConnection(self.address, name, timeout)

    def stop_retrying(self) -> None:
        """Begins to close: from now on a command that fails is given up, and nothing is forwarded."""
        self.is_closed = True

    async def close(self) -> None:
        """Closes the connection. Open calls end with `BrokerUnavailable`."""
        self.stop_retrying()
        if tasks := self.forwarder.close():
            await asyncio.wait(tasks, timeout=1.0)
        self._line.close()

    # -- sending --

    def build(self, name: str, keys: Sequence[str], arguments: Iterable[Any] = ()) -> tuple[Any, ...]:
        """The command that runs a script, for `send` and `post`.

        Args:
            name: of the script.
            keys: its KEYS.
            arguments: its ARGV.
        """
        return ("EVALSHA", self.scripts[name].sha, len(keys), *keys, *arguments)

    def post(
        self,
        shard: Keys,
        command: tuple[Any, ...],
        on_reply: Callable[[Any], None] | None,
        *,
        now: bool = False,
    ) -> None:
        """Sends a command once, at the end of this turn of the loop: the cheapest way to send. If there is no
        connection at the moment, none is made.

        Args:
            shard: in which its keys lie.
            command: with its arguments.
            on_reply: gets the reply, or the error as a value, exactly once. Without a connection that is
                now.
            now: do not wait for the end of the turn: for who has gathered until then.
        """
        # Written out, and without `Line.current`: each enqueue and each outcome passes here.
        pipe = self._line.latest
        if pipe is not None and pipe.broken is None:
            pipe.send(command, on_reply, now=now)
        elif on_reply is not None:
            on_reply(PipeBroken(f"there is no connection for shard {shard.shard}"))

    async def run(
        self,
        shard: Keys,
        name: str,
        keys: Sequence[str | bytes] = (),
        arguments: Iterable[Any] = (),
        *,
        timeout: float | None = None,
    ) -> Any:
        """Runs a script, again and again until it is answered. What it leaves for other shards is forwarded
        in the background.

        Args:
            shard: in which its keys lie, and those whose names it makes itself.
            name: of the script.
            keys: its KEYS.
            arguments: its ARGV.
            timeout: seconds to keep trying; None for the client's operation timeout.

        Raises:
            BrokerUnavailable: no answer in that time, or before the app was closed.
            QueueFull: the server's memory is full and the script needs some.
            ServerError: an answer that trying again will not change.
        """
        script = self.scripts[name]
        answer = await self.send(shard, "EVALSHA", script.sha, len(keys), *keys, *arguments, timeout=timeout)
        if script.fills_outbox and not self.shards.is_one:
            self.forwarder.call(shard)
        return answer

    async def run_known(
        self,
        shard: Keys,
        name: str,
        keys: Sequence[str | bytes] = (),
        arguments: Sequence[Any] = (),
        *,
        unknown: Any,
        timeout: float | None = None,
    ) -> Any:
        """Runs a script about one job, as `run` does. If it answers `unknown`, it is run again after every
        outbox was forwarded. A workflow is accepted before all of its jobs are in their shards, and the
        process that was to forward them may have died.
        """
        answer = await self.run(shard, name, keys, arguments, timeout=timeout)
        if answer == unknown and await self.forwarded_if_any(timeout):
            answer = await self.run(shard, name, keys, arguments, timeout=timeout)
        return answer

    async def send(self, shard: Keys, *command: Any, timeout: float | None = None) -> Any:
        """Sends a command until it is answered; arguments and errors as `run`."""
        timeout = self.settings.operation_timeout if timeout is None else timeout
        deadline = self._loop.time() + timeout
        attempt = 0
        problem: Exception | None = None
        while True:
            try:
                async with asyncio.timeout_at(None if timeout == FOREVER else deadline):
                    pipe = self._line.current or await self._line.pipe()
                    return await pipe.call(*command)
            except ServerError as error:
                problem = error
                if error.action is ErrorAction.DENIED and timeout == FOREVER and attempt == 0:
                    log.error("%s refuses: %s; trying on", self.address.safe_url, error)
                await self._mend(error, denied_is_final=timeout != FOREVER)
            except (PipeBroken, BrokerUnavailable) as error:
                problem = error
            except TimeoutError as error:
                last = f"; before that: {problem}" if problem else ""
                raise BrokerUnavailable(
                    f"{self.address.safe_url} did not answer within {shown(timeout)}{last}"
                ) from error
            attempt += 1
            rest = pause(attempt)
            if self.is_closed or self._loop.time() + rest > deadline:
                raise BrokerUnavailable(f"{self.address.safe_url}: {problem}") from problem
            log.debug("a command for shard %d failed (%s); again in %.2f s", shard.shard, problem, rest)
            await asyncio.sleep(rest)

    async def _mend(self, error: ServerError, *, denied_is_final: bool) -> None:
        """Does what an error asks for before the command is sent again; raises where that would not help."""
        match error.action:
            case ErrorAction.RETRY:
                pass
            case ErrorAction.LOAD:
                await self._load_scripts_again()
            case ErrorAction.RECONNECT:
                self.reconnect()
            case ErrorAction.DENIED if not denied_is_final:
                # Rights that come back hold for connections that are there; a password does not.
                if error.code != "NOPERM":
                    self.reconnect()
            case ErrorAction.FULL:
                text = f"the server at {self.address.safe_url} is out of memory ({error})"
                raise QueueFull(text) from error
            case _:
                raise error

    async def _load_scripts_again(self) -> None:
        try:
            await self.load_scripts()
        except (PipeBroken, AsyncQError) as error:
            log.debug("scripts could not be loaded (%s); again with the next try", error)

    # -- from shard to shard --

    def forward(self, *shards: Keys) -> None:
        """Forwards, in the background, what these shards may have for others. `run` does so by itself; this
        is for who posts, and for who looks after others.
        """
        for shard in shards:
            self.forwarder.call(shard)

    async def forwarded(self, *shards: Keys, timeout: float | None = None) -> None:
        """Waits until what these shards have for others was forwarded, or could not be; at most `timeout`
        seconds. What they get meanwhile does not count, for that may never end.
        """
        await self.forwarder.delivered(*shards, timeout=timeout)

    async def forwarded_if_any(self, timeout: float | None = None) -> bool:
        """Waits as `forwarded` for all shards. False if there was nothing to wait for: a single shard has
        something for itself only while a large workflow is being accepted.
        """
        first = self.shards[0]
        if self.shards.is_one and not await self.send(first, "XLEN", first.outbox, timeout=timeout):
            return False
        await self.forwarded(*self.shards, timeout=timeout)
        return True

    async def all_forwarded(self, timeout: float) -> None:
        """Waits until this process has nothing to forward any more, nor what follows from that in other
        shards; at most `timeout` seconds.
        """
        await self.forwarder.quiet(timeout)
