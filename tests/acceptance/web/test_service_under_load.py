"""A site that awaits a job in each request, under load, while clients, a worker and the server go away."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from helpers.own_server import own_server
from helpers.waiting import until

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from helpers.program import Program

pytestmark = pytest.mark.anyio

RATE = 100
"""Requests a second."""
ABORTED = 2_000
WAVE = 200
"""How many of the requests that are given up wait at once."""


@pytest.fixture
def site(start: Callable[..., Program]) -> Iterator[int]:
    program = start("jobs_site.py")
    yield int(program.first_line())
    assert program.stop()[1] == ""


class Load:
    """Requests for sums that come at a steady rate, whether or not the earlier ones were answered.

    Attributes:
        answers: how many answers had which status. An answer of 200 with a wrong sum counts as `"wrong"`.
    """

    def __init__(self, http: Any, port: int) -> None:
        self._http = http
        self._site = f"http://127.0.0.1:{port}"
        self.answers: Counter[int | str] = Counter()

    async def request(self, number: int) -> None:
        async with self._http.get(f"{self._site}/sum?x={number}&y=1") as answer:
            is_wrong = answer.status == 200 and await answer.json() != number + 1
            self.answers["wrong" if is_wrong else answer.status] += 1

    async def run(self) -> None:
        """Makes requests until it is cancelled, and then waits for all answers."""
        number = 0
        async with asyncio.TaskGroup() as requests:
            try:
                while True:
                    requests.create_task(self.request(number))
                    number += 1
                    await asyncio.sleep(1 / RATE)
            except asyncio.CancelledError:
                pass

    async def until_more(self, count: int) -> None:
        """Waits until so many more requests were answered."""
        wanted = self.answers.total() + count
        await until(lambda: self.answers.total() >= wanted, f"{count} more answers")


@asynccontextmanager
async def load(port: int) -> AsyncIterator[Load]:
    """Makes requests during the block. At its end, each request has been answered."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        requests = Load(http, port)
        running = asyncio.create_task(requests.run())
        await requests.until_more(RATE // 2)
        yield requests
        running.cancel()
        await running


async def test_2_000_requests_that_clients_give_up_leave_nothing_and_end_their_jobs(
    site: int, server_url: str, shared_namespace: str
) -> None:
    import httpx

    async with (
        AsyncQ(server_url, namespace=shared_namespace) as jobs,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{site}", timeout=30) as client,
    ):

        async def left() -> dict[str, int]:
            return (await client.get("/left")).json()

        async def only_what_was_there() -> bool:
            now = await left()
            return all(now[kind] <= count for kind, count in before.items())

        async def all_wait() -> bool:
            return (await left())["waits"] >= before["waits"] + WAVE

        before = await left()
        handles = [jobs.AsyncResult(uuid.uuid4().hex) for _ in range(ABORTED)]
        for first in range(0, ABORTED, WAVE):
            writers = [await send(site, f"/naps/{each.id}?seconds=60") for each in handles[first:][:WAVE]]
            await until(all_wait, f"{WAVE} requests to wait")
            for writer in writers:
                writer.close()
            await until(only_what_was_there, f"only {before} to be left")

        async def all_are_revoked() -> bool:
            return {await handle.refresh() for handle in handles} == {"REVOKED"}

        await until(all_are_revoked, "all jobs to be revoked", every=0.1)
        assert await client.get("/sum", params={"x": 1, "y": 2}) is not None


async def send(port: int, path: str) -> asyncio.StreamWriter:
    """Sends a request, and does not wait for an answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: site\r\n\r\n".encode())
    return writer


async def test_a_restart_of_one_of_two_workers_under_load_costs_no_request(
    site: int, start: Callable[..., Program]
) -> None:
    second = start("worker")
    assert second.first_line() == "ready"
    async with load(site) as requests:
        assert (await asyncio.to_thread(second.stop)) == (0, "")
        successor = start("worker")
        assert await asyncio.to_thread(successor.first_line) == "ready"
        await requests.until_more(RATE // 2)

    assert set(requests.answers) == {200}
    assert successor.stop() == (0, "")


@pytest.mark.parametrize(
    ("durable", "statuses"), [(True, {200}), (False, {200, 404})], ids=["with its data", "without its data"]
)
async def test_a_restart_of_the_server_under_load_costs_what_the_guarantees_say(
    tmp_path: Path, start: Callable[..., Program], durable: bool, statuses: set[int]
) -> None:
    with own_server(tmp_path / "server", durable=durable) as server:
        worker = start("worker", ASYNCQ_URL=server.url)
        site = start("jobs_site.py", ASYNCQ_URL=server.url)
        assert worker.first_line() == "ready"
        async with load(int(site.first_line())) as requests:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await requests.until_more(RATE)
        worker.stop()
        site.stop()

    assert set(requests.answers) <= statuses
    assert requests.answers[200] > RATE
