"""Sites of Starlette alone, and sites under a `TestClient`, in this process, with the worker in another."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers import event_source

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.program import Program
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


# Its successor need not be installed.
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")


@pytest.fixture
def jobs(server_url: str, shared_namespace: str, worker: Program) -> Iterator[AsyncQ]:
    app = AsyncQ(server_url, namespace=shared_namespace)
    yield app
    app.close_sync()


async def anybody(_request: Any, _id: str) -> bool:
    return True


def starlette_site(app: AsyncQ, name: str | None = None) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount, Route

    from asyncq.integrations.fastapi import (
        accepted,
        add_error_handlers,
        cancel_on_disconnect,
        jobs_router,
    )

    async def start(request: Request) -> Response:
        response = Response()
        accepted(await app.send("tasks.draw", (2,)), response, request)
        return response

    async def wait_for_sum(request: Request) -> Response:
        async with cancel_on_disconnect(request, await app.send("tasks.add", (4, 4))) as result:
            return JSONResponse(await result.get(timeout=20))

    async def fail(_request: Request) -> Response:
        return JSONResponse(await (await app.send("tasks.fail", ("value",))).get(timeout=20))

    site = Starlette(
        routes=[
            Route("/pictures", start, methods=["POST"]),
            Route("/sum", wait_for_sum),
            Route("/failure", fail),
            Mount("/jobs", jobs_router(app, authorize=anybody), name=name),
        ],
        lifespan=app.lifespan,
    )
    add_error_handlers(site)
    return site


@pytest.fixture(params=["with FastAPI installed", "without FastAPI"])
def _fastapi(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without FastAPI":
        from asyncq.integrations import fastapi

        monkeypatch.setattr(fastapi, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("_fastapi")
@pytest.mark.parametrize("name", [None, "followers"])
def test_a_site_of_starlette_alone_has_all_endpoints(jobs: AsyncQ, name: str | None) -> None:
    from starlette.testclient import TestClient
    from starlette.websockets import WebSocketDisconnect

    with TestClient(starlette_site(jobs, name)) as client:
        accepted = client.post("/pictures")
        url = accepted.headers["location"]
        assert (accepted.status_code, accepted.headers["retry-after"], accepted.content) == (202, "1", b"")
        assert url.startswith("/jobs/")
        shown = client.get(url, headers={"Prefer": "wait=20"}).json()
        assert (shown["state"], shown["value"]["title"]) == ("SUCCESS", "Dawn")
        *_, last, end = event_source.parse(client.get(f"{url}/events").text.splitlines())
        assert last.data == end.data == shown
        assert client.get(f"{url}/stream").status_code == 200
        with client.websocket_connect(f"{url}/ws") as socket:
            assert json.loads(socket.receive_text()) == shown
            with pytest.raises(WebSocketDisconnect):
                socket.receive_text()
        assert client.delete(url).status_code == 204
        assert client.get("/jobs/nobody").status_code == 404
        assert client.get("/sum").json() == 8
        assert client.get("/failure").json()["exception"] == "ValueError"


def test_the_package_works_where_fastapi_and_pydantic_are_not_installed() -> None:
    program = """
import sys
for name in ("fastapi", "pydantic", "pydantic_core"):
    sys.modules[name] = None
import importlib.util
from asyncq import AsyncQ
from asyncq.integrations import fastapi
fastapi.find_spec = lambda name: None
print(type(fastapi.jobs_router(AsyncQ("redis://nowhere"), authorize=lambda request, id: True)).__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )

    assert (done.stdout, done.stderr) == ("starlette.routing\n", "")


@pytest.mark.parametrize("opens", [True, False], ids=["with its block", "without its block"])
def test_a_test_client_serves_all_with_and_without_its_block(jobs: AsyncQ, opens: bool) -> None:
    from fastapi import FastAPI, Request, Response
    from fastapi.testclient import TestClient

    from asyncq.integrations.fastapi import (
        JobAccepted,
        accepted,
        add_error_handlers,
        cancel_on_disconnect,
        jobs_router,
    )

    globals().update(Request=Request, Response=Response, JobAccepted=JobAccepted)  # for the annotations
    site = FastAPI(lifespan=jobs.lifespan)
    site.include_router(jobs_router(jobs, authorize=anybody), prefix="/jobs")
    add_error_handlers(site)

    @site.post("/counts", status_code=202)
    async def start(request: Request, response: Response) -> JobAccepted:  # type: ignore[valid-type]
        return accepted(await jobs.send("tasks.count", (3,)), response, request)

    @site.get("/sum")
    async def wait_for_sum(request: Request) -> int:
        async with cancel_on_disconnect(request, await jobs.send("tasks.add", (4, 4))) as result:
            return await result.get(timeout=20)

    def use(client: TestClient) -> None:
        url = client.post("/counts").json()["url"]
        assert client.get(url, headers={"Prefer": "wait=20"}).json()["state"] == "SUCCESS"
        items = event_source.parse(client.get(f"{url}/stream").text.splitlines())
        assert [item.data for item in items[:-1]] == [1, 2, 3]
        assert event_source.parse(client.get(f"{url}/events").text.splitlines())[-1].kind == "end"
        with client.websocket_connect(f"{url}/ws") as socket:
            assert socket.receive_json()["state"] == "SUCCESS"
        assert client.get("/sum").json() == 8
        assert client.get("/jobs/nobody/events").status_code == 404

    if opens:
        with TestClient(site) as client:
            use(client)
    else:
        use(TestClient(site))


def test_a_site_without_a_router_says_what_accepted_needs(jobs: AsyncQ) -> None:
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from asyncq.integrations.fastapi import accepted

    async def start(request: Request) -> Response:
        with pytest.raises(LookupError, match="include_router"):
            accepted(jobs.AsyncResult("x"), Response(), request)
        with pytest.raises(TypeError, match="handle of one job"):
            accepted("x", Response(), request)  # type: ignore[arg-type]
        return Response("refused")

    assert TestClient(Starlette(routes=[Route("/", start)])).get("/").text == "refused"


def test_authorize_is_required_and_must_be_callable() -> None:
    from asyncq.integrations.fastapi import jobs_router

    app = AsyncQ("redis://nowhere")
    with pytest.raises(TypeError, match="authorize"):
        jobs_router(app)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="give a function of the request and the id"):
        jobs_router(app, authorize=True)  # type: ignore[arg-type]


def test_a_server_that_cannot_be_reached_is_answered_with_503(closed_port: int) -> None:
    from starlette.testclient import TestClient

    app = AsyncQ(f"redis://127.0.0.1:{closed_port}/0", operation_timeout=0.3)
    client = TestClient(starlette_site(app))
    for path in ("/jobs/x", "/jobs/x/events", "/jobs/x/stream", "/sum"):
        answer = client.get(path)
        assert answer.status_code == 503, answer.text
        assert str(closed_port) not in answer.text
    assert client.delete("/jobs/x").status_code == 503
    asyncio.run(app.close())


@pytest.fixture
def closed_port() -> int:
    from helpers.own_server import free_port

    return free_port()


@pytest.mark.anyio
async def test_a_stream_of_a_silent_job_is_kept_open_with_comments(
    jobs: AsyncQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a server that says only by an error that the client has gone."""
    from asyncq.integrations import server_sent_events

    monkeypatch.setattr(server_sent_events, "SILENCE", 0.02)
    sent: list[bytes] = []

    async def receive() -> dict[str, str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))
        if sent.count(b": \n\n") > 3:
            raise OSError("the client has gone")

    async with jobs:
        result = await jobs.send("tasks.nap", (60,))
        tasks = asyncio.all_tasks()
        scope = {"type": "http", "method": "GET", "path": f"/jobs/{result.id}/events", "headers": []}
        await starlette_site(jobs)(scope, receive, send)  # type: ignore[arg-type]
        await result.revoke(terminate=True)
        assert asyncio.all_tasks() == tasks

    assert sent[1].startswith(b"id: 1\ndata: {")
