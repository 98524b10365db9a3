"""The endpoints of a jobs router, for Starlette and FastAPI. On the loop of the site.

Each endpoint takes the request and the id of a job. A client that may not see the job gets the same answer as
one that asks for a job that does not exist.
"""

from __future__ import annotations

import json
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

# Not for type checkers only: FastAPI reads the annotations of the endpoints.
from starlette.requests import Request  # noqa: TC002
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from asyncq.integrations import job_resource, problems
from asyncq.integrations.asgi_answers import DocumentAnswer, EventStream, ProblemAnswer, client_gone
from asyncq.integrations.client_watch import WhileConnected
from asyncq.integrations.job_resource import check
from asyncq.integrations.problems import Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from asyncq.integrations.job_resource import Authorize, JobResource
    from asyncq.results.handle import AsyncResult

    Source = Callable[[AsyncResult[Any], int], AsyncGenerator[bytes, None]]

JOB_ROUTE = "asyncq_job"
"""The name of the route of a job, by which its URL is found."""
NORMAL_CLOSURE, POLICY_VIOLATION = 1000, 1008
"""Codes with which a WebSocket is closed."""


class JobEndpoints:
    """The endpoints for the jobs of an app.

    Args:
        jobs: shows, follows and ends the jobs.
        authorize: says whether a client may see and end a job. It is called with the request, or with the
            WebSocket, and the id. If it is no coroutine function, it runs in a thread.
    """

    def __init__(self, jobs: JobResource, authorize: Authorize) -> None:
        self._jobs = jobs
        self._authorize = authorize

    async def show(self, request: Request, id: str) -> Response:
        """Shows a job: its state, and its progress, its value, or the problem with it.

        With the header `Prefer: wait=10`, the answer comes when the job has ended, or after ten seconds. A
        minute is the longest wait.
        """
        wait = job_resource.wait_of(request.headers.get("prefer"))
        document: dict[str, Any] = {}
        try:
            await check(self._authorize, request, id)
            async with WhileConnected(client_gone(request.receive)) as client:
                document = await self._jobs.shown_after(id, wait)
        except problems.ANSWERED as error:
            return _refusal(error)
        if client.is_gone:
            return ProblemAnswer(problems.CLIENT_GONE)
        headers = {"Vary": "Prefer"}
        if wait:
            headers["Preference-Applied"] = f"wait={wait}"
        if not {"value", "error"} & document.keys():
            headers["Retry-After"] = str(job_resource.RETRY_AFTER)
        return DocumentAnswer(document, headers)

    async def events(self, request: Request, id: str) -> Response:
        """Sends a server-sent event with the job, now and after each change, until it has ended.

        The last event is named `end`. The answer to a reader that comes back behind that event is 204, on
        which a browser stops asking.
        """
        return await self._follow(request, id, self._jobs.events)

    async def stream(self, request: Request, id: str) -> Response:
        """Sends each item that the task yields as a server-sent event, from the first, or behind the number
        in `Last-Event-ID`.

        The event behind the last item is named `end`, and has the job. The answer to a reader that comes back
        behind that event is 204, on which a browser stops asking.
        """
        return await self._follow(request, id, self._jobs.items)

    async def end(self, request: Request, id: str) -> Response:
        """Ends a job: one that waits never starts, one that runs is ended. So are the jobs before it in its
        workflow. Does nothing if it has ended.
        """
        try:
            await check(self._authorize, request, id)
            await self._jobs.end(id)
        except problems.ANSWERED as error:
            return _refusal(error)
        return Response(status_code=204)

    async def talk(self, socket: WebSocket, id: str) -> None:
        """Sends the job as JSON, now and after each change, and closes the connection when it has ended."""
        try:
            await check(self._authorize, socket, id)
            handle = await self._jobs.find(id)
        except problems.ANSWERED as error:
            await _deny(socket, _refusal(error))
            return
        await socket.accept()
        try:
            async with (
                WhileConnected(client_gone(socket.receive)),
                aclosing(self._jobs.states(handle)) as states,
            ):
                async for document in states:
                    await socket.send_text(json.dumps(document, ensure_ascii=False))
                await socket.close(NORMAL_CLOSURE)
        except WebSocketDisconnect:
            pass  # the server said so as the answer to what was sent
        except problems.ANSWERED as error:
            # It was forgotten, or the site is shutting down. The client may ask again.
            with suppress(WebSocketDisconnect):
                await socket.close(POLICY_VIOLATION, problem_of(error).title)

    # -- within --

    async def _follow(self, request: Request, id: str, source: Source) -> Response:
        try:
            await check(self._authorize, request, id)
            handle = await self._jobs.find(id)
        except problems.ANSWERED as error:
            return _refusal(error)
        try:
            after = job_resource.number_of(request.headers.get("last-event-id"))
        except ValueError as error:
            return ProblemAnswer(Problem(400, "bad-request", "Bad request", str(error)))
        if after is None:
            return Response(status_code=204)
        return EventStream(source(handle, after))


def _refusal(error: Exception) -> ProblemAnswer:
    return ProblemAnswer(problem_of(error))


async def _deny(socket: WebSocket, answer: Response) -> None:
    """Refuses a WebSocket before it is accepted: with an answer, if the server can send one."""
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(answer)
    else:
        await socket.close(POLICY_VIOLATION)
