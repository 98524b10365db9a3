"""Endpoints that follow jobs, and help for endpoints that start them, in a site of FastAPI or Starlette.

`pip install 'asyncq[fastapi]'`. All of it runs on the loop of the site; `accepted` may also be called in the
thread of a `def` endpoint.

Example:
    ```python
    site = FastAPI(lifespan=app.lifespan)
    site.include_router(jobs_router(app, authorize=may_see), prefix="/jobs")
    add_error_handlers(site)

    @site.post("/reports", status_code=202)
    async def start(request: Request, response: Response) -> JobAccepted:
        return accepted(await render.delay(), response, request)

    @site.get("/sum")
    async def wait_for_sum(x: int, y: int, request: Request) -> int:
        async with cancel_on_disconnect(request, await add.delay(x, y)) as result:
            return await result.get(timeout=10)
    ```
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.integrations.extras import needs_extra

with needs_extra("fastapi"):
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.routing import Mount, NoMatchFound, Route, Router, WebSocketRoute

from asyncq.integrations import job_resource, problems
from asyncq.integrations.asgi_answers import ProblemAnswer, client_gone
from asyncq.integrations.client_watch import WhileConnected
from asyncq.integrations.job_resource import (
    JobAccepted,
    JobResource,
    checked_handle,
    revoke_abandoned,
)
from asyncq.integrations.problems import failed_in_task, log_failure, problem_of
from asyncq.integrations.starlette_endpoints import JOB_ROUTE, JobEndpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping

    from fastapi import APIRouter
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from asyncq.app import AsyncQ
    from asyncq.integrations.job_resource import Authorize, Revocable
    from asyncq.results.handle import AsyncResult

__all__ = ["JobAccepted", "accepted", "add_error_handlers", "cancel_on_disconnect", "jobs_router"]

log: logging.Logger = logging.getLogger(__name__)


def jobs_router(app: AsyncQ, *, authorize: Authorize) -> APIRouter:
    """Makes a router with which clients follow and end jobs by their ids.

    - `GET /{id}` shows a job: `id`, `state`, and `value`, `error` (a problem document, RFC 9457) or
      `progress`. A failed or revoked job is answered with 200, too. With the header `Prefer: wait=10` the
      answer comes when the job has ended, or after ten seconds (a minute at most).
    - `GET /{id}/events` sends the job as server-sent events, now and after each change.
    - `GET /{id}/stream` sends what a generator task yields, each item with its number as id. Both go on
      behind the header `Last-Event-ID`, and their last event is named `end`.
    - `WS /{id}/ws` sends the same as `/events`, as messages of a WebSocket.
    - `DELETE /{id}` ends a job: 204, also if it has ended before.

    An unknown id is answered with 404 before a stream begins. If the client goes away, nothing is left of its
    request. A server that cannot be reached is answered with 503.

    In FastAPI include the router: `site.include_router(jobs_router(app, ...), prefix="/jobs")`. The OpenAPI
    document has the result types of the tasks that were registered before. In Starlette mount it:
    `Mount("/jobs", jobs_router(app, ...))`.

    Args:
        app: whose jobs they are.
        authorize: `authorize(request, id)` says whether this client may see and end this job; otherwise it
            gets 404. A coroutine function, or a function, which runs in a thread. For `WS`, `request` is the
            `WebSocket`. An `HTTPException` that it raises is the answer. It is required: whoever may see a
            job may also end it.

    Raises:
        TypeError: `authorize` is not callable.

    Example:
        ```python
        async def may_see(request: Request, id: str) -> bool:
            return await orders.owner_of(id) == request.session.get("user")

        site.include_router(jobs_router(app, authorize=may_see), prefix="/jobs")
        ```
    """
    if not callable(authorize):
        raise TypeError(f"authorize={authorize!r}: give a function of the request and the id of a job")
    if find_spec("fastapi") is None:
        return _plain_router(JobEndpoints(JobResource(app), authorize))  # type: ignore[return-value]
    # Imports pydantic, which a site of Starlette alone need not have.
    from asyncq.integrations.fastapi_models import ValueEncoder, router_of

    return router_of(JobEndpoints(JobResource(app, ValueEncoder(app)), authorize), app)


def _plain_router(endpoints: JobEndpoints) -> Router:
    """Returns a router of Starlette with the endpoints."""

    def of_id(endpoint: Callable[[Request, str], Coroutine[Any, Any, Response]]) -> Any:
        async def answer(request: Request) -> Response:
            return await endpoint(request, request.path_params["id"])

        return answer

    async def talk(socket: WebSocket) -> None:
        await endpoints.talk(socket, socket.path_params["id"])

    return Router(
        [
            Route("/{id}", of_id(endpoints.show), name=JOB_ROUTE),
            Route("/{id}", of_id(endpoints.end), methods=["DELETE"]),
            Route("/{id}/events", of_id(endpoints.events)),
            Route("/{id}/stream", of_id(endpoints.stream)),
            WebSocketRoute("/{id}/ws", talk),
        ]
    )


def accepted(result: AsyncResult[Any], response: Response, request: Request) -> JobAccepted:
    """Answers a request that has started a job: status 202, where the job can be looked at, and when.

    It sets the status and the headers `Location` and `Retry-After` of the response, and returns the body. It
    talks to nobody, so it may be called in a `def` endpoint, too. In Starlette, return the response itself.

    Args:
        result: the job, as `delay` gave it.
        response: the parameter `response: Response` of the endpoint, which FastAPI fills.
        request: the parameter `request: Request` of the endpoint.

    Raises:
        TypeError: `result` is not the handle of one job.
        LookupError: the site has no `jobs_router`.

    Example:
        ```python
        @site.post("/reports", status_code=202)
        async def start(request: Request, response: Response) -> JobAccepted:
            return accepted(await render.delay(), response, request)
        ```
    """
    url = _url_of(checked_handle(result).id, request)
    response.status_code = 202
    response.headers["Location"] = url
    response.headers["Retry-After"] = str(job_resource.RETRY_AFTER)
    return JobAccepted(result.id, str(result.state), url)


def _url_of(id: str, request: Request) -> str:
    """Returns the path at which a job is shown, as the client sees it. Of several routers, it is the one that
    lies nearest to the endpoint: a site may be mounted in another that has a router, too.
    """
    routes = getattr(request.scope.get("router"), "routes", ())
    root: str = request.scope.get("app_root_path", request.scope.get("root_path", "")).rstrip("/")
    paths = [root + path for path in _paths(routes, id, request.path_params)]
    if not paths:
        raise LookupError(
            "the site has no route for jobs: `site.include_router(jobs_router(app, authorize=...), "
            "prefix='/jobs')`, or in Starlette `Mount('/jobs', jobs_router(app, authorize=...))`"
        )
    here = request.url.path
    return max(paths, key=lambda path: (_common(path, here), -path.count("/")))


def _paths(routes: Iterable[BaseRoute] | None, id: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Gives the paths at which a job is shown, below these routes."""
    for route in routes or ():
        if isinstance(route, Mount):
            for path in _paths(route.routes, id, params):
                with suppress(KeyError):  # its path has a parameter that the path of this request has not
                    yield route.path_format.format(**{**params, "path": path.lstrip("/")})
        else:
            with suppress(NoMatchFound):
                yield str(route.url_path_for(JOB_ROUTE, id=id))


def _common(path: str, other: str) -> int:
    """Returns how many parts two paths have in common, from the left."""
    pairs = zip(path.split("/"), other.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


H = TypeVar("H", bound="Revocable")


@asynccontextmanager
async def cancel_on_disconnect(request: Request, result: H) -> AsyncIterator[H]:
    """Gives a block that ends when the client goes away, and ends the job then: `async with
    cancel_on_disconnect(request, await add.delay(1, 2)) as result:`.

    A server of ASGI lets a handler run on when its client has gone. This block is cancelled then, and the job
    is revoked as by `revoke(terminate=True)`; the revocation is sent in the background. The request ends with
    the status 499, which only logs see. If something else cancels the block, the job is revoked, too. In all
    other cases the job goes on: after a timeout, and when the block raises.

    It reads the body of the request into memory first, so that `await request.body()` works inside.

    Args:
        request: the parameter `request: Request` of the endpoint.
        result: the handle of a job, or of many (`ResultSet`, `GroupResult`).

    Raises:
        HTTPException: with status 499: the client has gone away.

    Example:
        ```python
        @site.get("/sum")
        async def wait_for_sum(x: int, y: int, request: Request) -> int:
            async with cancel_on_disconnect(request, await add.delay(x, y)) as result:
                return await result.get(timeout=10)
        ```
    """
    is_gone = False
    try:
        # A stream that the endpoint itself has read cannot be read again, and need not be.
        with suppress(RuntimeError):
            await request.body()
        async with WhileConnected(client_gone(request.receive)) as client:
            yield result
        is_gone = client.is_gone
    except ClientDisconnect:
        is_gone = True
    except asyncio.CancelledError:
        revoke_abandoned(result)
        raise
    if is_gone:
        revoke_abandoned(result)
        raise HTTPException(problems.GONE, problems.CLIENT_GONE.title)


def add_error_handlers(site: Starlette) -> None:
    """Answers errors of jobs that endpoints do not catch, as problem documents (RFC 9457).

    `ResultTimeout` is 504, `ResultNotFound` 404, `TaskRevoked` 410, `QueueFull` 503 with `Retry-After`,
    `BrokerUnavailable` 503. What a task raised is 500, with the name of the exception and its message, and
    never with a traceback; a line in the log of the site names it. Handlers of the site's own for these
    exceptions come first. All other errors of endpoints stay what they are.

    It works for the endpoints of this site, and not for those of sites that are mounted in it: call it for
    each. Call it before the site serves its first request.

    Example:
        ```python
        site = FastAPI(lifespan=app.lifespan)
        add_error_handlers(site)
        ```
    """
    for error in problems.ANSWERED:
        site.add_exception_handler(error, _answer)
    site.add_middleware(_TaskFailures)


async def _answer(request: Request, error: Exception) -> Response:
    if failed_in_task(error):
        _log_failure(request.scope, error)
    return ProblemAnswer(problem_of(error))


class _TaskFailures:
    """Answers what tasks raised. A handler of Starlette is for classes, and a task may raise any."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_answered = scope["type"] != "http"

        async def watched(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive, send if is_answered else watched)
        except Exception as error:
            if is_answered or not failed_in_task(error):
                raise
            _log_failure(scope, error)
            await ProblemAnswer(problem_of(error))(scope, receive, send)


def _log_failure(scope: Scope, error: Exception) -> None:
    log_failure(log, problem_of(error), scope.get("method"), scope.get("path"))
