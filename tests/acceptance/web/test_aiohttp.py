"""A real aiohttp server, with the worker in another process and a real client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import aiohttp
    from helpers.program import Program

REQUESTS = 200


@pytest.fixture(scope="module")
def site(start: Callable[..., Program]) -> Iterator[str]:
    program = start("aiohttp_site.py")
    yield f"http://127.0.0.1:{program.first_line()}"
    assert program.stop() == (0, "")


@pytest.fixture
async def client(site: str) -> AsyncIterator[aiohttp.ClientSession]:
    import aiohttp  # here, for each process of the tests reads all files of tests

    connector = aiohttp.TCPConnector(limit=REQUESTS)
    async with aiohttp.ClientSession(site, connector=connector) as client:
        yield client


@pytest.mark.anyio
async def test_concurrent_requests_each_get_the_value_of_their_own_job(client: aiohttp.ClientSession) -> None:
    async def ask(number: int) -> int:
        async with client.get(f"/sum?x={number}&y={1000 * number}") as answer:
            return int(await answer.json())

    answers = await asyncio.gather(*(ask(number) for number in range(REQUESTS)))

    assert answers == [1001 * number for number in range(REQUESTS)]


@pytest.mark.anyio
async def test_a_job_runs_in_the_worker_process(client: aiohttp.ClientSession, worker: Program) -> None:
    async with client.get("/processes") as answer:
        site_id, job_id = await answer.json()

    assert job_id == worker.process.pid
    assert site_id != job_id


@pytest.mark.anyio
async def test_a_job_of_a_request_can_be_awaited_elsewhere_by_its_id(
    client: aiohttp.ClientSession, server_url: str, shared_namespace: str
) -> None:
    async with client.post("/jobs?x=40&y=2&seconds=0.3") as answer:
        job_id = await answer.json()

    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        assert await app.AsyncResult(job_id).get(timeout=30) == 42


@pytest.mark.anyio
async def test_the_end_of_a_site_ends_its_streams_and_web_sockets_at_once(
    start: Callable[..., Program], server_url: str, shared_namespace: str
) -> None:
    import aiohttp

    program = start("aiohttp_jobs_site.py")
    url = f"http://127.0.0.1:{program.first_line()}"
    async with aiohttp.ClientSession(url) as client:
        async with client.post("/naps?seconds=60") as answer:
            job = answer.headers["Location"]
        async with client.get(f"{job}/events") as events, client.ws_connect(f"{job}/ws") as socket:
            assert await events.content.readline() == b"id: 1\n"
            assert (await socket.receive_json())["state"] in {"PENDING", "STARTED"}

            program.process.terminate()

            await events.read()  # to its end, which is no error
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    assert program.end() == ""
    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        await app.AsyncResult(job.rpartition("/")[2]).revoke(terminate=True)


@pytest.mark.anyio
async def test_a_site_without_a_router_says_what_accepted_needs(server_url: str) -> None:
    from aiohttp import web
    from aiohttp.test_utils import make_mocked_request

    from asyncq.integrations.aiohttp import accepted, jobs_router

    app = AsyncQ(server_url)
    request = make_mocked_request("GET", "/", app=web.Application())
    with pytest.raises(LookupError, match="add_subapp"):
        accepted(app.AsyncResult("x"), request)
    with pytest.raises(TypeError, match="authorize=True"):
        jobs_router(app, authorize=True)  # type: ignore[arg-type]
