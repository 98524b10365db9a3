"""Sends every command of a session to the server, repeats it until it is answered, and has the outbox entries
that it leaves forwarded to other shards.

All of `broker/` talks to the server through `Commands`, or over a connection that `Commands` makes (the
blocking read, the subscription, the heartbeat of a worker). It lives on the session's loop. Each command
names the shard in which its keys lie, and only `Commands` knows which connection serves a shard: one
connection serves all shards of a server, and a Cluster has a server for some shards each.

redis-py retries nothing here. Whatever breaks on the way, `Commands` sends the same command again, with
backoff, until it is answered or its time is over. The scripts make sure that a command which arrives twice
counts once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from asyncq.broker.cross_shard.forwarder import Forwarder
from asyncq.broker.schema import answer_tags
from asyncq.broker.schema.shards import Shards
from asyncq.broker.transport import scripts
from asyncq.broker.transport.connections import connections_of
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.config import shown
from asyncq.errors import AsyncQError, BrokerUnavailable, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.signing.seal import Seal
    from asyncq.broker.transport.connection import Address
    from asyncq.broker.transport.connections import (
        BlockingConnections,
        Connections,
        SharedConnections,
    )
    from asyncq.broker.transport.pipe import Pipe
    from asyncq.broker.transport.reconnect import ReconnectingConnection
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

KEEPALIVE = 30.0
"""Seconds of silence after which a PING is sent. Many proxies and firewalls forget a connection after a
minute of silence, and tell neither end: the next call would wait for half of the operation timeout."""
FOREVER = float("inf")
"""The timeout of a worker's commands: an outcome stays true however long the server is away. A command with
this timeout is given up only when the app is closed, or for an error that sending again would not mend."""

_LONGEST_MOVE_PAUSE = 0.2
"""The most seconds between two tries of a command while a Cluster gives a shard another owner."""
_REDIRECTS = 5
"""So many times in a row a command follows a shard to another server without a pause."""


class MonotonicTime:
    """What a session knows of the monotonic time in each shard.

    The limits of tasks go by the monotonic time: a clock at the server that is never set back, see
    `lua/_monotonic.lua`. The server alone cannot notice that its machine's clock was set back. A session
    can: it keeps the monotonic time of an earlier answer, and counts on from there by its own clock.
    """

    def __init__(self) -> None:
        self._reported: dict[int, tuple[int, float]] = {}

    def expected(self, shard: int) -> int | str:
        """Returns the monotonic time that a shard must have reached by now, in ms; empty if none was reported
        yet. The value is too low rather than too high: it counts from when the last answer arrived here.
        """
        reported = self._reported.get(shard)
        if reported is None:
            return ""
        monotonic, at = reported
        return monotonic + int((time.monotonic() - at) * 1000)

    def update(self, shard: int, monotonic: int) -> None:
        """Notes the monotonic time that the server has answered, in ms."""
        self._reported[shard] = monotonic, time.monotonic()


class Commands:
    """The commands of one session.

    Args:
        address: the server.
        settings: of the app.
        channel: the reply channel, on which this session is notified of outcomes.

    Attributes:
        address, settings, channel: as given.
        shards: of the app's namespace.
        scripts: all scripts, by name.
        client: host and process id, for the names of the connections in the server's CLIENT LIST.
        is_closed: True from when the app begins to close: a command that fails is not sent again.
        forwarder: delivers the entries of outboxes.
        connections: makes the connections, and knows what differs from server to server.
        monotonic_time: the clock of the tasks' limits, as this session knows it.
        on_ends: called with a shard and what a script has answered of the jobs that it has ended there,
            those that its caller does not know of; see `lua/_workflow.lua`.
        seal: signs what goes to the server, and checks what comes from there; None without secrets.
    """

    def __init__(self, address: Address, settings: Settings, channel: str) -> None:
        self.address = address
        self.settings = settings
        self.channel = channel
        self.shards: Shards = Shards(settings.namespace, settings.shard_count)
        self.scripts: dict[str, scripts.Script] = _scripts_for(address)
        self.client: str = f"{socket.gethostname()}-{os.getpid()}"
        self.is_closed: bool = False
        self.forwarder: Forwarder = Forwarder(self)
        self.monotonic_time: MonotonicTime = MonotonicTime()
        self.on_ends: Callable[[Keys, Sequence[Sequence[Any]]], None] | None = None
        self.seal: Seal | None = _seal_of(settings)
        self._loop = asyncio.get_running_loop()
        # Well under the operation timeout: when a connection died in silence, a call must notice it early
        # enough to be sent again on the next one.
        self.connections: Connections = connections_of(address, self.client, self.shards)
        self._shared = self.new_shared_connections(
            f"asyncq:{self.client}", timeout=settings.operation_timeout / 2, keepalive=KEEPALIVE
        )
        self._serving = self._shared.of

    # -- connections --

    async def connect(self) -> None:
        """Connects, in one try, and loads the scripts.

        Raises:
            BrokerUnavailable, PipeBroken: there is no connection now; another try may succeed.
            ServerError: the server refuses this user.
        """
        pipes = await asyncio.gather(*(connection.pipe() for connection in self._serving))
        self.connections.watch()
        await asyncio.gather(*map(self._load_scripts, dict.fromkeys(pipes)))

    async def load_scripts(self, shard: Keys) -> None:
        """Makes all scripts known to the server of a shard, in one round trip. Raises as `connect`."""
        await self._load_scripts(await self._serving[shard.shard].pipe())

    async def _load_scripts(self, pipe: Pipe) -> None:
        await asyncio.gather(
            *(pipe.call("SCRIPT", "LOAD", script.source) for script in self.scripts.values())
        )

    def reconnect(self) -> None:
        """Breaks all connections. Open calls get `PipeBroken`, and the next command makes another one."""
        self._shared.drop()

    def new_connection(self, name: str, *, shard: int = 0, **options: Any) -> ReconnectingConnection:
        """Makes a connection of its own for a blocking read, which would hold up all commands behind it. It
        connects when it is first used.

        Args:
            name: of the connection, in the server's CLIENT LIST.
            shard: the number of a shard: the connection is to its server.
            options: those of `Pipe`.
        """
        return self.connections.separate(shard, name, **options)

    def new_shared_connections(self, name: str, **options: Any) -> SharedConnections:
        """Makes a connection of its own to each server that has shards, for a subscription. Each connects
        when it is first used.

        Args:
            name: of the connections, in the server's CLIENT LIST.
            options: those of `Pipe`.
        """
        return self.connections.shared(name, **options)

    def new_blocking_connections(self, name: str, timeout: float) -> BlockingConnections:
        """Makes blocking connections, for a thread that must not depend on any loop: that of the heartbeat.

        Args:
            name: of the connections, in the server's CLIENT LIST.
            timeout: seconds for a connect and for each reply.
        """
        return self.connections.blocking(name, timeout)

    def stop_retrying(self) -> None:
        """Begins to close: from now on a command that fails is not sent again, and no delivery starts."""
        self.is_closed = True

    async def close(self) -> None:
        """Closes the connection. Open calls end with `BrokerUnavailable`."""
        self.stop_retrying()
        if tasks := self.forwarder.close():
            await asyncio.wait(tasks, timeout=1.0)
        await self.connections.close()
        self._shared.close()

    def shard_of_each_server(self) -> dict[str, Keys]:
        """Returns a shard of each server that has shards now, by the server's place, see `Connections`."""
        places = self.connections.places()
        return {places[keys.shard]: keys for keys in reversed(tuple(self.shards))}

    # -- sending --

    def build(
        self, shard: Keys, name: str, keys: Sequence[str | bytes], arguments: Iterable[Any] = ()
    ) -> tuple[Any, ...]:
        """Returns the command that runs a script, for `send` and `post`.

        Args:
            shard: the shard in which its keys lie.
            name: of the script.
            keys: its KEYS.
            arguments: its ARGV.
        """
        guards = self.connections.guards[shard.shard]
        return ("EVALSHA", self.scripts[name].sha, len(keys) + len(guards), *keys, *guards, *arguments)

    def post(
        self,
        shard: Keys,
        command: tuple[Any, ...],
        on_reply: Callable[[Any], None] | None,
        *,
        now: bool = False,
    ) -> None:
        """Sends a command once, at the end of this turn of the loop: the cheapest way to send. Makes no
        connection if there is none at the moment.

        Args:
            shard: the shard in which the command's keys lie.
            command: with its arguments.
            on_reply: gets the reply, or the error as a value, exactly once. Without a connection it is called
                before `post` returns.
            now: send at once. For callers that have gathered until the end of the turn themselves.
        """
        # Does by hand what `current` of the connection does: every enqueue and every outcome passes here.
        pipe = self._serving[shard.shard].latest
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
        """Runs a script, and sends it again until it is answered. Has the outbox of the shard forwarded in
        the background if the script may have written to it.

        Args:
            shard: the shard in which its keys lie, also those whose names the script makes itself.
            name: of the script.
            keys: its KEYS.
            arguments: its ARGV.
            timeout: seconds to keep trying; None for the client's operation timeout.

        Raises:
            BrokerUnavailable: there was no answer in that time, or before the app was closed. The script may
                have run all the same.
            QueueFull: the server's memory is full and the script needs some.
            ServerError: an answer that trying again will not change.
        """
        answer = await self.send(shard, *self.build(shard, name, keys, arguments), timeout=timeout)
        if not self.scripts[name].fills_outbox:
            return answer
        if not self.shards.is_one:
            self.forwarder.call(shard)
        return self.without_ends(shard, answer)

    def without_ends(self, shard: Keys, answer: Any) -> Any:
        """Returns the answer of a script without the jobs that it says to have ended, which `on_ends` gets.
        `run` does so by itself. This is for those who send a script otherwise.
        """
        if type(answer) is not list or not answer or type(answer[0]) is not bytes:
            return answer
        if answer[0] != answer_tags.ENDS:
            return answer
        _, answer, ends = answer
        if self.on_ends is not None:
            self.on_ends(shard, ends)
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
        """Runs a script about one job, as `run` does. If the script answers `unknown`, delivers all outboxes
        and runs it again. For a workflow is accepted before all of its jobs are in their shards, and the
        process that should have forwarded them may have died.
        """
        answer = await self.run(shard, name, keys, arguments, timeout=timeout)
        if answer == unknown and await self.forwarded_if_any(timeout):
            answer = await self.run(shard, name, keys, arguments, timeout=timeout)
        return answer

    async def send(self, shard: Keys, *command: Any, timeout: float | None = None) -> Any:
        """Sends a command again until it is answered, and returns the reply. Arguments and errors as `run`.

        A cancellation ends the retries. It does not take back a command that was sent already.
        """
        timeout = self.settings.operation_timeout if timeout is None else timeout
        deadline = self._loop.time() + timeout
        attempt = 0
        problem: Exception | None = None
        while True:
            try:
                async with asyncio.timeout_at(None if timeout == FOREVER else deadline):
                    connection = self._serving[shard.shard]
                    pipe = connection.current or await connection.pipe()
                    return await pipe.call(*command)
            except ServerError as error:
                problem = error
                if error.action is ErrorAction.DENIED and timeout == FOREVER and attempt == 0:
                    log.error("%s refuses: %s; trying again", self.address.safe_url, error)
                if await self.mend(shard, error, denied_is_final=timeout != FOREVER) and attempt < _REDIRECTS:
                    attempt += 1
                    continue
            except (PipeBroken, BrokerUnavailable) as error:
                problem = error
            except TimeoutError as error:
                last = f"; before that: {problem}" if problem else ""
                raise BrokerUnavailable(
                    f"{self.address.safe_url} did not answer within {shown(timeout)}{last}"
                ) from error
            attempt += 1
            rest = self._rest(attempt, deadline, is_of_cluster=_is_of_cluster(problem))
            if rest is None:
                raise BrokerUnavailable(f"{self.address.safe_url}: {problem}") from problem
            log.debug(
                "a command for shard %d failed (%s); trying again in %.2f s", shard.shard, problem, rest
            )
            await asyncio.sleep(rest)

    def _rest(self, attempt: int, deadline: float, *, is_of_cluster: bool) -> float | None:
        """Returns the seconds until another try; None if there is none: it would be too late, or the app is
        being closed.
        """
        rest = min(pause(attempt), _LONGEST_MOVE_PAUSE) if is_of_cluster else pause(attempt)
        return None if self.is_closed or self._loop.time() + rest > deadline else rest

    async def mend(self, shard: Keys, error: ServerError, *, denied_is_final: bool = False) -> bool:
        """Does what must precede another try after this error. Returns whether the next try needs no pause.
        Raises if another try would not help.
        """
        at_once = self.take_error(shard.shard, error)
        match error.action:
            case ErrorAction.RETRY | ErrorAction.MOVED:
                pass
            case ErrorAction.LOAD:
                await self._load_scripts_again(shard)
            case ErrorAction.RECONNECT:
                self.reconnect()
            case ErrorAction.DENIED if not denied_is_final:
                # A permission that is given later holds for connections that exist already. A password that
                # is corrected later needs a new connection.
                if error.code != "NOPERM":
                    self.reconnect()
            case ErrorAction.FULL:
                text = f"the server at {self.address.safe_url} is out of memory ({error})"
                raise QueueFull(text) from error
            case _:
                raise error
        return at_once

    def take_error(self, shard: int, error: ServerError) -> bool:
        """Takes in an error that may say that another server serves a shard. Returns whether the same command
        may be sent again at once.

        Args:
            shard: its number.
            error: of the server that was asked.
        """
        return self.connections.take_error(shard, error)

    async def _load_scripts_again(self, shard: Keys) -> None:
        try:
            await self.load_scripts(shard)
        except (PipeBroken, AsyncQError) as error:
            log.debug("scripts could not be loaded (%s); the next try loads them again", error)

    # -- from shard to shard --

    def forward(self, *shards: Keys) -> None:
        """Has the outboxes of these shards delivered in the background. `run` does so by itself. This is for
        callers of `post`, and for workers, which deliver what other processes have left.
        """
        for shard in shards:
            self.forwarder.call(shard)

    async def forwarded(self, *shards: Keys, timeout: float | None = None) -> None:
        """Waits until the entries that are now in the outboxes of these shards are delivered, or an attempt
        to deliver them failed; at most `timeout` seconds. Entries that come in meanwhile do not count, for
        that may never end.
        """
        await self.forwarder.delivered(*shards, timeout=timeout)

    async def forwarded_if_any(self, timeout: float | None = None) -> bool:
        """Waits as `forwarded` for all shards, after a look at who serves them: a node of a Cluster that has
        become a replica may say that it knows no such job. Returns False if there was nothing to wait for: a
        single shard has outbox entries, for itself, only while a large workflow is being accepted.
        """
        await self._confirm_owners(timeout)
        first = self.shards[0]
        if self.shards.is_one and not await self.send(first, "XLEN", first.outbox, timeout=timeout):
            return False
        await self.forwarded(*self.shards, timeout=timeout)
        return True

    async def _confirm_owners(self, timeout: float | None) -> None:
        """Asks who serves the shards, again until a node says that the Cluster is up. Arguments and errors as
        `run`.
        """
        timeout = self.settings.operation_timeout if timeout is None else timeout
        deadline = self._loop.time() + timeout
        attempt = 0
        while True:
            try:
                await self.connections.confirm_owners()
                return
            except BrokerUnavailable:
                attempt += 1
                rest = self._rest(attempt, deadline, is_of_cluster=True)
                if rest is None:
                    raise
            await asyncio.sleep(rest)

    async def all_forwarded(self, timeout: float) -> None:
        """Waits until this session delivers nothing any more, nor what a delivery has put into the outbox of
        another shard; at most `timeout` seconds.
        """
        await self.forwarder.quiet(timeout)


def _scripts_for(address: Address) -> dict[str, scripts.Script]:
    if address.is_cluster:
        return scripts.load_for_cluster()
    return scripts.load_for_tests() if address.has_virtual_clock else scripts.load()


def _is_of_cluster(problem: Exception | None) -> bool:
    """Returns whether an error passes when a shard has an owner again, which takes a second or two."""
    return isinstance(problem, ServerError) and problem.code in {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"}


def _seal_of(settings: Settings) -> Seal | None:
    if not settings.secrets:
        return None
    # Imported only here: most apps have no secrets, and each of their processes saves the memory.
    from asyncq.broker.signing.seal import Seal

    return Seal(settings)
