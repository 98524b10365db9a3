"""Endpoints that follow jobs, and help for handlers that start them, in a site of aiohttp.

`pip install 'asyncq[aiohttp]'`. All of it runs on the loop of the site.

Example:
    ```python
    site = web.Application()
    site.cleanup_ctx.append(app.lifespan)
    site.add_subapp("/jobs", jobs_router(app, authorize=may_see))
    add_error_handlers(site)

    async def start(request: web.Request) -> web.Response:
        return accepted(await render.delay(), request)

    async def wait_for_sum(request: web.Request) -> web.Response:
        async with cancel_on_disconnect(request, await add.delay(1, 2)) as result:
            return web.json_response(await result.get(timeout=10))
    ```
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import weakref
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.integrations.extras import needs_extra

with needs_extra("aiohttp"):
    from aiohttp import ClientConnectionResetError, WSCloseCode, web

from asyncq.integrations import job_resource, problems, server_sent_events
from asyncq.integrations.client_watch import WhileConnected
from asyncq.integrations.job_resource import (
    JobAccepted,
    JobResource,
    check,
    checked_handle,
    revoke_abandoned,
)
from asyncq.integrations.problems import Problem, failed_in_task, log_failure, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from asyncq.app import AsyncQ
    from asyncq.integrations.job_resource import Authorize, Revocable
    from asyncq.results.handle import AsyncResult

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Source = Callable[[AsyncResult[Any], int], AsyncGenerator[bytes, None]]

__all__ = ["JobAccepted", "accepted", "add_error_handlers", "cancel_on_disconnect", "jobs_router"]

log: logging.Logger = logging.getLogger(__name__)

JOB_ROUTE = "asyncq_job"
"""The name of the route of a job, by which its URL is found."""
LOOK = 0.2
"""Seconds between two looks at a connection: aiohttp tells nobody that a client has gone."""
_NO_STORE = {"Cache-Control": "no-store"}


def jobs_router(app: AsyncQ, *, authorize: Authorize) -> web.Application:
    """Makes a sub-application with which clients follow and end jobs by their ids:
    `site.add_subapp("/jobs", jobs_router(app, authorize=may_see))`.

    It has the endpoints of `asyncq.integrations.fastapi.jobs_router`, with the same answers: `GET /{id}`
    (with `Prefer: wait=10`), `GET /{id}/events`, `GET /{id}/stream`, `GET /{id}/ws` for a WebSocket, and
    `DELETE /{id}`.

    Args:
        app: whose jobs they are.
        authorize: `authorize(request, id)` says whether this client may see and end this job; otherwise it
            gets 404. A coroutine function, or a function, which runs in a thread. An `HTTPException` that it
            raises is the answer. It is required: whoever may see a job may also end it.

    Raises:
        TypeError: `authorize` is not callable.

    Example:
        ```python
        async def may_see(request: web.Request, id: str) -> bool:
            return await orders.owner_of(id) == (await get_session(request)).get("user")

        site.add_subapp("/jobs", jobs_router(app, authorize=may_see))
        ```
    """
    if not callable(authorize):
        raise TypeError(f"authorize={authorize!r}: give a function of the request and the id of a job")
    endpoints = _Endpoints(JobResource(app), authorize)
    jobs = web.Application()
    jobs.on_shutdown.append(endpoints.close)
    jobs.router.add_get("/{id}", endpoints.show, name=JOB_ROUTE)
    jobs.router.add_delete("/{id}", endpoints.end)
    jobs.router.add_get("/{id}/events", endpoints.events)
    jobs.router.add_get("/{id}/stream", endpoints.stream)
    jobs.router.add_get("/{id}/ws", endpoints.talk)
    return jobs


class _Endpoints:
    """What the sub-application answers."""

    def __init__(self, jobs: JobResource, authorize: Authorize) -> None:
        self._jobs = jobs
        self._authorize = authorize
        self._is_closing = False
        self._sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    async def close(self, _site: web.Application) -> None:
        # aiohttp waits for the handlers, and some follow jobs that run for hours. The clients ask again.
        self._is_closing = True
        for socket in set(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def show(self, request: web.Request) -> web.Response:
        wait = job_resource.wait_of(request.headers.get("Prefer"))
        document: dict[str, Any] = {}
        try:
            id_ = await self._allowed(request)
            async with WhileConnected(_gone(request)) as client:
                document = await self._jobs.shown_after(id_, wait)
        except problems.ANSWERED as error:
            return _problem(problem_of(error))
        if client.is_gone:
            return _problem(problems.CLIENT_GONE)
        headers = {"Vary": "Prefer", **_NO_STORE}
        if wait:
            headers["Preference-Applied"] = f"wait={wait}"
        if not {"value", "error"} & document.keys():
            headers["Retry-After"] = str(job_resource.RETRY_AFTER)
        return _json(document, 200, headers)

    async def end(self, request: web.Request) -> web.Response:
        try:
            await self._jobs.end(await self._allowed(request))
        except problems.ANSWERED as error:
            return _problem(problem_of(error))
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.StreamResponse:
        return await self._follow(request, self._jobs.events)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        return await self._follow(request, self._jobs.items)

    async def talk(self, request: web.Request) -> web.StreamResponse:
        try:
            handle = await self._jobs.find(await self._allowed(request))
        except problems.ANSWERED as error:
            return _problem(problem_of(error))
        socket = web.WebSocketResponse(heartbeat=server_sent_events.SILENCE)
        await socket.prepare(request)
        self._sockets.add(socket)
        code, reason = WSCloseCode.OK, b""
        try:
            async with WhileConnected(_closed(socket)), aclosing(self._jobs.states(handle)) as states:
                async for document in states:
                    await socket.send_str(json.dumps(document, ensure_ascii=False))
        except ClientConnectionResetError:
            pass  # the client has gone
        except problems.ANSWERED as error:
            # It was forgotten, or the site is shutting down. The client may ask again.
            code, reason = WSCloseCode.POLICY_VIOLATION, problem_of(error).title.encode()
        await socket.close(code=code, message=reason)
        return socket

    async def _follow(self, request: web.Request, source: Source) -> web.StreamResponse:
        try:
            handle = await self._jobs.find(await self._allowed(request))
        except problems.ANSWERED as error:
            return _problem(problem_of(error))
        try:
            after = job_resource.number_of(request.headers.get("Last-Event-ID"))
        except ValueError as error:
            return _problem(Problem(400, "bad-request", "Bad request", str(error)))
        if after is None:
            return web.Response(status=204)
        answer = web.StreamResponse(
            headers={**server_sent_events.HEADERS, "Content-Type": server_sent_events.MEDIA_TYPE}
        )
        async with aclosing(server_sent_events.kept_alive(source(handle, after))) as events:
            try:
                await answer.prepare(request)
                async with WhileConnected(self._closing_or_gone(request)):
                    async for data in events:
                        await answer.write(data)
            except ClientConnectionResetError:
                pass  # the client has gone
        return answer

    async def _closing_or_gone(self, request: web.Request) -> None:
        await _gone(request, lambda: self._is_closing)

    async def _allowed(self, request: web.Request) -> str:
        id_ = request.match_info["id"]
        await check(self._authorize, request, id_)
        return id_


async def _gone(request: web.Request, is_over: Callable[[], bool] = lambda: False) -> None:
    """Returns when the client has gone away, or the other condition is true."""

    def is_connected() -> bool:
        transport = request.transport
        return transport is not None and not transport.is_closing()

    while is_connected() and not is_over():  # noqa: ASYNC110  aiohttp has no event for it
        await asyncio.sleep(LOOK)


async def _closed(socket: web.WebSocketResponse) -> None:
    """Returns when the client has closed a WebSocket. What it sends is dropped."""
    async for _ in socket:
        pass


def _json(document: Any, status: int, headers: dict[str, str]) -> web.Response:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def _problem(problem: Problem) -> web.Response:
    return web.Response(
        body=problem.body(),
        status=problem.status,
        reason=problem.title if problem.status == problems.GONE else None,  # which the library does not know
        headers=problem.headers,
        content_type=problems.MEDIA_TYPE,
    )


def accepted(result: AsyncResult[Any], request: web.Request) -> web.Response:
    """Answers a request that has started a job: status 202, with `id`, `state` and `url` as JSON, and the
    headers `Location` and `Retry-After`.

    Args:
        result: the job, as `delay` gave it.
        request: the request.

    Raises:
        TypeError: `result` is not the handle of one job.
        LookupError: the site has no `jobs_router`.

    Example:
        ```python
        async def start(request: web.Request) -> web.Response:
            return accepted(await render.delay(), request)
        ```
    """
    handle = checked_handle(result)
    # From the innermost site outwards: the router that lies nearest.
    routers = [router for site in reversed(request.match_info.apps) for router in _job_routers(site)]
    if not routers:
        raise LookupError(
            'the site has no routes for jobs: `site.add_subapp("/jobs", jobs_router(app, authorize=...))`'
        )
    url = str(routers[0][JOB_ROUTE].url_for(id=handle.id))
    document = JobAccepted(handle.id, str(handle.state), url)
    headers = {"Location": url, "Retry-After": str(job_resource.RETRY_AFTER)}
    return _json(dataclasses.asdict(document), 202, headers)


def _job_routers(site: web.Application) -> Iterator[web.UrlDispatcher]:
    """Gives the routers with a route for jobs in a site and its sub-applications, level by level."""
    sites = [site]
    for each in sites:
        if JOB_ROUTE in each.router:
            yield each.router
        found = (resource.get_info().get("app") for resource in each.router.resources())
        sites += [inner for inner in found if inner is not None]


class ClientGone(web.HTTPException):
    """The client went away before the answer."""

    status_code = problems.GONE


H = TypeVar("H", bound="Revocable")


@asynccontextmanager
async def cancel_on_disconnect(request: web.Request, result: H) -> AsyncIterator[H]:
    """Gives a block that ends when the client goes away, and ends the job then: `async with
    cancel_on_disconnect(request, await add.delay(1, 2)) as result:`.

    Unless a site is run with `handler_cancellation=True`, aiohttp lets a handler run on when its client has
    gone. This block looks at the connection five times a second. When it is closed, the block is cancelled,
    and the job is revoked as by `revoke(terminate=True)`; the revocation is sent in the background. The
    request ends with the status 499, which only logs see. If something else cancels the block, as aiohttp
    does with `handler_cancellation=True`, the job is revoked, too. In all other cases the job goes on: after
    a timeout, and when the block raises.

    It reads the body of the request into memory first, so that `await request.read()` works inside.

    Args:
        request: the request.
        result: the handle of a job, or of many (`ResultSet`, `GroupResult`).

    Raises:
        HTTPException: with status 499: the client has gone away.

    Example:
        ```python
        async def wait_for_sum(request: web.Request) -> web.Response:
            async with cancel_on_disconnect(request, await add.delay(1, 2)) as result:
                return web.json_response(await result.get(timeout=10))
        ```
    """
    is_gone = False
    try:
        # While a body waits to be read, aiohttp does not read on, and would not find the end behind it.
        await request.read()
        async with WhileConnected(_gone(request)) as client:
            yield result
        is_gone = client.is_gone
    except ConnectionResetError:
        is_gone = request.transport is None
        if not is_gone:
            raise  # of another connection, that the block uses
    except asyncio.CancelledError:
        revoke_abandoned(result)
        raise
    if is_gone:
        revoke_abandoned(result)
        raise ClientGone(reason=problems.CLIENT_GONE.title)


def add_error_handlers(site: web.Application) -> None:
    """Answers errors of jobs that handlers do not catch, as problem documents (RFC 9457).

    `ResultTimeout` is 504, `ResultNotFound` 404, `TaskRevoked` 410, `QueueFull` 503 with `Retry-After`,
    `BrokerUnavailable` 503. What a task raised is 500, with the name of the exception and its message, and
    never with a traceback; a line in the log of the site names it. All other errors stay what they are.

    It adds a middleware, which is also that of sub-applications. Middlewares that the site has already are
    outside of it. Call it before the site starts.

    Example:
        ```python
        site = web.Application()
        add_error_handlers(site)
        ```
    """
    site.middlewares.append(_answer_errors)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:
        is_failure = failed_in_task(error)
        if not is_failure and not isinstance(error, problems.ANSWERED):
            raise
        problem = problem_of(error)
        if is_failure:
            log_failure(log, problem, request.method, request.path)
        return _problem(problem)
