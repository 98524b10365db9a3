"""Types of what sites use. mypy and pyright check this file; nobody runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import flask as flask_library
from aiohttp import web
from fastapi import APIRouter, FastAPI, Request, Response

from asyncq import AsyncQ, AsyncResult, ResultSet
from asyncq.integrations import aiohttp, fastapi, flask

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

    from asyncq.integrations.django import AsyncqBackend

app = AsyncQ()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


async def may_see(request: HTTPConnection, id: str) -> bool:
    return True


def may_see_in_a_thread(request: HTTPConnection, id: str) -> bool:
    return True


async def on_fastapi(site: FastAPI, bare: Starlette, request: Request, response: Response) -> None:
    assert_type(fastapi.jobs_router(app, authorize=may_see), APIRouter)
    fastapi.jobs_router(app, authorize=may_see_in_a_thread)
    fastapi.jobs_router(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fastapi.add_error_handlers(site)
    fastapi.add_error_handlers(bare)
    assert_type(fastapi.accepted(await add.delay(1, 2), response, request), fastapi.JobAccepted)
    async with fastapi.cancel_on_disconnect(request, await add.delay(1, 2)) as result:
        assert_type(result, AsyncResult[int])
    async with fastapi.cancel_on_disconnect(request, await add.map([(1, 2)])) as results:
        assert_type(results, ResultSet[int])


async def on_aiohttp(site: web.Application, request: web.Request) -> None:
    assert_type(aiohttp.jobs_router(app, authorize=may_see_in_a_thread), web.Application)
    aiohttp.add_error_handlers(site)
    assert_type(aiohttp.accepted(await add.delay(1, 2), request), web.Response)
    async with aiohttp.cancel_on_disconnect(request, await add.delay(1, 2)) as result:
        assert_type(result, AsyncResult[int])


def may_see_in_flask(request: flask_library.Request, id: str) -> bool:
    return True


def on_flask(site: flask_library.Flask) -> None:
    assert_type(flask.jobs_router(app, authorize=may_see_in_flask), flask_library.Blueprint)
    flask.add_error_handlers(site)
    assert_type(flask.accepted(add.delay_sync(1, 2)), flask_library.Response)


def on_django(backend: AsyncqBackend) -> None:
    assert_type(backend.app, AsyncQ)
