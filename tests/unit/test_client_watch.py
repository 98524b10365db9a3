"""A block that is cancelled when the client goes away, and in no other case."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from helpers.waiting import until

from asyncq.integrations.asgi_answers import client_gone
from asyncq.integrations.client_watch import WhileConnected

pytestmark = pytest.mark.anyio


class Client:
    """What an ASGI server says of a client."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str] = asyncio.Queue()
        self.listeners = 0

    async def receive(self) -> dict[str, Any]:
        self.listeners += 1
        try:
            return {"type": await self.messages.get()}
        finally:
            self.listeners -= 1

    def goes(self) -> None:
        self.messages.put_nowait("http.request")  # the end of a body, which comes before
        self.messages.put_nowait("http.disconnect")


async def test_a_block_ends_without_an_error_when_the_client_goes() -> None:
    client = Client()
    async with WhileConnected(client_gone(client.receive)) as watched:
        client.goes()
        await asyncio.Event().wait()
    assert watched.is_gone
    assert client.listeners == 0
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "what follows the block is not cancelled"


async def test_a_block_that_comes_to_its_end_leaves_nobody_listening() -> None:
    client = Client()
    async with WhileConnected(client_gone(client.receive)) as watched:
        await asyncio.sleep(0)
        assert client.listeners == 1
    assert (watched.is_gone, client.listeners) == (False, 0)


async def test_an_error_of_the_block_comes_out() -> None:
    client = Client()
    with pytest.raises(ValueError, match="own"):
        async with WhileConnected(client_gone(client.receive)):
            raise ValueError("own")
    assert client.listeners == 0


async def test_a_cancellation_from_elsewhere_is_no_client_that_went() -> None:
    client = Client()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), WhileConnected(client_gone(client.receive)) as watched:
            await asyncio.Event().wait()
    assert (watched.is_gone, client.listeners) == (False, 0)


async def test_a_client_that_goes_while_the_task_is_cancelled_hides_no_cancellation() -> None:
    client = Client()

    async def block() -> None:
        async with WhileConnected(client_gone(client.receive)):
            client.goes()
            await asyncio.Event().wait()
        raise AssertionError("it goes on after its cancellation")

    task = asyncio.create_task(block())
    await until(client.messages.qsize, "the client to go", every=0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.listeners == 0


async def test_an_error_of_the_server_comes_out() -> None:
    async def receive() -> dict[str, Any]:
        raise RuntimeError("an unexpected message")

    with pytest.raises(RuntimeError, match="unexpected"):
        async with WhileConnected(client_gone(receive)):
            await asyncio.sleep(0.001)
