"""What FastAPI needs beyond Starlette: routes that obey the dependencies of a site, and models for OpenAPI.

Runs where the routes are made, and on the loop of the site.
"""

from __future__ import annotations

import inspect
import json
import typing
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Union

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError
from starlette.routing import WebSocketRoute

from asyncq.integrations import problems, server_sent_events
from asyncq.integrations.starlette_endpoints import JOB_ROUTE
from asyncq.json_values import plain
from asyncq.serializers.hints import hints_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send
    from starlette.websockets import WebSocket

    from asyncq.app import AsyncQ
    from asyncq.integrations.starlette_endpoints import JobEndpoints

    Answers = dict[int | str, dict[str, Any]]

V = TypeVar("V")


class ProblemDocument(BaseModel):
    """A problem document, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    exception: str | None = None
    """The full name of the class that the task raised."""


class JobSucceeded(BaseModel, Generic[V]):
    """A job that has ended with a value."""

    id: str
    state: Literal["SUCCESS"]
    value: V


class JobFailed(BaseModel):
    """A job that failed, was revoked, or waits for its next try."""

    id: str
    state: Literal["FAILURE", "REVOKED", "RETRY"]
    error: ProblemDocument


class JobUnderWay(BaseModel):
    """A job that waits or runs. The state may be a word of the task's own."""

    id: str
    state: Literal["PENDING", "SCHEDULED", "STARTED"] | str  # noqa: PYI051  for the reader of the document
    progress: Any = None
    """What the task has reported last."""


class JobRoute(APIRoute):
    """A route of a job. In a site of Starlette alone, where FastAPI's dependencies do not work, it calls its
    endpoint itself.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns what answers a request; FastAPI asks for it, also when the router is included."""
        with_dependencies = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if isinstance(request.scope.get("app"), FastAPI):
                return await with_dependencies(request)
            response: Response = await self.endpoint(request, request.path_params["id"])
            return response

        return answer


class JobSocketRoute(APIWebSocketRoute):
    """The route of a job's WebSocket, likewise."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, name: str) -> None:
        super().__init__(path, endpoint, name=name)

        async def talk(socket: WebSocket) -> None:
            await endpoint(socket, socket.path_params["id"])

        self._alone = WebSocketRoute(path, talk)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a connection."""
        if isinstance(scope.get("app"), FastAPI):
            await super().handle(scope, receive, send)
        else:
            await self._alone.handle(scope, receive, send)


class ValueEncoder:
    """Makes JSON of values by the annotations of their tasks, as FastAPI does of what an endpoint returns.

    Args:
        app: whose tasks they are.
    """

    def __init__(self, app: AsyncQ) -> None:
        self._app = app
        self._adapters: dict[Any, TypeAdapter[Any]] = {}

    def __call__(self, value: Any, task: str | None) -> Any:
        """Returns a value, or an item of a generator, as JSON."""
        known = None if task is None else self._app.tasks.get(task)
        function = None if known is None else known.function
        adapter = self._adapters.get(function)
        if adapter is None:
            adapter = self._adapters[function] = TypeAdapter(_kind_of_values(function))
        try:
            return json.loads(adapter.dump_json(value, by_alias=True, warnings=False))
        except PydanticSerializationError:  # bytes that are no text, for one
            return plain(value)


def router_of(endpoints: JobEndpoints, app: AsyncQ) -> APIRouter:
    """Returns a router with the endpoints, as FastAPI documents them."""
    router = APIRouter(route_class=JobRoute)
    refusals: Answers = {
        404: _problem("There is no such job, or the client may not see it."),
        503: _problem("The server of the jobs cannot be reached."),
    }
    stream: Answers = {
        **refusals,
        200: {"content": {server_sent_events.MEDIA_TYPE: {"schema": {"type": "string"}}}},
        204: {"description": "The reader has got all events."},
        400: _problem("`Last-Event-ID` is not the id of an event."),
    }
    router.add_api_route(
        "/{id}",
        endpoints.show,
        name=JOB_ROUTE,
        methods=["GET"],
        summary="Show a job",
        response_model=_shown(app),
        responses=refusals,
        openapi_extra=_header("Prefer", "`wait=10` waits up to ten seconds for the end of the job."),
    )
    router.add_api_route(
        "/{id}",
        endpoints.end,
        name="asyncq_end_job",
        methods=["DELETE"],
        summary="End a job",
        status_code=204,
        responses=refusals,
    )
    last_id = _header("Last-Event-ID", "The id of the last event that the reader has got.")
    for path, endpoint, name, summary in (
        ("/{id}/events", endpoints.events, "asyncq_job_events", "Follow a job"),
        ("/{id}/stream", endpoints.stream, "asyncq_job_stream", "Read what a job yields"),
    ):
        router.add_api_route(
            path,
            endpoint,
            name=name,
            methods=["GET"],
            summary=summary,
            response_model=None,
            responses=stream,
            openapi_extra=last_id,
        )
    router.routes.append(JobSocketRoute("/{id}/ws", endpoints.talk, name="asyncq_job_socket"))
    return router


def _problem(description: str) -> dict[str, Any]:
    schema = ProblemDocument.model_json_schema()
    return {"description": description, "content": {problems.MEDIA_TYPE: {"schema": schema}}}


def _header(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"parameters": [{"name": name, "in": "header", "description": description, "schema": schema}]}


def _shown(app: AsyncQ) -> Any:
    """Returns the type of what a job is shown as: with the value of any of the tasks."""
    kinds = dict.fromkeys(
        type(None) if task.is_generator else _kind_of_values(task.function) for task in app.tasks.values()
    )
    succeeded = [JobSucceeded[kind] for kind in kinds] or [JobSucceeded[Any]]  # type: ignore[valid-type]
    return Union[(*succeeded, JobFailed, JobUnderWay)]


def _kind_of_values(function: Callable[..., Any] | None) -> Any:
    """Returns the type of what a task returns, or of what it yields; `Any` if pydantic does not know it."""
    if function is None:
        return Any
    kind = hints_of(function).get("return", Any)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        kind = next(iter(typing.get_args(kind)), Any)
    try:
        TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return Any
    return kind
