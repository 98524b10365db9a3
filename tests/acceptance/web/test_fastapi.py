"""A real FastAPI site under a real uvicorn, with the worker in another process and a real client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import httpx
    from helpers.program import Program

REQUESTS = 200


@pytest.fixture(scope="module")
def site(start: Callable[..., Program]) -> Iterator[str]:
    program = start("fastapi_site.py")
    yield f"http://127.0.0.1:{program.first_line()}"
    status, errors = program.stop()
    assert errors == ""
    assert status in {0, -15}, "uvicorn raises the signal again when it has shut down"


@pytest.fixture
async def client(site: str) -> AsyncIterator[httpx.AsyncClient]:
    import httpx  # here, because each process of the tests imports all test files

    limits = httpx.Limits(max_connections=REQUESTS)
    async with httpx.AsyncClient(base_url=site, limits=limits, timeout=20) as client:
        yield client


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/sum", pytest.param("/blocking/sum", marks=pytest.mark.trial)])
async def test_concurrent_requests_each_get_the_value_of_their_own_job(
    client: httpx.AsyncClient, path: str
) -> None:
    requests = [client.get(path, params={"x": number, "y": 1000 * number}) for number in range(REQUESTS)]

    answers = await asyncio.gather(*requests)

    assert [answer.json() for answer in answers] == [1001 * number for number in range(REQUESTS)]


@pytest.mark.anyio
async def test_blocking_calls_of_def_endpoints_run_on_one_background_loop(client: httpx.AsyncClient) -> None:
    threads = (await client.get("/blocking/threads")).json()

    assert "MainThread" in threads
    assert threads.count("asyncq-loop") == 1


@pytest.mark.anyio
async def test_the_error_about_a_blocking_call_in_an_async_endpoint_names_the_awaitable(
    client: httpx.AsyncClient,
) -> None:
    answer = (await client.get("/blocking-in-async")).json()

    assert "call_sync() would block the event loop" in answer
    assert "await" in answer


@pytest.mark.anyio
async def test_a_job_runs_in_the_worker_process(client: httpx.AsyncClient, worker: Program) -> None:
    site_id, job_id = (await client.get("/processes")).json()

    assert job_id == worker.process.pid
    assert site_id != job_id


@pytest.mark.anyio
async def test_a_job_of_a_request_can_be_awaited_elsewhere_by_its_id(
    client: httpx.AsyncClient, server_url: str, shared_namespace: str
) -> None:
    launched = await client.post("/jobs", params={"x": 40, "y": 2, "seconds": 0.3})

    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        assert await app.AsyncResult(launched.json()).get(timeout=30) == 42
