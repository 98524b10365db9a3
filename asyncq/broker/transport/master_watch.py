"""Listens to a Sentinel for the news that another server is the master, and closes the connections to the old
one at once. Without it, a process that can still reach the old master would go on with it: write what is lost
when it becomes a replica, and wait for what never comes.

Runs on the session's loop, as one task. It is a help only: a connection that breaks, and a server that
answers READONLY, lead to the new master, too. So no error here ends anything.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from asyncq.broker.transport.background import ErrorLog, forever
from asyncq.broker.transport.pipe import Pipe
from asyncq.broker.transport.reconnect import pause
from asyncq.errors import BrokerUnavailable
from asyncq.system.tasks import cancel_and_wait

if TYPE_CHECKING:
    from asyncq.broker.transport.connection import Address, Sentinels

log: logging.Logger = logging.getLogger(__name__)

CHANNEL = b"+switch-master"
KEEPALIVE = 4.0
"""Seconds of silence after which a PING is sent, and seconds that its answer may take."""


_LOOK_EVERY = 0.25
_LOOKS = 40
"""Seconds between two looks at all connections after a change, and how many there are. They find those to the
old master that were being made at the change, and were not among the connections yet."""


class _Connection(Protocol):
    """A connection that can be told to break."""

    @property
    def endpoint(self) -> tuple[str, int] | None: ...

    def drop(self) -> None: ...


class MasterWatch:
    """Breaks the connections of one session to a server that is the master no more.

    Args:
        address: of the server; it must have Sentinels.
        name: of the connection, in the Sentinel's CLIENT LIST.
    """

    def __init__(self, address: Address, name: str) -> None:
        assert address.sentinels is not None
        self._address = address
        self._sentinels: Sentinels = address.sentinels
        self._name = name
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._master: tuple[str, int] | None = None
        self._subscribed = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, connection: _Connection) -> None:
        """Watches over a connection, for as long as somebody uses it."""
        self._connections.add(connection)

    def start(self) -> None:
        """Starts to listen. A second call does nothing."""
        if self._task is None:
            errors = ErrorLog(log, "no Sentinel reports changes of the master")
            # In an empty context: the task outlives this call, and must not keep the caller's variables.
            self._task = asyncio.get_running_loop().create_task(
                forever(self._listen_to_one, errors), context=contextvars.Context()
            )

    async def close(self) -> None:
        """Ends the task. A second call does nothing."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _listen_to_one(self) -> None:
        """Listens to the first Sentinel that can be reached, until that is lost.

        Raises:
            BrokerUnavailable: none can be reached.
        """
        for sentinel in self._sentinels.in_order():
            if await self._listen(sentinel):
                await asyncio.sleep(pause(1))  # it may end each connection at once
                return
        raise BrokerUnavailable("no Sentinel can be reached")

    async def _listen(self, sentinel: Address) -> bool:
        """Listens to a Sentinel until it is lost. Returns False if it does not answer."""
        self._subscribed.clear()
        self._lost.clear()
        try:
            pipe = await Pipe.open(
                sentinel,
                self._name,
                on_push=self._on_push,
                on_broken=lambda _: self._lost.set(),
                keepalive=KEEPALIVE,
                timeout=KEEPALIVE,
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the next one may be there
            log.debug("the Sentinel at %s reports no changes of the master: %s", sentinel.safe_url, error)
            return False
        try:
            pipe.post("SUBSCRIBE", CHANNEL)
            try:
                async with asyncio.timeout(KEEPALIVE):
                    await self._subscribed.wait()
            except TimeoutError:
                log.debug("the Sentinel at %s does not confirm a channel", sentinel.safe_url)
                return False
            await self._catch_up()
            await self._lost.wait()
        finally:
            pipe.abort()
        return True

    async def _catch_up(self) -> None:
        """Looks whether the master has changed while nobody listened."""
        from asyncq.broker.transport import connection, sentinel  # imports redis-py

        named = await sentinel.first_answer(self._sentinels)
        if not self._elsewhere((named.host, named.port)):
            return
        # A Sentinel that was away may name an old master. So the answer counts only if a master is there.
        handshaken = await sentinel.connect(self._address, self._name)
        connection.let_go(handshaken)
        master = connection.endpoint(handshaken)
        if master is not None:
            self._switch(master)

    def _on_push(self, push: list[Any]) -> None:
        """Takes a push of the Sentinel: the confirmation of the channel, or a change of some master."""
        if push[0] == b"subscribe":
            self._subscribed.set()
        elif push[0] == b"message":
            words = push[2].decode(errors="replace").split(" ")
            if len(words) == 5 and words[0] == self._sentinels.master and words[4].isdecimal():
                log.info("the master of %s is now %s:%s", self._address.safe_url, words[3], words[4])
                self._switch((words[3], int(words[4])))

    def _switch(self, master: tuple[str, int]) -> None:
        self._master = master
        self._sentinels.report(*master)
        self._drop_others()
        for number in range(1, _LOOKS + 1):
            asyncio.get_running_loop().call_later(number * _LOOK_EVERY, self._drop_others)

    def _drop_others(self) -> None:
        if self._master is not None:
            for connection in self._elsewhere(self._master):
                connection.drop()

    def _elsewhere(self, master: tuple[str, int]) -> list[_Connection]:
        """Returns the connections that lead to another server than the master."""
        return [each for each in self._connections if each.endpoint not in (None, master)]
