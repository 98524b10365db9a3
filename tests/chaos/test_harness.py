"""Tests the harness itself: a judge that finds nothing and a fault that never strikes would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from helpers import leftovers

from asyncq import failpoints
from chaos import oracle
from chaos.proxy import Proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def books(tmp_path):
    def make(*lines: str) -> oracle.Books:
        (tmp_path / "7.journal").write_text("".join(f"{line}\n" for line in lines))
        return oracle.Books.read(tmp_path)

    return make


def test_the_judge_counts_a_body_that_began_twice(books):
    assert books("B 1.0 a 7.0 5 1 -", "E 1.1 a 7.0", "B 1.2 a 7.1 5 2 -").extra_runs() == 1


def test_the_judge_finds_a_wrong_value(books):
    good, bad = oracle.expected(5), oracle.expected(6)
    assert books("A 1.0 a 5", f"G 2.0 a ok {good} 7.0 -1").wrong() == []
    assert books("A 1.0 a 5", f"G 2.0 a ok {bad} 7.0 -1").wrong() == ["a"]


def test_the_judge_finds_a_waiter_without_an_answer(books):
    assert books("A 1.0 a 5").never_answered() == ["a"]
    assert books("A 1.0 a 5", "G 2.0 a ResultTimeout 0 - 0").never_answered() == ["a"]
    assert books("A 1.0 a 5", "G 2.0 a ok 36 7.0 -1").never_answered() == []


def test_the_judge_finds_an_outcome_that_changed_after_it_was_delivered(books):
    received = books("A 1.0 a 5", "G 2.0 a ok 36 7.0 -1")
    assert received.contradicted({"a": ("ok", 36, "7.0")}) == []
    assert received.contradicted({"a": ("ok", 36, "8.3")}) == ["a"]


def test_the_judge_finds_one_enqueue_that_became_two_jobs(books):
    assert books("B 1.0 a 7.0 5 1 -", "B 1.0 b 7.1 5 1 -").made_twice() == [5]


def test_the_judge_finds_a_job_given_up_too_early_and_a_wait_that_ended_late(books):
    found = books("A 1.0 a 5", "B 1.0 a 7.0 5 1 -", "G 2.0 a WorkerLost 0 - 1.5")
    assert found.unjust_losses() == ["a"]
    assert found.late(1.0) == [1.5]


def test_the_judge_finds_a_job_that_began_too_early_or_with_another_value_than_its_parent_s(books):
    handed, parents = f"{oracle.expected(1)}:7.0", {1: [], 2: [1]}
    lines = ["A 0 a 1", "A 0 b 2", "B 1.0 a 7.0 1 1 -", "E 2.0 a 7.0", "G 3.0 a ok 8 7.0 -1"]
    assert books(*lines, f"B 2.1 b 7.1 2 1 {handed}").misled(parents) == []
    assert books(*lines, f"B 1.9 b 7.1 2 1 {handed}").misled(parents) == ["7.1"]
    assert books(*lines, "B 2.1 b 7.1 2 1 8:7.9").misled(parents) == ["7.1"]
    assert books(*lines, "B 2.1 b 7.1 2 1 -").misled(parents) == ["7.1"]


def test_what_a_process_had_in_flight_is_what_nobody_had_been_given(books):
    found = books(
        *("B 1.0 a 7.0 5 1 -", "E 2.0 a 7.0", "G 2.1 a ok 36 7.0 -1"),
        *("B 1.0 d 7.3 8 1 -", "E 2.0 d 7.3", "G 2.6 d ok 57 7.3 -1"),
        *("B 1.5 b 7.1 6 1 -", "B 3.5 c 7.2 7 1 -"),
    )
    assert [run.name for run in found.in_flight(7, 2.4)] == ["7.3", "7.1"]
    assert found.in_flight(8, 2.4) == []
    assert [run.name for run in found.in_flight(7, 9.0)] == ["7.1", "7.2"]


def test_the_judge_finds_a_run_that_no_loss_explains(books):
    found = books("B 1.0 a 7.0 5 1 -", "E 1.1 a 7.0", "B 1.2 a 7.1 5 2 -")
    assert len(found.unexplained_runs([])) == 1
    assert len(found.unexplained_runs([(8, 1.15)])) == 1
    assert found.unexplained_runs([(7, 1.15)]) == []


def test_one_body_may_begin_late_each_time_a_process_goes_on(books):
    found = books(
        *("B 1.0 a 7.0 5 1 -", "E 1.1 a 7.0", "B 1.2 a 7.1 5 2 -"),
        *("B 1.0 b 7.2 6 1 -", "E 1.1 b 7.2", "B 1.2 b 7.3 6 2 -"),
    )
    assert len(found.unexplained_runs([], [(7, 1.19)])) == 1
    assert len(found.unexplained_runs([], [(7, 0.1), (8, 1.19)])) == 2
    assert found.unexplained_runs([], [(7, 1.19), (7, 1.1)]) == []


async def test_an_entry_that_no_record_names_and_a_record_without_entry_are_left_over(
    app, server_url, namespace, leaves_keys
):
    import redis

    assert leftovers.find(server_url, namespace) == []
    client = redis.Redis.from_url(server_url)
    client.xadd(app.sessions.shards[0].stream("default"), {"i": "unknown", "m": "x"})
    client.set(app.sessions.shards[0].records + "orphan", "L--- 1-1 default n c")
    client.close()
    assert len(leftovers.find(server_url, namespace)) == 2


def test_failpoints_are_read_from_text_and_strike_at_their_turn(monkeypatch):
    struck = []
    monkeypatch.setattr(os, "kill", lambda pid, number: struck.append((pid, number.name)))
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("finish.send=kill@2 beat.send=stop"))
    failpoints.hit("finish.send")
    assert struck == []
    failpoints.hit("finish.send")
    failpoints.hit("finish.send")
    failpoints.hit("beat.send")
    failpoints.hit("unknown")
    assert struck == [(os.getpid(), "SIGKILL"), (os.getpid(), "SIGSTOP")]


@pytest.mark.parametrize("order", ["finish.send", "finish.send=explode", "finish.send=kill@0", "=kill"])
def test_a_failpoint_that_cannot_be_read_is_refused(order):
    with pytest.raises(ValueError, match="no failpoint"):
        failpoints.parse(order)


@pytest.fixture
async def echo():
    """A server that sends back what it receives. Yields its port."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def line(echo):
    """A proxy before the echo server, and a connection through the proxy."""
    async with Proxy(echo, seed=1) as proxy:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(proxy.url.rpartition(":")[2].split("/")[0])
        )
        yield proxy, reader, writer
        writer.transport.abort()
        await asyncio.sleep(0)


async def say(writer, reader, text: bytes) -> bytes:
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(len(text)), 30)


async def test_the_proxy_passes_on_whole_in_slices_and_late(line):
    proxy, reader, writer = line
    assert await say(writer, reader, b"whole") == b"whole"
    proxy.slices, proxy.latency = 2, (0.05, 0.05)
    began = asyncio.get_running_loop().time()
    assert await say(writer, reader, b"slices") == b"slices"
    assert asyncio.get_running_loop().time() - began >= 0.1


async def test_the_proxy_swallows_a_reply_that_was_executed_and_cuts_the_line(line):
    proxy, reader, writer = line
    proxy.drop_replies = 1.0
    writer.write(b"lost")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(10), 30)
    assert proxy.counts["lost reply"] == 1


async def test_the_proxy_holds_everything_until_it_heals(line):
    proxy, reader, writer = line
    proxy.hold()
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    proxy.heal()
    assert await asyncio.wait_for(reader.read(1), 2) == b"x"


async def test_the_proxy_leaves_the_client_on_a_line_that_is_dead(line):
    proxy, reader, writer = line
    assert await say(writer, reader, b"alive") == b"alive"
    proxy.half_open()
    writer.write(b"dead")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)


async def test_the_proxy_swallows_published_messages_and_nothing_else(line):
    proxy, reader, writer = line
    proxy.drop_pushes = 1.0
    # The far end echoes, so these bytes come back as a server's push would.
    writer.write(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    assert await say(writer, reader, b"+PONG") == b"+PONG"
