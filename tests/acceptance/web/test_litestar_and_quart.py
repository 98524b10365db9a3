"""Sites of Litestar and of Quart under uvicorn, with the worker in another process and real clients."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import until_state

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import httpx
    from helpers.program import Program

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["litestar", "quart"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(framework: str, start: Callable[..., Program]) -> Iterator[str]:
    program = start(f"{framework}_site.py")
    yield f"http://127.0.0.1:{program.first_line()}"
    status, errors = program.stop()
    assert errors == ""
    assert status in {0, -15}, "uvicorn raises the signal again when it has shut down"


@pytest.fixture
async def client(site: str) -> AsyncIterator[httpx.AsyncClient]:
    import httpx  # here, because each process of the tests imports all test files

    async with httpx.AsyncClient(base_url=site, timeout=60) as client:
        yield client


async def test_handlers_on_the_loop_and_in_threads_wait_for_jobs(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(client.get(f"{path}?x={x}&y=1") for path in ("/sum", "/blocking/sum") for x in range(10))
    )

    assert [answer.text for answer in answers] == [str(x + 1) for x in range(10)] * 2


async def test_a_stream_follows_a_job_to_its_end(
    client: httpx.AsyncClient, server_url: str, shared_namespace: str
) -> None:
    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        result = await app.send("tasks.nap", (0.2,))
        answer = await client.get(f"/naps/{result.id}/events")

    shown = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert shown[-1] == "SUCCESS"


async def test_the_jobs_of_clients_that_go_away_are_what_the_page_says(
    framework: str, client: httpx.AsyncClient, server_url: str, shared_namespace: str
) -> None:
    seconds, state = (3.0, "SUCCESS") if framework == "litestar" else (60.0, "REVOKED")
    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        handles = [app.AsyncResult(uuid.uuid4().hex) for _ in range(5)]
        requests = [
            asyncio.create_task(client.get(f"/naps/{handle.id}?seconds={seconds}")) for handle in handles
        ]
        await asyncio.gather(*(until_state(handle, "STARTED") for handle in handles))
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

        await asyncio.gather(*(until_state(handle, state) for handle in handles))


async def test_a_stream_whose_client_goes_away_leaves_the_job_alone(
    client: httpx.AsyncClient, server_url: str, shared_namespace: str
) -> None:
    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        result = await app.send("tasks.nap", (1.0,))
        async with client.stream("GET", f"/naps/{result.id}/events") as answer:
            await anext(answer.aiter_lines())

        assert await result.get(timeout=30) == "rested"
