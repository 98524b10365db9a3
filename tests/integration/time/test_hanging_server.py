"""A server that hangs with its connections open: every timeout is kept by asyncq's own clock."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time

import pytest
from helpers.figures import report
from helpers.inside import connection_of, is_connecting
from helpers.own_server import own_server
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_sync

from asyncq import BrokerUnavailable, ResultTimeout, Worker
from asyncq.broker.transport import connection

pytestmark = pytest.mark.anyio

SLACK = 0.25


async def _took(call, error: type[Exception]) -> float:
    start = time.monotonic()
    with pytest.raises(error):
        await call
    return time.monotonic() - start


async def test_while_the_server_hangs_waits_end_in_time_and_calls_give_up(make_app, tmp_path):
    with own_server(tmp_path) as server:
        async with make_app(server.url, operation_timeout=1.5, lease=5) as app:

            @app.task
            async def nap(seconds: float) -> str:
                await asyncio.sleep(seconds)
                return "slept"

            queued = await nap.options(queue="nobody").delay(0)
            async with Worker(app):
                running = await nap.delay(0.1)
                by_id = app.AsyncResult(queued.id)
                with server.hanging():
                    waits = {
                        f"{kind} handle, timeout={timeout:g}": (timeout, handle.get(timeout=timeout))
                        for kind, handle in (("queued", queued), ("running", running), ("by id", by_id))
                        for timeout in (0.1, 0.5, 1.0)
                    }
                    whole = Stopwatch()  # one stopwatch, because reading it takes as long as one call
                    took = await asyncio.gather(*(_took(wait, ResultTimeout) for _, wait in waits.values()))
                    withheld = whole.took.withheld
                    over = {what: t - withheld - waits[what][0] for what, t in zip(waits, took, strict=True)}
                    assert all(t >= waits[what][0] for what, t in zip(waits, took, strict=True))
                    worst = max(over, key=over.__getitem__)
                    report(
                        f"9 waits while the server hung: at most {over[worst] * 1000:.0f} ms over ({worst})"
                    )
                    assert over[worst] <= SLACK

                    calls = (queued.ready(), by_id.refresh(), nap.delay(0), queued.revoke(), queued.forget())
                    gave_up = await asyncio.gather(*(_took(call, BrokerUnavailable) for call in calls))
                    report(f"calls gave up after {min(gave_up):.2f} to {max(gave_up):.2f} s of 1.5 s")
                    assert max(gave_up) <= 1.5 + SLACK
                assert await running.get(timeout=30) == "slept"
                assert await nap.options(wait=30).call(0) == "slept"


async def test_a_query_does_not_wait_for_a_server_that_hangs(make_app, tmp_path):
    with own_server(tmp_path) as server:
        async with make_app(server.url) as app:

            @app.task
            async def never() -> None: ...

            result = await never.delay()
            with server.hanging():
                for handle in (result, app.AsyncResult(result.id)):
                    took = await _took(handle.get(timeout=0), Exception)
                    assert took <= SLACK


async def test_outcomes_that_a_worker_could_not_send_before_its_app_closed_are_given_up(
    make_app, tmp_path, caplog
):
    with own_server(tmp_path) as server:
        async with make_app(server.url, operation_timeout=0.5) as app:

            @app.task
            async def last() -> None:
                server.kill()

            await last.delay()
            async with Worker(app, grace=0.1) as worker:
                await until(lambda: worker.done, "the job to end")
            saying = [task for task in asyncio.all_tasks() if "_persist" in repr(task)]
            assert len(saying) == 1
        await asyncio.wait_for(saying[0], 30)
        assert "1 outcomes could not be stored" in caplog.text


async def test_a_call_that_waits_for_a_connection_learns_that_the_app_was_closed(make_app, tmp_path):
    with own_server(tmp_path) as server:
        app = make_app(server.url)
        await app.open()
        connection = connection_of(app.sessions.current().broker.commands)
        with server.hanging():
            connection.drop()
            call = asyncio.create_task(app.AsyncResult("id").exists())
            await until(lambda: is_connecting(connection), "the client to connect")
            await app.close()
            with pytest.raises(BrokerUnavailable):
                await asyncio.wait_for(asyncio.shield(call), 30)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a connect when its socket is shut down")
def test_a_blocking_connect_to_a_host_that_does_not_answer_ends_when_the_connection_is_dropped():
    """As that of a heartbeat to a node of a Cluster that is cut off, when another node takes its place."""
    ended: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as callers:
        for _ in range(4):  # so many connects that the system answers no other
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        address = connection.parse(f"redis://127.0.0.1:{full.getsockname()[1]}/0")
        blocking = connection.BlockingConnection(address, "dropped", timeout=60)

        def call() -> None:
            try:
                blocking.call("PING")
            except BrokerUnavailable as error:
                ended.append(error)

        thread = threading.Thread(target=call)
        thread.start()

        def has_ended() -> bool:
            blocking.drop()  # again and again: the connect may not have begun
            return not thread.is_alive()

        until_sync(has_ended, "the connect to end")
        assert len(ended) == 1
        blocking.close()
