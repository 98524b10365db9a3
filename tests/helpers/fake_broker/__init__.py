"""A fake broker: apps whose server is in this process, without a socket.

`server` answers commands, `commands` and `streams` hold the data, `scripts` runs asyncq's Lua, and
`connection` replaces redis-py's connections. Tests end jobs with `helpers.hand_worker`; a `Worker` can run on
it, too.
"""

from __future__ import annotations

from typing import Any

from asyncq import AsyncQ
from helpers.fake_broker.connection import FakeBlockingConnection, FakeConnection, address_of
from helpers.fake_broker.server import FakeServer

__all__ = ["FakeBlockingConnection", "FakeConnection", "FakeServer", "fake_app"]

URL = "redis://fake:6379/0"


def fake_app(server: FakeServer, **settings: Any) -> AsyncQ:
    """Makes an app that is connected with a fake server, whatever its URL is."""
    app = AsyncQ(URL, **settings)
    app.sessions.address_of = address_of(server)
    return app
