"""A real Django site under ASGI, with the worker in another process and a real client."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import until, until_state

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.program import Program


@pytest.fixture(scope="module")
def site(start: Callable[..., Program]) -> Iterator[str]:
    program = start("django_site.py")
    yield f"http://127.0.0.1:{program.first_line()}"
    status, errors = program.stop()
    assert errors == ""
    assert status in {0, -15}, "uvicorn raises the signal again when it has shut down"


@pytest.mark.anyio
async def test_the_jobs_of_clients_that_go_away_end(
    site: str, server_url: str, shared_namespace: str
) -> None:
    import httpx  # here, because each process of the tests imports all test files

    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        handles = [app.AsyncResult(uuid.uuid4().hex) for _ in range(10)]
        async with httpx.AsyncClient(base_url=site, timeout=60) as client:
            requests = [asyncio.create_task(client.get(f"/naps/{handle.id}")) for handle in handles]
            await asyncio.gather(*(until_state(handle, "STARTED") for handle in handles))

            async def all_wait() -> bool:
                return (await client.get("/waiting")).text == "10"

            await until(all_wait, "all requests to wait for their jobs")
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

            await asyncio.gather(*(until_state(handle, "REVOKED") for handle in handles))
