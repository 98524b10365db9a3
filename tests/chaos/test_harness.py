"""Tests the harness itself: a judge that finds nothing and a fault that never happens would prove nothing."""

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
def journals(tmp_path):
    def make(*lines: str) -> oracle.Journals:
        (tmp_path / "7.journal").write_text("".join(f"{line}\n" for line in lines))
        return oracle.Journals.read(tmp_path)

    return make


def test_the_judge_counts_a_body_that_started_twice(journals):
    assert journals("B 1.0 a 7.0 5 1 -", "E 1.1 a 7.0", "B 1.2 a 7.1 5 2 -").extra_runs() == 1


def test_the_judge_finds_a_wrong_value(journals):
    good, bad = oracle.expected(5), oracle.expected(6)
    assert journals("A 1.0 a 5", f"G 2.0 a ok {good} 7.0 -1").wrong() == []
    assert journals("A 1.0 a 5", f"G 2.0 a ok {bad} 7.0 -1").wrong() == ["a"]


def test_the_judge_finds_a_waiter_without_an_answer(journals):
    assert journals("A 1.0 a 5").never_answered() == ["a"]
    assert journals("A 1.0 a 5", "G 2.0 a ResultTimeout 0 - 0").never_answered() == ["a"]
    assert journals("A 1.0 a 5", "G 2.0 a ok 36 7.0 -1").never_answered() == []


def test_the_judge_finds_an_outcome_that_changed_after_it_was_delivered(journals):
    received = journals("A 1.0 a 5", "G 2.0 a ok 36 7.0 -1")
    assert received.contradicted({"a": ("ok", 36, "7.0")}) == []
    assert received.contradicted({"a": ("ok", 36, "8.3")}) == ["a"]


def test_the_judge_finds_one_enqueue_that_became_two_jobs(journals):
    assert journals("B 1.0 a 7.0 5 1 -", "B 1.0 b 7.1 5 1 -").duplicated_jobs() == [5]


def test_the_judge_finds_a_job_dead_lettered_too_early_and_a_wait_that_ended_late(journals):
    found = journals("A 1.0 a 5", "B 1.0 a 7.0 5 1 -", "G 2.0 a WorkerLost 0 - 1.5")
    assert found.dead_lettered_too_early() == ["a"]
    assert found.late(1.0) == [1.5]


def test_the_judge_finds_a_job_that_started_too_early_or_with_a_wrong_value_of_its_parent(journals):
    parent_values, parents = f"{oracle.expected(1)}:7.0", {1: [], 2: [1]}
    lines = ["A 0 a 1", "A 0 b 2", "B 1.0 a 7.0 1 1 -", "E 2.0 a 7.0", "G 3.0 a ok 8 7.0 -1"]
    assert journals(*lines, f"B 2.1 b 7.1 2 1 {parent_values}").wrong_starts(parents) == []
    assert journals(*lines, f"B 1.9 b 7.1 2 1 {parent_values}").wrong_starts(parents) == ["7.1"]
    assert journals(*lines, "B 2.1 b 7.1 2 1 8:7.9").wrong_starts(parents) == ["7.1"]
    assert journals(*lines, "B 2.1 b 7.1 2 1 -").wrong_starts(parents) == ["7.1"]


def test_the_judge_finds_a_start_with_a_value_that_no_run_of_the_parent_had_returned(journals):
    one, other, parents = f"{oracle.expected(1)}:7.0", f"{oracle.expected(1)}:7.9", {1: [], 2: [1]}
    # The parent ran twice: its first outcome was lost with the server's data. Either value is right.
    lines = ["B 1.0 a 7.0 1 1 -", "E 2.0 a 7.0", "B 3.0 a 7.9 1 1 -", "E 4.0 a 7.9"]
    assert journals(*lines, f"B 2.1 b 7.1 2 1 {one}").strange_starts(parents) == []
    assert journals(*lines, f"B 4.1 b 7.1 2 1 {other}").strange_starts(parents) == []
    assert journals(*lines, f"B 3.9 b 7.1 2 1 {other}").strange_starts(parents) == ["7.1"]
    assert journals(*lines, "B 4.1 b 7.1 2 1 9:7.0").strange_starts(parents) == ["7.1"]
    assert journals(*lines, f"B 4.1 b 7.1 2 1 {oracle.expected(1)}:7.5").strange_starts(parents) == ["7.1"]
    assert journals(*lines, "B 4.1 b 7.1 2 1 -").strange_starts(parents) == ["7.1"]


def test_a_run_is_in_flight_until_a_waiter_has_its_outcome(journals):
    found = journals(
        *("B 1.0 a 7.0 5 1 -", "E 2.0 a 7.0", "G 2.1 a ok 36 7.0 -1"),
        *("B 1.0 d 7.3 8 1 -", "E 2.0 d 7.3", "G 2.6 d ok 57 7.3 -1"),
        *("B 1.5 b 7.1 6 1 -", "B 3.5 c 7.2 7 1 -"),
    )
    assert [run.name for run in found.in_flight(7, 2.4)] == ["7.3", "7.1"]
    assert found.in_flight(8, 2.4) == []
    assert [run.name for run in found.in_flight(7, 9.0)] == ["7.1", "7.2"]


def test_the_judge_finds_a_run_that_no_loss_explains(journals):
    found = journals("B 1.0 a 7.0 5 1 -", "E 1.1 a 7.0", "B 1.2 a 7.1 5 2 -")
    assert len(found.unexplained_runs([])) == 1
    assert len(found.unexplained_runs([(8, 1.15)])) == 1
    assert found.unexplained_runs([(7, 1.15)]) == []


def test_one_body_may_start_late_each_time_a_process_resumes(journals):
    found = journals(
        *("B 1.0 a 7.0 5 1 -", "E 1.1 a 7.0", "B 1.2 a 7.1 5 2 -"),
        *("B 1.0 b 7.2 6 1 -", "E 1.1 b 7.2", "B 1.2 b 7.3 6 2 -"),
    )
    assert len(found.unexplained_runs([], [(7, 1.19)])) == 1
    assert len(found.unexplained_runs([], [(7, 0.1), (8, 1.19)])) == 2
    assert found.unexplained_runs([], [(7, 1.19), (7, 1.1)]) == []


async def test_leftovers_are_entries_that_no_record_names_and_records_without_an_entry(
    app, server_url, namespace, leaves_keys
):
    import redis

    assert leftovers.find(server_url, namespace) == []
    client = redis.Redis.from_url(server_url)
    client.xadd(app.sessions.shards[0].stream("default"), {"i": "unknown", "m": "x"})
    client.set(app.sessions.shards[0].records + "orphan", "L--- 1-1 default n c")
    client.close()
    assert len(leftovers.find(server_url, namespace)) == 2


def test_failpoints_are_parsed_and_act_when_they_are_hit_for_the_given_time(monkeypatch):
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
def test_a_malformed_failpoint_is_refused(order):
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
async def proxied(echo):
    """A proxy before the echo server, and a connection through the proxy."""
    async with Proxy(echo, seed=1) as proxy:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(proxy.url.rpartition(":")[2].split("/")[0])
        )
        yield proxy, reader, writer
        writer.transport.abort()
        await asyncio.sleep(0)


async def exchange(writer, reader, text: bytes) -> bytes:
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(len(text)), 30)


async def test_the_proxy_forwards_data_whole_or_in_slices_and_late(proxied):
    proxy, reader, writer = proxied
    assert await exchange(writer, reader, b"whole") == b"whole"
    proxy.slices, proxy.latency = 2, (0.05, 0.05)
    began = asyncio.get_running_loop().time()
    assert await exchange(writer, reader, b"slices") == b"slices"
    assert asyncio.get_running_loop().time() - began >= 0.1


async def test_the_proxy_drops_the_reply_of_an_executed_command_and_cuts_the_connection(proxied):
    proxy, reader, writer = proxied
    proxy.drop_replies = 1.0
    writer.write(b"lost")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(10), 30)
    assert proxy.counts["lost reply"] == 1


async def test_the_proxy_forwards_nothing_until_it_heals(proxied):
    proxy, reader, writer = proxied
    proxy.hold()
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    proxy.heal()
    assert await asyncio.wait_for(reader.read(1), 2) == b"x"


async def test_a_half_open_connection_stays_open_for_the_client_and_is_silent(proxied):
    proxy, reader, writer = proxied
    assert await exchange(writer, reader, b"alive") == b"alive"
    proxy.half_open()
    writer.write(b"dead")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)


async def test_the_proxy_drops_published_messages_and_nothing_else(proxied):
    proxy, reader, writer = proxied
    proxy.drop_pushes = 1.0
    # The far end echoes, so these bytes come back as a server's push would.
    writer.write(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    assert await exchange(writer, reader, b"+PONG") == b"+PONG"
