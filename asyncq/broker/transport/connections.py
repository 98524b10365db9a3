"""Makes the connections of one session, of every kind, and has them closed when their server is the master no
more. Whether Sentinels say where the server is, only this module, `sentinel` and `master_watch` know.

Lives on the session's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.broker.transport.reconnect import ReconnectingConnection

if TYPE_CHECKING:
    from asyncq.broker.transport.connection import Address, BlockingConnection
    from asyncq.broker.transport.master_watch import MasterWatch


class Connections:
    """The connections of one session.

    Args:
        address: of the server.
        client: host and process id, for the names of the connections.
    """

    def __init__(self, address: Address, client: str) -> None:
        self._address = address
        self._watch: MasterWatch | None = None
        if address.sentinels is not None:
            from asyncq.broker.transport.master_watch import MasterWatch  # most sessions do not need it

            self._watch = MasterWatch(address, f"asyncq-sentinel:{client}")

    def reconnecting(self, name: str, **options: Any) -> ReconnectingConnection:
        """Makes a connection that connects when it is first used; see `ReconnectingConnection`."""
        connection = ReconnectingConnection(self._address, name, **options)
        if self._watch is not None:
            self._watch.add(connection)
        return connection

    def blocking(self, name: str, timeout: float) -> BlockingConnection:
        """Makes a blocking connection, for a thread without a loop. Arguments as of `BlockingConnection`."""
        from asyncq.broker.transport.sentinel import blocking_connection  # imports redis-py

        connection = blocking_connection(self._address, name, timeout)
        if self._watch is not None:
            self._watch.add(connection)
        return connection

    def watch(self) -> None:
        """Begins to listen for changes of the master, if Sentinels know it. A second call does nothing."""
        if self._watch is not None:
            self._watch.start()

    async def close(self) -> None:
        """Stops listening. The connections are closed by those who use them."""
        if self._watch is not None:
            await self._watch.close()
