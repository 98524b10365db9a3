"""What the client depends on of a server, asked of the fake one and of a real one.

So a fake that answers otherwise than a server fails here, and not in a test that believed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.apps import closed_at_the_end
from helpers.fake_broker import FakeServer, fake_app
from helpers.hand_worker import HandWorker, hand_worker

from asyncq import AsyncQ, wire
from asyncq.serializers import PLAIN_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncq.broker.broker import Broker


def pytest_itemcollected(item: pytest.Item) -> None:
    # Those on a real server ask for it by name, so that the checks around every test see that they do; those
    # on the fake one start none.
    if isinstance(item, pytest.Function) and item.callspec.params.get("server") == "real":
        item.fixturenames = ["server_url", *item.fixturenames]


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> FakeServer | str:
    """A server: the fake one, or the URL of a real one."""
    return FakeServer() if request.param == "fake" else request.getfixturevalue("server_url")


@pytest.fixture
def make_app(server: FakeServer | str, namespace: str) -> Iterator[Callable[..., AsyncQ]]:
    """Makes apps on the server."""

    def make(**settings: Any) -> AsyncQ:
        settings = {"namespace": namespace, **settings}
        return AsyncQ(server, **settings) if isinstance(server, str) else fake_app(server, **settings)

    with closed_at_the_end(make) as make_app:
        yield make_app


@pytest.fixture
async def app(make_app: Callable[..., AsyncQ]) -> AsyncIterator[AsyncQ]:
    """An open app."""
    async with (app := make_app()):
        yield app


@pytest.fixture
async def broker(app: AsyncQ) -> Broker:
    """The verbs, as the client uses them."""
    return app.sessions.current().broker


@pytest.fixture
async def hand(app: AsyncQ) -> AsyncIterator[HandWorker]:
    """A worker whose jobs the test ends."""
    async with hand_worker(app) as worker:
        yield worker


@pytest.fixture
def make_job(broker: Broker) -> Callable[..., tuple[wire.Job, bytes]]:
    """Makes jobs of one task with their messages."""

    def make(id_: str, *args: Any, request_id: str = "", **options: Any) -> tuple[wire.Job, bytes]:
        body = PLAIN_ARGUMENTS.dumps(args, {})
        fixed = {
            "queue": "default",
            "channel": broker.channel,
            "enqueued": 1,
            "result_ttl": 60_000,
            **options,
        }
        job = wire.Job(id=id_, name="task", body=body, request_id=request_id or f"n-{id_}", **fixed)
        return job, wire.encode_job(job)

    return make
