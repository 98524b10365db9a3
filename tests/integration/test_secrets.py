"""Signed and encrypted messages, with real workers, and with a neighbour on the server who may write anything
there but has no secret.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import process_bodies, servers
from helpers.inside import log_damage_again
from helpers.waiting import until, until_state
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import AsyncQ, Retry, Worker, chain, config, group, wire
from asyncq.errors import BrokerNotConfigured, DecodeError, TaskRevoked
from asyncq.serializers import PLAIN_ARGUMENTS, PLAIN_VALUE
from asyncq.worker.processes import frames
from asyncq.worker.processes.app_source import child_setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.reads_bytes]

NEW, OLD = "the new secret of this app", "the old secret of this app"


class Neighbour:
    """Somebody with a password of the server, and without a secret.

    Args:
        url: of the server.
        namespace: of the app that is attacked.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self.server = servers.client(url)
        self.prefix = f"{{{namespace}:0}}:"

    def key(self, name: str) -> str:
        return self.prefix + name

    def add(self, id_: str, message: bytes, *, queue: str = "default", **fields: bytes) -> None:
        """Writes a job, as the script `enqueue` would."""
        entry = self.server.xadd(self.key(f"q:{queue}"), {"i": id_, "m": message, **fields}).decode()
        self.server.set(self.key(f"r:{id_}"), f"L--- {entry} {queue} 997f ")

    def messages(self, queue: str = "default") -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.server.xrange(self.key(f"q:{queue}"))]

    def end(self, id_: str, letter: str, outcome: bytes) -> None:
        """Writes the record of a job that has ended, and notifies whoever waits."""
        head = f"{letter}--- 1795-0 w-1 997f ".encode()
        channels = (self.server.get(self.key(f"r:{id_}")) or b"").split(b" ", 4)[4:]
        self.server.set(self.key(f"r:{id_}"), head + outcome, ex=60)
        for channel in channels and channels[0].split():
            self.server.publish(channel.decode(), wire.frame(id_, letter, outcome))

    def everything(self) -> bytes:
        """Returns all data of the namespace, as they lie at the server."""
        found = [b""]
        for key in self.server.scan_iter(f"{self.prefix}*", count=1000):
            found.append(key)
            kind = self.server.type(key)
            read: dict[bytes, Callable[[], Any]] = {
                b"string": lambda key=key: self.server.get(key),
                b"hash": lambda key=key: self.server.hgetall(key),
                b"stream": lambda key=key: self.server.xrange(key),
                b"zset": lambda key=key: self.server.zrange(key, 0, -1),
                b"set": lambda key=key: self.server.smembers(key),
            }
            found.append(_flat(read[kind]()))
        return b"\n".join(found)


def _flat(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b" ".join(_flat(key) + b"=" + _flat(each) for key, each in value.items())
    if isinstance(value, (list, tuple, set)):
        return b" ".join(map(_flat, value))
    return str(value).encode()


@pytest.fixture
def neighbour(server_url: str, namespace: str) -> Iterator[Neighbour]:
    one = Neighbour(server_url, namespace)
    yield one
    one.server.close()


@pytest.fixture(autouse=True)
def every_warning_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    log_damage_again(monkeypatch)


@pytest.fixture(params=[False, True], ids=["signed", "encrypted"])
def secret_app(request: pytest.FixtureRequest, make_app: Callable[..., AsyncQ]) -> AsyncQ:
    return make_app(secrets=[NEW], encrypt=request.param)


def forged(name: str = "add", args: tuple[Any, ...] = (1, 2), id_: str = "forged") -> bytes:
    body = PLAIN_ARGUMENTS.dumps(args, {})
    return wire.encode_job(wire.Job(id_, name, "default", body, "997f", "", 1_795_392_354_261, 3_600_000))


# -- nothing unsigned runs or arrives --


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_job_without_a_signature_never_runs_and_is_a_dead_letter(secret_app, neighbour, caplog):
    ran: list[int] = []

    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        ran.append(x)
        return x + y

    async with secret_app, Worker(secret_app):
        neighbour.add("forged", forged())
        with pytest.raises(DecodeError, match="not signed"):
            await secret_app.AsyncResult("forged").get(timeout=20)
        (letter,) = await secret_app.control.dead.list()
        assert (letter.job_id, letter.reason, letter.task) == ("forged", "not signed", "")
        assert isinstance(letter.error, DecodeError)
        with pytest.raises(ValueError, match="not signed"):
            await secret_app.control.dead.replay(letter.id)
        assert await add.call(2, 3) == 5, "the worker goes on"
    assert ran == [2]
    assert "is not signed" in caplog.text


@pytest.mark.one_server("a neighbour writes to one server")
async def test_an_entry_without_a_record_is_a_dead_letter_too(secret_app, neighbour):
    async with secret_app, Worker(secret_app):
        neighbour.server.xadd(neighbour.key("q:default"), {"i": "none", "m": forged(id_="none")})
        (letter,) = await until(secret_app.control.dead.list, "the entry to be set aside")
        assert letter.reason == "not signed"


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_message_that_is_copied_to_another_id_or_queue_is_refused(secret_app, neighbour):
    ran: list[str | None] = []

    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        ran.append(asyncq.current().id)
        return x + y

    async with secret_app:
        first = await add.delay(1, 2)
        (entry,) = neighbour.messages()
        neighbour.add("copy", entry[b"m"])
        neighbour.add("moved", entry[b"m"], queue="other")
        async with Worker(secret_app, queues=["default", "other"]):
            for id_ in ("copy", "moved"):
                with pytest.raises(DecodeError):
                    await secret_app.AsyncResult(id_).get(timeout=20)
            assert await first.get(timeout=20) == 3
        assert ran == [first.id]
        reasons = [letter.reason for letter in await secret_app.control.dead.list()]
        assert reasons == ["not signed", "not signed"]


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_message_with_any_byte_changed_never_runs(secret_app, neighbour):
    ran: list[int] = []

    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        ran.append(x)
        return x + y

    async with secret_app:
        await add.options(task_id="job").delay(1, 2)
        (entry,) = neighbour.messages()
        neighbour.server.delete(neighbour.key("q:default"))
        message = entry[b"m"]
        async with Worker(secret_app):
            for at in range(len(message)):
                changed = message[:at] + bytes([message[at] ^ 0x20]) + message[at + 1 :]
                neighbour.add("job", changed)
                with pytest.raises(DecodeError):
                    await secret_app.AsyncResult("job").get(timeout=20)
                await secret_app.AsyncResult("job").forget()
            assert len(await secret_app.control.dead.list(limit=1000)) == len(message)
    assert ran == []


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_forged_outcome_reaches_nobody_as_a_value(secret_app, neighbour):
    @secret_app.task(name="slow")
    async def slow() -> str:
        return "real"

    value = wire.encode_ended(wire.Ended("S", PLAIN_VALUE.dumps("forged"), name="slow"))
    failure = wire.encode_ended(wire.Ended("F", b"\x80", name="slow"))
    async with secret_app:
        for letter, outcome in (("S", value), ("F", failure), ("S", b""), ("C", value)):
            result = await slow.delay()
            waiting = asyncio.create_task(result.outcome(20))
            await until(
                lambda result=result: neighbour.server.get(neighbour.key(f"r:{result.id}")), "the job"
            )
            neighbour.end(result.id, letter, outcome)
            neighbour.server.delete(neighbour.key("q:default"))
            outcome_seen = await waiting
            assert outcome_seen.value is None
            assert isinstance(outcome_seen.error, DecodeError)
            with pytest.raises(DecodeError, match="not signed"):
                await secret_app.AsyncResult(result.id).get(timeout=5)


@pytest.mark.one_server("a neighbour writes to one server")
async def test_an_unsigned_notification_does_not_end_a_wait(secret_app, neighbour):
    @secret_app.task(name="slow")
    async def slow() -> str:
        return "real"

    value = wire.encode_ended(wire.Ended("S", PLAIN_VALUE.dumps("forged"), name="slow"))
    async with secret_app:
        result = await slow.delay()
        waiting = asyncio.create_task(result.get(timeout=20))
        (channel,) = neighbour.server.get(neighbour.key(f"r:{result.id}")).split(b" ")[4:]
        assert neighbour.server.publish(channel.decode(), wire.frame(result.id, "S", value)) == 1
        async with Worker(secret_app):
            assert await waiting == "real"


@pytest.mark.one_server("a neighbour writes to one server")
async def test_an_outcome_of_another_job_is_refused(secret_app, neighbour):
    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    async with secret_app, Worker(secret_app):
        first, second = await add.delay(1, 1), await add.delay(2, 2)
        assert [await first.get(timeout=20), await second.get(timeout=20)] == [2, 4]
        record = neighbour.server.get(neighbour.key(f"r:{second.id}"))
        neighbour.server.set(neighbour.key(f"r:{first.id}"), record, ex=60)
    again = AsyncQ(secret_app.settings.url, namespace=secret_app.settings.namespace, secrets=[NEW])
    async with again:
        with pytest.raises(DecodeError, match="not signed"):
            await again.AsyncResult(first.id).get(timeout=5)


@pytest.mark.one_server("a neighbour writes to one server")
async def test_values_of_other_jobs_are_not_given_to_a_job_that_waited(secret_app, neighbour):
    got: list[list[int]] = []

    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @secret_app.task(name="total", queue="sums")
    async def total(values: list[int]) -> int:
        got.append(values)
        return sum(values)

    async with secret_app:
        async with Worker(secret_app, queues=["default"]):
            other = await add.delay(100, 100)
            await other.get(timeout=20)
            result = await (group(add.s(1, 1), add.s(2, 2)) | total.s()).delay()
            await until(lambda: neighbour.messages("sums"), "the last job to be ready")
        (entry,) = neighbour.messages("sums")
        framed = wire.frame(
            other.id, "S", neighbour.server.get(neighbour.key(f"r:{other.id}")).split(b" ", 4)[4]
        )
        neighbour.server.delete(neighbour.key("q:sums"))
        neighbour.add(result.id, entry[b"m"], queue="sums", v=framed + framed)
        async with Worker(secret_app, queues=["sums"]):
            with pytest.raises(DecodeError, match="for which it did not wait"):
                await secret_app.AsyncResult(result.id).get(timeout=20)
    assert got == []


@pytest.mark.one_server("a neighbour writes to one server")
async def test_forged_reports_and_items_are_not_handed_out(secret_app, neighbour, caplog):
    gate = asyncio.Event()

    @secret_app.task(name="numbers")
    async def numbers() -> Any:
        yield 1
        await gate.wait()
        yield 2

    async with secret_app, Worker(secret_app):
        result = await numbers.delay()
        stream = result.stream()
        assert await anext(stream) == 1
        item = PLAIN_VALUE.dumps("forged")
        neighbour.server.publish(neighbour.key(f"ev:{result.id}"), b"i2 %d\n%b" % (len(item), item))
        record = neighbour.server.get(neighbour.key(f"r:{result.id}")).split(b" ")
        report = b"%b 9 1795392354261 HACKED " % record[1] + item
        neighbour.server.set(neighbour.key(f"e:{result.id}"), report, ex=60)
        neighbour.server.publish(neighbour.key(f"ev:{result.id}"), b"p" + report)
        await until(lambda: "is ignored" in caplog.text, "the forged events to come")
        await result.refresh()
        assert result.state == "STARTED"
        gate.set()
        assert [item async for item in stream] == [2]
        neighbour.server.xadd(neighbour.key(f"s:{result.id}"), {"v": item}, id="3-0")
        again = secret_app.AsyncResult(result.id).stream(after=1)
        with pytest.raises(DecodeError, match="not signed"):
            assert [item async for item in again] == [2]


@pytest.mark.one_server("a neighbour writes to one server")
async def test_orders_of_somebody_without_a_secret_are_ignored(secret_app, neighbour, caplog):
    async with secret_app, Worker(secret_app, name="w") as worker:
        (session,) = neighbour.server.hkeys(neighbour.key("w"))
        for order in ("stop", "quiet", "stacks"):
            channel = neighbour.key(f"x:{session.decode()}")
            assert neighbour.server.publish(channel, f"!{order} {neighbour.key('c:me')}") == 1
        await until(lambda: "an order to this worker is ignored" in caplog.text, "the order to come")
        assert set(await secret_app.control.ping(timeout=10)) == {"w"}
        assert not worker.is_quiet
        assert "worker w" in await secret_app.control.stacks("w")
        await secret_app.control.quiet("w")
        assert worker.is_quiet


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_stored_schedule_that_was_changed_makes_no_job(secret_app, neighbour, caplog):
    ran: list[int] = []

    @secret_app.task(name="tidy")
    async def tidy(x: int) -> None:
        ran.append(x)

    async with secret_app:
        await secret_app.schedules.add("clean", tidy.s(1), every=1)
        key = neighbour.key("sch:clean")
        definition = neighbour.server.hget(key, "d")
        async with Worker(secret_app):
            await until(lambda: ran, "the schedule to tick")
            neighbour.server.hset(key, "d", definition.replace(b"tidy", b"evil") + b"x")
            await until(lambda: "cannot tick" in caplog.text, "the change to be noticed")
        assert set(ran) == {1}
        with pytest.raises(DecodeError, match="not signed"):
            await secret_app.schedules.get("clean")
        await secret_app.schedules.remove("clean")


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_saved_group_that_was_changed_is_refused(secret_app, neighbour):
    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    async with secret_app, Worker(secret_app):
        results = await group(add.s(1, 1), add.s(2, 2)).delay()
        await results.save()
        found = await secret_app.GroupResult.restore(results.id)
        assert found is not None
        assert await found.get(timeout=20) == [2, 4]
        neighbour.server.append(neighbour.key(f"g:{results.id}"), b" ")
        with pytest.raises(DecodeError, match="not signed"):
            await secret_app.GroupResult.restore(results.id)


# -- and everything goes on working --


async def test_every_kind_of_job_works_with_secrets_in_worker_processes(secret_app, server_url, namespace):
    tasks = register(secret_app)
    encrypt = "1" if secret_app.settings.encrypt else "0"
    async with secret_app:
        with worker_process(server_url, namespace, secrets=NEW, encrypt=encrypt):
            assert await tasks.add.call(1, 2) == 3
            assert await (await tasks.add.map([(1, 1), (2, 2)])).get(timeout=20) == [2, 4]
            assert await chain(tasks.add.s(1, 2), tasks.add.s(3)).call() == 6
            assert await group(tasks.add.s(n, n) for n in range(5)).call() == [0, 2, 4, 6, 8]
            result = await tasks.numbers.delay(os.devnull, 3, 0)
            assert [number async for number in result.stream()] == [1, 2, 3]
            assert [number async for number in secret_app.AsyncResult(result.id).stream(after=1)] == [2, 3]
            assert await tasks.add.options(countdown=0.2).call(4, 4) == 8
            assert await tasks.blocked.call(os.devnull, "x", 0) == "x"


async def test_errors_retries_callbacks_and_shared_values_work_with_secrets(secret_app):
    seen: list[Any] = []

    @secret_app.task
    async def fails(times: int) -> int:
        if asyncq.current().attempt <= times:
            raise KeyError("lamp")
        return 7

    @secret_app.task
    async def note(id_: str, error: Exception, trace: str) -> None:
        seen.append((type(error), error.args, "KeyError" in trace))

    @secret_app.task
    async def long() -> str:
        return "x" * 5000

    @secret_app.task
    async def size(text: str, more: int) -> int:
        return len(text) + more

    async with secret_app, Worker(secret_app):
        patient = fails.options(retry=Retry(max_retries=2, backoff=0.05))
        result = await patient.delay(1)
        events = [event async for event in result.events(timeout=20)]
        assert [str(event.info) for event in events if event.state == "RETRY"] == ["'lamp'"]
        assert await result.get() == 7
        with pytest.raises(KeyError, match="lamp") as caught:
            await fails.options(link_error=note.s()).call(9)
        assert "KeyError: 'lamp'" in str(caught.value.__cause__)
        await until(lambda: seen, "the error callback to run")
        assert seen == [(KeyError, ("lamp",), True)]
        # A long value for which several jobs wait is kept once for all of them.
        assert await (long.s() | group(size.s(n) for n in range(4))).call() == [5000, 5001, 5002, 5003]
        with pytest.raises(KeyError):
            await chain(fails.s(9), size.s(1)).call()


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_dead_letter_is_sent_again_with_a_signature_of_its_own(secret_app, neighbour):
    is_fixed = False

    @secret_app.task
    async def add(x: int, y: int) -> int:
        if not is_fixed:
            raise KeyError("lamp")
        return x + y

    async with secret_app, Worker(secret_app):
        with pytest.raises(KeyError):
            await add.options(retry=Retry(max_retries=1, backoff=0.01)).call(2, 3)
        (letter,) = await secret_app.control.dead.list()
        assert letter.task.endswith("add")
        assert isinstance(letter.error, KeyError)
        is_fixed = True
        again = await secret_app.control.dead.replay(letter.id)
        assert await again.get(timeout=20) == 5


async def test_reports_reasons_and_history_work_with_secrets(secret_app):
    gate = asyncio.Event()

    @secret_app.task
    async def slow() -> None:
        await asyncq.current().progress(1, 2, "half")
        await gate.wait()

    async with secret_app, Worker(secret_app):
        result = await slow.delay()
        await until_state(result, "PROGRESS")
        assert result.info["message"] == "half"
        await result.revoke(terminate=True, reason="too late")
        with pytest.raises(TaskRevoked, match="too late"):
            await result.get(timeout=20)

        async def noted() -> Any:
            return [job for job in await secret_app.control.jobs(state="REVOKED") if job.id == result.id]

        (job,) = await until(noted, "the history to have the job")
        assert job.error == "too late"


async def test_a_schedule_of_code_that_was_stored_without_secrets_is_stored_again(
    make_app, server_url, namespace
):
    def with_schedule(**settings: Any) -> tuple[AsyncQ, list[int]]:
        app, ran = make_app(**settings), list[int]()

        @app.task(name="tidy", every=1)
        async def tidy() -> None:
            ran.append(1)

        return app, ran

    unsigned, ran = with_schedule()
    async with unsigned, Worker(unsigned):
        await until(lambda: ran, "the schedule to tick")
    signed, ran = with_schedule(secrets=[NEW])
    async with signed, Worker(signed):
        await until(lambda: ran, "the schedule to tick with secrets")
        found = await signed.schedules.get("tidy")
        assert found.task == "tidy"


def test_blocking_calls_work_with_secrets(secret_app):
    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    async def serve(stop: asyncio.Event) -> None:
        async with Worker(secret_app):
            await stop.wait()

    async def main() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(stop))
        assert await asyncio.to_thread(add.call_sync, 1, 2) == 3
        result = await asyncio.to_thread(add.delay_sync, 3, 4)
        assert await asyncio.to_thread(result.get_sync, timeout=20) == 7
        stop.set()
        await serving

    asyncio.run(main())
    secret_app.close_sync()


async def test_the_inline_harness_and_an_eager_call_need_no_signature(secret_app):
    from asyncq.testing import harness

    @secret_app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    async with harness(secret_app, inline=True):
        assert await add.call(1, 2) == 3
    assert await asyncio.to_thread(lambda: add.apply((1, 2)).get_sync()) == 3


async def test_a_job_in_a_process_has_the_secrets_and_nobody_sees_them_in_its_command(make_app, monkeypatch):
    monkeypatch.setattr(process_bodies, "seen", [])
    app = make_app(secrets=[NEW], encrypt=True, processes=2)
    tasks = process_bodies.register(app)
    async with app, Worker(app):
        # The job starts another one below it and waits for it, so its process signs and checks.
        assert await tasks.nested.call(1) == 2
        child = await tasks.pid.call()
        assert child != os.getpid()
        command = (Path("/proc") / str(child) / "cmdline").read_bytes()
        assert NEW.encode() not in command


def test_the_settings_of_a_child_process_hold_the_secrets():
    raw = bytes(range(240, 256)) + b"more"
    app = AsyncQ("redis://127.0.0.1:1/0", secrets=[NEW, raw])
    setup = child_setup(app, None, "redis://127.0.0.1:1/0")
    for travelled in (json.loads(json.dumps(setup)), frames.unpack(frames.pack([setup])[frames.LENGTH :])[0]):
        there = config.replace(config.Settings(), travelled["settings"])
        assert there.secrets == app.settings.secrets
    assert NEW not in repr(setup) + repr(vars(app))
    assert "secrets" not in child_setup(AsyncQ("redis://127.0.0.1:1/0"), None, "x")["settings"]


# -- rotation --


async def test_secrets_change_while_workers_run_and_no_job_is_lost(make_app, server_url, namespace, tmp_path):
    """Each step is made first by the workers and then by the client, as the how-to says."""
    steps = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]
    values: list[int] = []
    for number, (before, after) in enumerate(itertools.pairwise(steps)):
        producer, consumer = make_app(secrets=before), make_app(secrets=after)
        tasks, later = register(producer), register(consumer)
        with (
            worker_process(server_url, namespace, secrets=",".join(before)) as first,
            worker_process(server_url, namespace, secrets=",".join(before)),
        ):
            async with producer, consumer:
                # One worker after the other has the new setting, while both clients send.
                with worker_process(server_url, namespace, secrets=",".join(after)):
                    first.kill()
                    sent = [await tasks.add.delay(number, n) for n in range(20)]
                    sent += [await later.add.delay(number, n) for n in range(20, 40)]
                    waits = [producer.AsyncResult(one.id).get(timeout=30) for one in sent]
                    values += await asyncio.gather(*waits)
                    values += await asyncio.gather(
                        *(consumer.AsyncResult(o.id).get(timeout=30) for o in sent)
                    )
                    assert await consumer.control.dead.list() == []
    assert len(values) == 3 * 2 * 40


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_job_that_was_refused_in_a_rotation_is_sent_again(make_app, neighbour):
    def with_add(*secrets: str) -> tuple[AsyncQ, Any]:
        app = make_app(secrets=secrets)

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        return app, add

    old, _ = with_add(OLD)
    new, add = with_add(NEW, OLD)
    async with new, old:
        async with Worker(old):
            result = await add.delay(1, 2)
            with pytest.raises(DecodeError):
                await result.get(timeout=20)
        (letter,) = await new.control.dead.list()
        assert (letter.reason, letter.task) == ("not signed", "add")
        async with Worker(new):
            again = await new.control.dead.replay(letter.id)
            assert await again.get(timeout=20) == 3


async def test_a_worker_without_secrets_keeps_a_signed_job_as_a_dead_letter(make_app, caplog):
    def with_add(**settings: Any) -> tuple[AsyncQ, Any]:
        app = make_app(**settings)

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        return app, add

    signed, add = with_add(secrets=[NEW])
    unsigned, _ = with_add()
    async with signed, unsigned:
        async with Worker(unsigned):
            result = await add.delay(1, 2)
            with pytest.raises(DecodeError):
                await result.get(timeout=20)
        (letter,) = await signed.control.dead.list()
        assert letter.reason == "signed, and the worker has no secrets"
        async with Worker(signed):
            again = await signed.control.dead.replay(letter.id)
            assert await again.get(timeout=20) == 3
            with pytest.raises(DecodeError, match="no secrets"):
                await unsigned.AsyncResult(again.id).get(timeout=20)


async def test_workers_with_and_without_secrets_each_say_so(make_app, server_url, namespace, caplog):
    caplog.set_level(logging.INFO)
    with worker_process(server_url, namespace, secrets=NEW):
        async with Worker(make_app()):
            await until(lambda: "and this worker has no secrets" in caplog.text, "a warning")
    caplog.clear()
    with worker_process(server_url, namespace):
        async with Worker(make_app(secrets=[NEW], encrypt=True)):
            await until(lambda: "has no secrets, and this worker signs" in caplog.text, "a warning")
        assert "are signed and encrypted with secret" in caplog.text
    caplog.clear()
    with worker_process(server_url, namespace, secrets=OLD):
        async with Worker(make_app(secrets=[NEW, OLD])):
            await until(lambda: "does not accept the secret" in caplog.text, "a warning")
    assert NEW not in caplog.text
    assert OLD not in caplog.text


# -- age --


@pytest.mark.one_server("a neighbour writes to one server")
async def test_a_job_that_is_older_than_max_age_is_refused(make_app, neighbour):
    app = make_app(secrets=[NEW], max_age=60)

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    async with app:
        await add.options(task_id="job").delay(1, 2)
        (entry,) = neighbour.messages()
        async with Worker(app):
            assert await app.AsyncResult("job").get(timeout=20) == 3
        from asyncq.system import clock

        neighbour.add("job", entry[b"m"])
        real = clock.now
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now", lambda: real() + 61)
            async with Worker(app):
                (letter,) = await until(app.control.dead.list, "the job to be refused")
        assert letter.reason == "too old"


# -- what can be seen at the server --


@pytest.mark.one_server("a neighbour writes to one server")
async def test_nothing_that_users_send_can_be_read_at_the_server_when_it_is_encrypted(make_app, neighbour):
    app = make_app(secrets=[NEW], encrypt=True, result_extended=True)
    gate = asyncio.Event()

    @app.task(name="echo")
    async def echo(text: str) -> str:
        return text

    @app.task(name="lamp")
    async def broken(text: str) -> None:
        raise ValueError(text)

    @app.task(name="items")
    async def items(text: str) -> Any:
        yield text
        await asyncq.current().update_state("HALF", {"note": text})
        await gate.wait()

    word = "topsecret"
    async with app:
        await app.schedules.add("late", echo.s(word), every=3600)
        await echo.options(countdown=3600, headers={"tenant": word}).delay(word)
        waiting = await chain(echo.options(queue="nobody").s(word), echo.s()).delay()
        async with Worker(app):
            assert await echo.options(headers={"tenant": word}).call(word) == word
            with pytest.raises(ValueError, match=word):
                await broken.call(word)
            with pytest.raises(ValueError, match=word):
                await broken.options(retry=Retry(max_retries=1, backoff=0.01)).call(word)
            failing = await broken.options(retry=Retry(max_retries=1, backoff=3600)).delay(word)
            await until_state(failing, "RETRY")
            running = await items.delay(word)
            await until_state(running, "HALF")
            app.sessions.current().broker.history.flush()
            await app.control.ping()
            for found in (neighbour.everything(),):
                assert b"echo" in found, "names of tasks can be read"
                assert word.encode() not in found
            gate.set()
            await running.get(timeout=20)
        assert waiting.id.encode() in neighbour.everything()


async def test_without_the_library_an_app_that_encrypts_says_what_to_install(make_app, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    app = make_app(secrets=[NEW], encrypt=True)
    with pytest.raises(BrokerNotConfigured, match=r"pip install 'asyncq\[crypto\]'"):
        await app.control.queues()
