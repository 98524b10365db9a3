"""A fake broker: apps whose server is in this process, without a socket.

`helpers.hand_worker` ends jobs without a worker; a `Worker` works on it, too.
"""

from __future__ import annotations

from typing import Any

from asyncq import AsyncQ
from helpers.fake_broker.connection import FakeBlockingConnection, FakeConnection, address_of
from helpers.fake_broker.server import FakeServer

__all__ = ["FakeBlockingConnection", "FakeConnection", "FakeServer", "fake_app"]

URL = "redis://fake:6379/0"


def fake_app(server: FakeServer, **settings: Any) -> AsyncQ:
    """An app whose every URL leads to a fake server."""
    app = AsyncQ(URL, **settings)
    app.sessions.address_of = address_of(server)
    return app
