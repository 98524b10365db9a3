"""The endpoints of a jobs router in real sites, with real clients and a worker in another process.

The sites of all frameworks have the same endpoints, and pass the same tests.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from helpers import event_source
from helpers.waiting import until, until_state

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import httpx
    from helpers.event_source import ServerSentEvent
    from helpers.program import Program

pytestmark = pytest.mark.anyio


SITES = {
    "FastAPI": ["jobs_site.py"],
    "FastAPI behind middleware": ["jobs_site.py"],
    "aiohttp": ["aiohttp_jobs_site.py"],
    "aiohttp with handler_cancellation": ["aiohttp_jobs_site.py", "cancel"],
    "Flask": ["flask_jobs_site.py"],
}
"""The programs of the sites. The second has a `BaseHTTPMiddleware` around the requests of our client."""


@pytest.fixture(scope="module")
def urls(start: Callable[..., Program]) -> Iterator[Callable[..., str]]:
    """Starts each program once, and gives its URL."""
    running: dict[tuple[str, ...], tuple[Program, str]] = {}

    def url(*words: str) -> str:
        if words not in running:
            program = start(*words)
            running[words] = program, f"http://127.0.0.1:{program.first_line()}"
        return running[words][1]

    yield url
    for program, _ in running.values():
        status, errors = program.stop()
        assert errors == "" or "waited for a job that failed" in errors
        assert "Traceback" not in errors
        assert status in {0, -15}, "uvicorn raises the signal again when it has shut down"


@pytest.fixture(scope="module", params=["FastAPI", "aiohttp", "Flask"])
def site(urls: Callable[..., str], request: pytest.FixtureRequest) -> str:
    return urls(*SITES[request.param])


@pytest.fixture
def framework(request: pytest.FixtureRequest) -> str:
    return request.node.callspec.params["site"]


on_every_loop = pytest.mark.parametrize("site", [name for name in SITES if name != "Flask"], indirect=True)
with_web_sockets = pytest.mark.parametrize("site", ["FastAPI", "aiohttp"], indirect=True)
on_fastapi = pytest.mark.parametrize("site", ["FastAPI"], indirect=True)


@pytest.fixture
async def client(site: str, framework: str) -> AsyncIterator[httpx.AsyncClient]:
    import httpx  # here, because each process of the tests imports all test files

    headers = {"X-Behind": "yes"} if "behind" in framework else {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=site, timeout=30, headers=headers, limits=limits) as client:
        yield client


@pytest.fixture
async def jobs(server_url: str, shared_namespace: str) -> AsyncIterator[AsyncQ]:
    """An app that sees the jobs of the sites."""
    async with AsyncQ(server_url, namespace=shared_namespace) as app:
        yield app


async def started(client: httpx.AsyncClient, path: str, **params: Any) -> str:
    answer = await client.post(path, params=params)
    assert answer.status_code == 202, answer.text
    assert answer.json()["url"] == answer.headers["location"]
    return answer.headers["location"]


def id_in(url: str) -> str:
    return url.rpartition("/")[2]


async def events_at(client: httpx.AsyncClient, url: str, last: str | None = None) -> list[ServerSentEvent]:
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = await client.get(url, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return event_source.parse(answer.text.splitlines())


# -- looking at a job --


async def test_a_long_poll_answers_when_the_job_has_ended_with_its_value(
    client: httpx.AsyncClient, framework: str
) -> None:
    url = await started(client, "/pictures")

    answer = await client.get(url, headers={"Prefer": "respond-async, wait=20"})

    picture = {"title": "Dawn", "exposure": "PT1M30S" if framework == "FastAPI" else 90}
    assert answer.json() == {"id": id_in(url), "state": "SUCCESS", "value": picture}
    assert answer.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


async def test_a_job_that_runs_is_shown_with_its_progress(client: httpx.AsyncClient) -> None:
    url = await started(client, "/pictures", steps=500)

    async def progress() -> Any:
        answer = await client.get(url, headers={"Prefer": "wait=0"})
        assert answer.headers["retry-after"] == "1"
        return answer.json().get("progress")

    reported = await until(progress, "a report")
    assert reported["total"] == 500
    assert reported["message"] == f"line {reported['done']}"
    assert (await client.delete(url)).status_code == 204


async def test_a_long_poll_that_is_over_shows_the_job_as_it_is(client: httpx.AsyncClient) -> None:
    url = await started(client, "/naps", seconds=60)

    answer = await client.get(url, headers={"Prefer": "wait=1"})

    assert answer.json() == {"id": id_in(url), "state": "STARTED"}
    assert answer.elapsed.total_seconds() >= 1
    await client.delete(url)


async def test_a_failed_job_is_shown_with_its_problem(client: httpx.AsyncClient) -> None:
    url = await started(client, "/counts", to=1, fails=True)

    answer = await client.get(url, headers={"Prefer": "wait=20"})

    problem = {
        "type": "urn:asyncq:problem:task-failed",
        "title": "The task failed",
        "status": 500,
        "detail": "no further",
        "exception": "ValueError",
    }
    assert answer.status_code == 200
    assert answer.json() == {"id": id_in(url), "state": "FAILURE", "error": problem}


async def test_a_job_that_is_deleted_ends_and_may_be_deleted_again(
    client: httpx.AsyncClient, jobs: AsyncQ
) -> None:
    url = await started(client, "/naps", seconds=60)
    await until_state(jobs.AsyncResult(id_in(url)), "STARTED")

    first, second = await client.delete(url), await client.delete(url)

    assert (first.status_code, first.content, second.status_code) == (204, b"", 204)
    shown = (await client.get(url, headers={"Prefer": "wait=20"})).json()
    assert shown["state"] == "REVOKED"
    assert shown["error"]["status"] == 410


async def test_deleting_a_job_ends_the_job_before_it_that_runs(
    client: httpx.AsyncClient, jobs: AsyncQ
) -> None:
    chain = jobs.task_named("tasks.nap").s(60) | jobs.task_named("tasks.nap").si(0)
    last = await chain.delay()
    assert last.parent is not None
    await until_state(last.parent, "STARTED")

    assert (await client.delete(f"/jobs/{last.id}")).status_code == 204

    await until_state(last.parent, "REVOKED")


@pytest.mark.parametrize("path", ["", "/events", "/stream"])
@pytest.mark.parametrize("id", ["nobody", "a%20b", "x" * 600])
async def test_an_unknown_id_is_not_found_before_anything_is_streamed(
    client: httpx.AsyncClient, path: str, id: str
) -> None:
    answer = await client.get(f"/jobs/{id}{path}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "No such job"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("prefix", ["", "/inner"], ids=["coroutine function", "function"])
async def test_a_client_that_may_not_see_a_job_gets_what_a_wrong_id_gets(
    client: httpx.AsyncClient, method: str, prefix: str
) -> None:
    url = await started(client, f"{prefix}/naps", seconds=60)
    assert url.startswith(f"{prefix}/jobs/"), "the router that is nearest to the endpoint"

    refused = await client.request(method, url, headers={"X-User": "stranger"})
    unknown = await client.request(method, f"{prefix}/jobs/nobody")

    assert (refused.status_code, refused.content) == (404, unknown.content)
    assert (await client.delete(url)).status_code == 204


async def test_an_error_of_the_framework_that_authorize_raises_is_the_answer(
    client: httpx.AsyncClient,
) -> None:
    url = await started(client, "/pictures")

    assert (await client.get(url, headers={"X-User": "anonymous"})).status_code == 401


# -- following a job --


async def test_events_are_numbered_and_end_with_the_value(client: httpx.AsyncClient) -> None:
    url = await started(client, "/pictures", steps=5)

    *events, end = await events_at(client, f"{url}/events")

    assert [event.id for event in events] == [str(number + 1) for number in range(len(events))]
    assert {event.kind for event in events} == {"message"}
    assert any(event.data.get("progress", {}).get("total") == 5 for event in events)
    assert events[-1].data == (await client.get(url)).json()
    assert (end.id, end.kind, end.data) == ("end", "end", events[-1].data)


async def test_a_reader_of_events_that_comes_back_gets_higher_numbers_and_no_content_behind_the_end(
    client: httpx.AsyncClient,
) -> None:
    url = await started(client, "/pictures", steps=1)

    event, end = (await events_at(client, f"{url}/events", last="41"))[-2:]

    assert int(event.id) > 41
    assert event.data["state"] == "SUCCESS"
    finished = await client.get(f"{url}/events", headers={"Last-Event-ID": end.id})
    assert (finished.status_code, finished.content) == (204, b"")


async def test_items_come_with_their_numbers_and_go_on_behind_the_last(client: httpx.AsyncClient) -> None:
    url = await started(client, "/counts", to=4)

    *items, end = await events_at(client, f"{url}/stream")
    rest = await events_at(client, f"{url}/stream", last="3")
    nothing_more = await events_at(client, f"{url}/stream", last="4")

    assert [(item.id, item.kind, item.data) for item in items] == [
        (str(number), "message", number) for number in (1, 2, 3, 4)
    ]
    assert end.data == {"id": id_in(url), "state": "SUCCESS", "value": None}
    assert rest == [*items[3:], end]
    assert nothing_more == [end]
    finished = await client.get(f"{url}/stream", headers={"Last-Event-ID": end.id})
    assert finished.status_code == 204


async def test_a_stream_whose_job_fails_gives_its_items_and_then_the_problem(
    client: httpx.AsyncClient,
) -> None:
    url = await started(client, "/counts", to=2, fails=True)

    *items, end = await events_at(client, f"{url}/stream")

    assert [item.data for item in items] == [1, 2]
    assert (end.data["state"], end.data["error"]["detail"]) == ("FAILURE", "no further")


async def test_a_last_event_id_that_is_no_number_is_refused(client: httpx.AsyncClient) -> None:
    url = await started(client, "/counts", to=1)

    answer = await client.get(f"{url}/stream", headers={"Last-Event-ID": "yesterday"})

    assert answer.status_code == 400
    assert "Last-Event-ID" in answer.json()["detail"]


async def test_a_job_that_is_forgotten_meanwhile_ends_its_events(
    client: httpx.AsyncClient, jobs: AsyncQ
) -> None:
    url = await started(client, "/naps", seconds=0.2)

    async with client.stream("GET", f"{url}/events") as answer:
        await jobs.AsyncResult(id_in(url)).forget()
        events = [event async for event in event_source.parse_each(answer.aiter_lines())]

    assert events[-1].kind == "end"
    assert (await client.get(url)).status_code == 404


@with_web_sockets
async def test_a_web_socket_sends_each_state_and_is_closed_behind_the_last(
    client: httpx.AsyncClient, site: str
) -> None:
    from websockets.asyncio.client import connect

    url = await started(client, "/pictures", steps=5)

    async with connect(f"{site.replace('http', 'ws')}{url}/ws") as socket:
        await socket.send("whatever")
        documents = [json.loads(message) async for message in socket]

    assert socket.close_code == 1000
    assert any(document.get("progress", {}).get("total") == 5 for document in documents)
    assert documents[-1] == (await client.get(url)).json()


@with_web_sockets
@pytest.mark.parametrize(("user", "status"), [("", 404), ("stranger", 404), ("anonymous", 401)])
async def test_a_web_socket_for_a_job_that_may_not_be_seen_is_refused(
    client: httpx.AsyncClient, site: str, user: str, status: int
) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    url = await started(client, "/pictures") if user else "/jobs/nobody"

    with pytest.raises(InvalidStatus) as refusal:
        async with connect(f"{site.replace('http', 'ws')}{url}/ws", additional_headers={"X-User": user}):
            pass

    assert refusal.value.response.status_code == status


# -- clients that go away --

FOLLOWERS = 15


async def left(client: httpx.AsyncClient) -> dict[str, int]:
    """What the requests have left behind in the site, beside this one."""
    return (await client.get("/left")).json()


async def until_only_is_left(client: httpx.AsyncClient, before: dict[str, int]) -> None:
    async def is_left() -> bool:
        # Fewer is as good: a task of an earlier request may have been there still.
        now = await left(client)
        return all(now[kind] <= count for kind, count in before.items())

    await until(is_left, f"only {before} to be left")


@on_every_loop
async def test_clients_that_go_away_leave_nothing_and_end_no_job(
    client: httpx.AsyncClient, site: str, jobs: AsyncQ
) -> None:
    from websockets.asyncio.client import connect

    url = await started(client, "/naps", seconds=60)
    before = await left(client)
    async with AsyncExitStack() as connections:
        for path in ["/events", "/stream"] * FOLLOWERS:
            answer = await connections.enter_async_context(client.stream("GET", f"{url}{path}"))
            assert answer.status_code == 200
        for _ in range(FOLLOWERS):
            await connections.enter_async_context(connect(f"{site.replace('http', 'ws')}{url}/ws"))
        polls = [
            asyncio.create_task(client.get(url, headers={"Prefer": "wait=50"})) for _ in range(FOLLOWERS)
        ]

        async def all_wait() -> bool:
            now = await left(client)
            return now["waits"] >= before["waits"] + FOLLOWERS and now["channels"] > before["channels"]

        await until(all_wait, "all clients to wait")
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    await until_only_is_left(client, before)
    assert await jobs.AsyncResult(id_in(url)).refresh() == "STARTED"
    await client.delete(url)


@on_every_loop
@pytest.mark.parametrize("prefix", ["", "/inner"], ids=["site", "mounted site"])
async def test_the_jobs_of_clients_that_go_away_end_where_endpoints_say_so(
    client: httpx.AsyncClient, jobs: AsyncQ, prefix: str
) -> None:
    before = await left(client)
    bodies = [None, b"x" * 100_000] * FOLLOWERS
    handles = [jobs.AsyncResult(uuid.uuid4().hex) for _ in bodies]
    requests = [
        asyncio.create_task(
            client.request("POST" if body else "GET", f"{prefix}/naps/{handle.id}?seconds=60", content=body)
        )
        for handle, body in zip(handles, bodies, strict=True)
    ]
    await asyncio.gather(*(until_state(handle, "STARTED") for handle in handles))

    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)

    await asyncio.gather(*(until_state(handle, "REVOKED") for handle in handles))
    await until_only_is_left(client, before)
    answer = await client.post(f"{prefix}/naps/{uuid.uuid4().hex}?seconds=0", content=b"x" * 100_000)
    assert answer.json() == 100_000, "the body can be read when it was awaited"


async def test_a_timeout_in_the_block_is_no_client_that_went_away(
    client: httpx.AsyncClient, jobs: AsyncQ
) -> None:
    answer = await client.get("/sum", params={"x": 1, "y": 2, "seconds": 0.5, "timeout": 0.05})

    assert answer.status_code == 504
    job_id = answer.json()["detail"].split()[1]
    assert await jobs.AsyncResult(job_id).get(timeout=20) == 3, "the job goes on"


# -- errors of endpoints that await a job --


@pytest.mark.parametrize(
    ("kind", "exception"),
    [
        ("value", "ValueError"),
        ("stock", "tasks.OutOfStock"),
        ("timeout", "asyncq.errors.ResultTimeout"),
    ],
)
async def test_what_a_task_raised_is_answered_with_its_name_and_without_a_traceback(
    client: httpx.AsyncClient, kind: str, exception: str
) -> None:
    answer = await client.get("/failure", params={"kind": kind})

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["exception"] == exception
    assert answer.json()["detail"] == "<b>no</b> such luck"
    assert "Traceback" not in answer.text
    assert "tasks.py" not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/sum?x=1&y=2&seconds=0.2&timeout=0", 504, "result-timeout"),
        ("/unknown", 404, "result-not-found"),
        ("/revoked", 410, "task-revoked"),
        ("/full", 503, "queue-full"),
    ],
)
async def test_errors_of_waits_have_their_status(
    client: httpx.AsyncClient, path: str, status: int, name: str
) -> None:
    answer = await client.get(path)

    assert answer.status_code == answer.json()["status"] == status
    assert answer.json()["type"] == f"urn:asyncq:problem:{name}"
    assert ("retry-after" in answer.headers) == (name == "queue-full")
    assert "secret" not in answer.text


# -- what only FastAPI has --


@on_fastapi
async def test_def_endpoints_start_jobs_and_answer_their_failures(client: httpx.AsyncClient) -> None:
    url = await started(client, "/blocking/naps", seconds=0)
    failure = await client.get("/blocking/failure", params={"kind": "value"})

    assert (await client.get(url, headers={"Prefer": "wait=20"})).json()["value"] == "rested"
    assert (failure.status_code, failure.json()["exception"]) == (500, "ValueError")


@on_fastapi
async def test_a_value_is_shown_as_an_endpoint_would_return_it(client: httpx.AsyncClient) -> None:
    url = await started(client, "/pictures")

    shown = await client.get(url, headers={"Prefer": "wait=20"})

    assert shown.json()["value"] == (await client.get("/picture")).json()


@on_fastapi
async def test_the_dependencies_with_which_the_router_is_included_count(client: httpx.AsyncClient) -> None:
    url = await started(client, "/pictures")

    for path in ("", "/events", "/stream"):
        assert (await client.get(url + path, headers={"X-Key": "wrong"})).status_code == 403
    assert (await client.delete(url, headers={"X-Key": "wrong"})).status_code == 403


@on_fastapi
async def test_the_openapi_document_has_the_results_of_the_tasks(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    show = document["paths"]["/jobs/{id}"]["get"]
    kinds = show["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    names = {kind["$ref"].rpartition("/")[2] for kind in kinds}
    schemas = document["components"]["schemas"]
    values = [schemas[name]["properties"]["value"] for name in names if "Succeeded" in name]
    assert {"$ref": "#/components/schemas/Picture"} in values
    assert {"type": "integer", "title": "Value"} in values
    assert schemas["Picture"]["properties"]["exposure"]["format"] == "duration"
    assert {parameter["name"] for parameter in show["parameters"]} == {"id", "Prefer"}
    assert set(document["paths"]["/jobs/{id}"]["delete"]["responses"]) >= {"204", "404"}
    accepted = document["paths"]["/pictures"]["post"]["responses"]["202"]
    assert accepted["content"]["application/json"]["schema"]["$ref"].endswith("/JobAccepted")
