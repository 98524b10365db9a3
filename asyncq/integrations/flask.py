"""Endpoints that follow jobs, and help for views that start them, in a site of Flask.

`pip install 'asyncq[flask]'`. Views run in threads, and use the blocking calls of tasks and handles
(`call_sync`, `delay_sync`, `get_sync`), which run on the app's background loop. `async def` views await the
calls without the suffix.

Example:
    ```python
    site = Flask(__name__)
    site.register_blueprint(jobs_router(app, authorize=may_see), url_prefix="/jobs")
    add_error_handlers(site)

    @site.get("/sum")
    def wait_for_sum() -> dict[str, int]:
        return {"sum": add.options(wait=10).call_sync(1, 2)}

    @site.post("/reports")
    def start() -> Response:
        return accepted(render.delay_sync())
    ```
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import TYPE_CHECKING, Any

from asyncq.integrations.extras import needs_extra

with needs_extra("flask"):
    from flask import Blueprint, Response, current_app, request, stream_with_context, url_for
    from werkzeug.routing import BuildError

from asyncq import sync_bridge
from asyncq.errors import ResultNotFound
from asyncq.integrations import job_resource, problems, server_sent_events
from asyncq.integrations.job_resource import JobAccepted, JobResource, checked_handle
from asyncq.integrations.problems import Problem, failed_in_task, log_failure, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
    from typing import TypeVar

    from flask import Flask, Request

    from asyncq.app import AsyncQ
    from asyncq.results.handle import AsyncResult

    T = TypeVar("T")
    Authorize = Callable[[Request, str], bool | Awaitable[bool]]
    Source = Callable[[AsyncResult[Any], int], AsyncGenerator[bytes, None]]

__all__ = ["JobAccepted", "accepted", "add_error_handlers", "jobs_router"]

log: logging.Logger = logging.getLogger(__name__)

NAME = "asyncq_jobs"
"""The name of the blueprint, by which the URL of a job is found."""
_NO_STORE = {"Cache-Control": "no-store"}


def jobs_router(app: AsyncQ, *, authorize: Authorize, name: str = NAME) -> Blueprint:
    """Makes a blueprint with which clients follow and end jobs by their ids:
    `site.register_blueprint(jobs_router(app, authorize=may_see), url_prefix="/jobs")`.

    It has the endpoints of `asyncq.integrations.fastapi.jobs_router`, with the same answers, but for the
    WebSocket: `GET /{id}` (with `Prefer: wait=10`), `GET /{id}/events`, `GET /{id}/stream`, and
    `DELETE /{id}`. A request that waits or follows holds one thread of the server. A client that has gone
    away is found when something is sent to it, which is every 15 seconds at least.

    Args:
        app: whose jobs they are.
        authorize: `authorize(request, id)` says whether this client may see and end this job; otherwise it
            gets 404. A function or a coroutine function. What `abort` raises in it is the answer. It is
            required: whoever may see a job may also end it.
        name: of the blueprint; a site with two of them gives the second another name.

    Raises:
        TypeError: `authorize` is not callable.

    Example:
        ```python
        def may_see(request: Request, id: str) -> bool:
            return orders.owner_of(id) == session.get("user")

        site.register_blueprint(jobs_router(app, authorize=may_see), url_prefix="/jobs")
        ```
    """
    if not callable(authorize):
        raise TypeError(f"authorize={authorize!r}: give a function of the request and the id of a job")
    endpoints = _Views(app, authorize)
    jobs = Blueprint(name, __name__)
    jobs.add_url_rule("/<id>", "job", endpoints.show, methods=["GET"])
    jobs.add_url_rule("/<id>", "end", endpoints.end, methods=["DELETE"])
    jobs.add_url_rule("/<id>/events", "events", endpoints.events, methods=["GET"])
    jobs.add_url_rule("/<id>/stream", "stream", endpoints.stream, methods=["GET"])
    for error in (*problems.ANSWERED, _BadRequest):
        jobs.register_error_handler(error, _answer)
    return jobs


class _BadRequest(Exception):
    """The client has sent something that makes no sense."""


class _Views:
    """What the blueprint answers. All of it blocks the thread of the request."""

    def __init__(self, app: AsyncQ, authorize: Authorize) -> None:
        self._app = app
        self._jobs = JobResource(app)
        self._authorize = authorize

    def show(self, id: str) -> Response:
        self._check(id)
        wait = job_resource.wait_of(request.headers.get("Prefer"))
        document = self._wait(self._jobs.shown_after(id, wait))
        headers = {"Vary": "Prefer", **_NO_STORE}
        if wait:
            headers["Preference-Applied"] = f"wait={wait}"
        if not {"value", "error"} & document.keys():
            headers["Retry-After"] = str(job_resource.RETRY_AFTER)
        return _json(document, 200, headers)

    def end(self, id: str) -> Response:
        self._check(id)
        self._wait(self._jobs.end(id))
        return Response(status=204)

    def events(self, id: str) -> Response:
        return self._follow(id, self._jobs.events)

    def stream(self, id: str) -> Response:
        return self._follow(id, self._jobs.items)

    def _follow(self, id: str, source: Source) -> Response:
        self._check(id)
        try:
            after = job_resource.number_of(request.headers.get("Last-Event-ID"))
        except ValueError as error:
            raise _BadRequest(str(error)) from None
        handle = self._wait(self._jobs.find(id))
        if after is None:
            return Response(status=204)
        events = self._blocking(server_sent_events.kept_alive(source(handle, after)))
        return Response(
            stream_with_context(events),
            headers=server_sent_events.HEADERS,
            mimetype=server_sent_events.MEDIA_TYPE,
        )

    def _blocking(self, events: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
        """Gives the events to the server, which closes the iterator when the client has gone."""

        async def step() -> bytes | None:
            return await anext(events, None)

        try:
            while (data := self._wait(step())) is not None:
                yield data
        finally:
            self._wait(events.aclose())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return sync_bridge.wait(self._app.sessions, coroutine)

    def _check(self, id: str) -> None:
        # Flask runs a coroutine function as it runs an `async def` view.
        may_see: Any = current_app.ensure_sync(self._authorize)(request, id)
        if not may_see:
            raise ResultNotFound(f"the client may not see job {id!r}")


def accepted(result: AsyncResult[Any], *, name: str = NAME) -> Response:
    """Answers a request that has started a job: status 202, with `id`, `state` and `url` as JSON, and the
    headers `Location` and `Retry-After`. It must be called in a view.

    Args:
        result: the job, as `delay_sync` or `delay` gave it.
        name: of the blueprint that `jobs_router` made.

    Raises:
        TypeError: `result` is not the handle of one job.
        LookupError: the site has no `jobs_router`.

    Example:
        ```python
        @site.post("/reports")
        def start() -> Response:
            return accepted(render.delay_sync())
        ```
    """
    handle = checked_handle(result)
    try:
        url = url_for(f"{name}.job", id=handle.id)
    except BuildError:
        raise LookupError(
            "the site has no routes for jobs: `site.register_blueprint(jobs_router(app, authorize=...), "
            'url_prefix="/jobs")`'
        ) from None
    document = JobAccepted(handle.id, str(handle.state), url)
    headers = {"Location": url, "Retry-After": str(job_resource.RETRY_AFTER)}
    return _json(dataclasses.asdict(document), 202, headers)


def add_error_handlers(site: Flask) -> None:
    """Answers errors of jobs that views do not catch, as problem documents (RFC 9457).

    `ResultTimeout` is 504, `ResultNotFound` 404, `TaskRevoked` 410, `QueueFull` 503 with `Retry-After`,
    `BrokerUnavailable` 503. What a task raised is 500, with the name of the exception and its message, and
    never with a traceback; a line in the log of the site names it. Handlers of the site's own for these
    exceptions come first. All other errors of views stay what they are.

    Example:
        ```python
        site = Flask(__name__)
        add_error_handlers(site)
        ```
    """
    for error in problems.ANSWERED:
        site.register_error_handler(error, _answer)
    others = site.handle_user_exception

    def handle_user_exception(error: Exception) -> Any:
        # A handler of Flask is for classes, and a task may raise any.
        try:
            return others(error)
        except Exception as unanswered:
            if unanswered is error and failed_in_task(error):
                return _answer(error)
            raise

    site.handle_user_exception = handle_user_exception  # type: ignore[method-assign,assignment]


def _answer(error: Exception) -> Response:
    if isinstance(error, _BadRequest):
        return _problem(Problem(400, "bad-request", "Bad request", str(error)))
    problem = problem_of(error)
    if failed_in_task(error):
        log_failure(log, problem, request.method, request.path)
    return _problem(problem)


def _json(document: Any, status: int, headers: Mapping[str, str]) -> Response:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, headers, mimetype="application/json")


def _problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, mimetype=problems.MEDIA_TYPE)
