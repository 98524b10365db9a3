"""`result_extended`: a handle that is made from an id has the arguments of the job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from helpers import process_bodies
from helpers.waiting import until_state

from asyncq import Retry, Worker, wire
from asyncq.results.view import job_of

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int
    y: int


@pytest.fixture
async def app(make_app):
    async with make_app(result_extended=True, processes=1) as app:
        yield app


def _call(handle):
    return handle.args, handle.kwargs


async def test_a_handle_from_an_id_shows_the_arguments_before_and_after_the_end(app, make_app):
    go = asyncio.Event()

    @app.task(name="move")
    async def move(point: Point, by: int = 1) -> None:
        await go.wait()

    moved = await move.delay(Point(1, 2), by=3)
    handle = app.AsyncResult(moved.id)
    assert _call(handle) == (None, None), "it has not queried the server"
    await handle.refresh()
    assert _call(handle) == ((Point(1, 2),), {"by": 3})
    assert handle.name == "move"
    async with Worker(app), make_app(result_extended=True) as stranger:
        other = stranger.AsyncResult(moved.id)
        await until_state(other, "STARTED")
        assert _call(other) == (({"x": 1, "y": 2},), {"by": 3}), (
            "plain data, because it does not know the task"
        )
        go.set()
        await moved.get(timeout=30)
        fresh, plain = app.AsyncResult(moved.id), stranger.AsyncResult(moved.id)
        for one in (fresh, plain):
            await one.refresh()
    assert _call(fresh) == ((Point(1, 2),), {"by": 3})
    assert _call(plain) == (({"x": 1, "y": 2},), {"by": 3})
    assert fresh.args[0] is not fresh.args[0], "each access returns a new object"


async def test_a_handle_shows_the_arguments_of_a_delayed_a_failed_and_a_revoked_job(app):
    @app.task(retry=Retry(max_retries=1, backoff=100))
    async def fail(word: str) -> None:
        raise ValueError(word)

    later = app.AsyncResult((await fail.options(countdown=100).delay("later")).id)
    await later.refresh()
    assert (later.state, later.args) == ("SCHEDULED", ("later",))
    await later.revoke()
    assert (later.state, later.args) == ("REVOKED", ("later",))
    async with Worker(app):
        again = app.AsyncResult((await fail.delay("again")).id)
        await until_state(again, "RETRY")
        assert again.args == ("again",)
        await again.revoke()
        once = app.AsyncResult((await fail.options(retry=Retry(max_retries=0)).delay("once")).id)
        await once.outcome(timeout=30)
        assert (once.state, once.args) == ("FAILURE", ("once",))


async def test_the_arguments_of_a_step_include_the_values_of_its_parents(app, add):
    @app.task
    async def failed(id: str, error: Exception, trace: str, word: str) -> None:
        pass

    last = await (add.s(1, 2) | add.s(4)).delay()
    waiting = app.AsyncResult(last.id)
    await waiting.refresh()
    assert (waiting.name, waiting.args) == (add.name, None), "the value is not there yet"
    async with Worker(app):
        assert await last.get(timeout=30) == 7
        ended = app.AsyncResult(last.id)
        await ended.refresh()
        assert _call(ended) == ((3, 4), {})
        bad = await add.options(link_error=failed.options(task_id="told").s("seen")).delay(1, "x")
        await bad.outcome(timeout=30)
        received = app.AsyncResult("told")
        await received.outcome(timeout=30)
        assert received.args == (None, None, None, "seen")


async def test_arguments_of_a_job_in_a_process_are_kept(app):
    double = process_bodies.register(app).double
    async with Worker(app):
        result = await double.delay([1, 2])
        assert await result.get(timeout=30) == [2, 4]
        handle = app.AsyncResult(result.id)
        await handle.refresh()
    assert handle.args == ([1, 2],)


async def test_without_the_setting_no_arguments_are_kept_and_no_query_is_added(make_app, server_url):
    async with make_app() as app:

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        asked = []
        commands = app.sessions.current().broker.commands
        run = commands.run
        commands.run = lambda shard, name, *rest, **more: (
            asked.append(name) or run(shard, name, *rest, **more)
        )
        queued = await add.delay(1, 2)
        handle = app.AsyncResult(queued.id)
        await handle.refresh()
        assert asked == ["state"]
        async with Worker(app):
            await queued.get(timeout=30)
        await handle.refresh()
        assert _call(handle) == (None, None)
        assert job_of(handle).latest.ended.body == b""


def test_an_outcome_is_decoded_unchanged_with_and_without_arguments():
    ended = wire.Ended("S", b"\x08", 1, 2, 1, "w", "add", "default", 0, ["child"], b"\x92\x91\x01\x80")
    stored = wire.encode_ended(ended)
    assert stored.hex() == "9b02c40108010201a177a3616464a764656661756c740091a56368696c64c40492910180"
    assert wire.decode_ended("S", stored) == ended
    older = wire.encode_ended(ended._replace(body=b""))
    assert wire.decode_ended("S", older).body == b""
    with pytest.raises(wire.DecodeError):
        wire.decode_ended("S", b"\x9c" + stored[1:] + b"\xc0")
