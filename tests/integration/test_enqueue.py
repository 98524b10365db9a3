"""Sending jobs: the ways to do it, the options, and what is refused before anything is written."""

from __future__ import annotations

import asyncio
import functools
import re
from datetime import UTC, datetime, timedelta

import pytest
from helpers.stopwatch import Stopwatch
from helpers.waiting import until_state

import asyncq
from asyncq import PayloadTooLarge, ResultNotFound, ResultTimeout, SerializationError, TaskExpired, Worker
from asyncq.broker.enqueue import LONE

pytestmark = pytest.mark.anyio


@pytest.fixture
def add(app):
    @app.task
    async def add(x: int, y: int = 1) -> int:
        return x + y

    return add


@pytest.fixture
def inspect_me(app):
    @app.task
    async def inspect_me() -> dict:
        job = asyncq.current()
        return {
            "id": job.id,
            "name": job.name,
            "queue": job.queue,
            "attempt": job.attempt,
            "headers": dict(job.headers),
            "parent_id": job.parent_id,
            "root_id": job.root_id,
            "worker": job.worker,
        }

    return inspect_me


async def _called(send, args, kwargs):
    """Makes the call, and awaits its result if that can be awaited."""
    return await send(*args, **kwargs)


def posted_commands(commands, monkeypatch) -> list[tuple[object, ...]]:
    """Returns a list to which each command of a session is added when it is posted."""
    posted: list[tuple[object, ...]] = []
    post = commands.post

    def post_and_note(shard, command, *arguments, **options) -> None:
        posted.append(command)
        post(shard, command, *arguments, **options)

    monkeypatch.setattr(commands, "post", post_and_note)
    return posted


async def keys_of(app, raw) -> list[bytes]:
    return [key async for key in raw.scan_iter(match=f"{app.sessions.shards[0].tag}*") if b":c:" not in key]


@pytest.mark.parametrize("wrong", [5, "ab", b"ab", {"x": 1}])
async def test_a_single_argument_that_is_no_tuple_is_refused_with_a_hint(app, add, wrong):
    ways = (
        lambda: add.map([wrong]),
        lambda: add.starmap([wrong]),
        lambda: add.chunks([wrong], 1),
    )
    for way in ways:
        with pytest.raises(TypeError, match=r"go in a tuple: write \(.*,\) for ") as caught:
            await way()
        assert repr(wrong) in str(caught.value)
    for way in (add.apply_async, add.s().apply_async):
        with pytest.raises(TypeError, match=r"go in a tuple, .* write .*apply_async\(\(.*,\)\)$"):
            await way(wrong)
    with pytest.raises(TypeError, match="tuple"):
        add.apply(wrong)


async def test_arguments_that_are_not_in_a_tuple_are_refused_with_a_hint(app, add):
    step = add.s()
    cases = {
        "write send('add', (1, 2))": lambda: app.send("add", 1, 2),
        "write send('add', (1,))": lambda: app.send("add", 1),
        "write send('add', (1,), {'y': 2})": lambda: app.send("add", 1, {"y": 2}),
        "write send('add', ([1], [2]))": lambda: app.send("add", [1], [2]),
        "write send('add', ('ab', 'c'))": lambda: app.send("add", "ab", "c"),
        f"write {add.name}.apply_async((1, 2))": lambda: add.apply_async(1, 2),
        "write apply_async((1, 2))": lambda: step.apply_async(1, 2),
        "write apply_async((3, 4))": lambda: (step | step).apply_async(3, 4),
    }
    for message, way in cases.items():
        with pytest.raises(TypeError, match=re.escape(message) + "$"):
            await way()
    for method in (add.apply, step.apply, step.clone, (step | step).clone):
        with pytest.raises(TypeError, match=r"\(\(1, 2\)\)$"):
            method(1, 2)


async def test_every_way_of_enqueueing_a_call_gives_the_value(app, add):
    async with Worker(app):
        assert await (await add.delay(1, 2)) == 3
        assert await add.call(1, y=2) == 3
        assert await (await add.apply_async((1, 2))).get(timeout=30) == 3
        assert await (await add.apply_async(kwargs={"x": 1})).get(timeout=30) == 2
        assert await (await add.apply_async(None, {"x": 1})).get(timeout=30) == 2
        assert await (await app.send(add.name, (1, 2))).get(timeout=30) == 3
        assert await (await add.map([(1, 2), (3, 4)])).get(timeout=30) == [3, 7]
        assert await (await app.submit([add.s(1, 2), add.s(5)])).get(timeout=30) == [3, 6]
    assert await add(1, 2) == 3, "a call without a queue stays what it was"


async def test_a_job_waits_for_a_worker_that_starts_later(app, add):
    result = await add.delay(20, 22)
    assert (result.state, await result.refresh()) == ("PENDING", "PENDING")
    async with Worker(app):
        assert await result.get(timeout=30) == 42


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1}), ((1,), {"x": 1}), ((1, 2), {"y": 3})]
)
@pytest.mark.one_shard
async def test_invalid_arguments_raise_a_type_error_at_the_call_and_nothing_is_written(
    app, add, raw, args, kwargs
):
    for send in (add.delay, add.call, add.si):
        with pytest.raises(TypeError, match="add"):
            await _called(send, args, kwargs)
    with pytest.raises(TypeError):
        await add.apply_async(args, kwargs)
    assert await keys_of(app, raw) == []


@pytest.mark.one_shard
async def test_a_batch_with_one_invalid_call_enqueues_nothing(app, add, raw):
    with pytest.raises(TypeError):
        await add.map([(1, 2), (1, 2, 3)])
    with pytest.raises(SerializationError):
        await add.map([(1, 2), (1, object())])
    assert await keys_of(app, raw) == []


@pytest.mark.one_shard
async def test_a_value_that_cannot_be_encoded_is_named_and_nothing_is_written(app, add, raw):
    with pytest.raises(SerializationError, match=r"x.*\[1\]|\[1\]") as caught:
        await add.delay([1, object()])
    assert isinstance(caught.value, TypeError)
    with pytest.raises(SerializationError, match="headers"):
        await add.options(headers={"at": object()}).delay(1)
    assert await keys_of(app, raw) == []


@pytest.mark.one_shard
async def test_arguments_above_the_limit_are_refused_before_anything_is_written(make_app, raw):
    async with make_app(max_payload=1000) as app:

        @app.task
        async def echo(data: bytes) -> int:
            return len(data)

        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await echo.delay(b"x" * 1001)
        assert await keys_of(app, raw) == []
        async with Worker(app):
            assert await echo.call(b"x" * 700) == 700


@pytest.mark.one_shard
async def test_headers_count_towards_the_size_limit(make_app, raw):
    async with make_app(max_payload=1000) as app:

        @app.task
        async def nothing() -> None: ...

        with pytest.raises(PayloadTooLarge):
            await nothing.options(headers={"x": "y" * 2000}).delay()
        assert await keys_of(app, raw) == []


async def test_options_of_a_call_apply_to_its_job(app, inspect_me):
    task = inspect_me.options(
        queue="urgent", task_id="my:own.id_1-2", headers={"trace": "abc", "n": [1, None]}
    )
    async with Worker(app, queues=["urgent"], name="me"):
        result = await task.delay()
        seen = await result.get(timeout=30)
    assert seen == {
        "id": "my:own.id_1-2",
        "name": inspect_me.name,
        "queue": "urgent",
        "attempt": 1,
        "headers": {"trace": "abc", "n": [1, None]},
        "parent_id": None,
        "root_id": "my:own.id_1-2",
        "worker": "me",
    }
    assert (result.id, result.queue, result.worker) == ("my:own.id_1-2", "urgent", "me")


async def test_options_do_not_change_the_task_and_can_be_combined(app, inspect_me):
    urgent = inspect_me.options(queue="urgent")
    assert urgent.options(headers={"a": 1}).builder.options.queue == "urgent"
    async with Worker(app, queues=["default", "urgent"]):
        assert (await inspect_me.call())["queue"] == "default"
        assert (await urgent.options(queue="default").call())["queue"] == "default"


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "ä", "x" * 201, "a/b", 7, "{a}"])
def test_an_invalid_id_is_refused_at_once(make_app, bad):
    app = make_app()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match="cannot be an id"):
        nothing.options(task_id=bad)


async def test_an_id_of_two_hundred_characters_works(app, add):
    async with Worker(app):
        assert await (await add.options(task_id="A" * 200).delay(1, 2)).get(timeout=30) == 3


@pytest.mark.parametrize("bad", ["", "a b", "q:1", "!", "x" * 101, 5])
def test_an_invalid_queue_name_is_refused_at_once(make_app, bad):
    app = make_app()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match="cannot be a name"):
        nothing.options(queue=bad)


async def test_an_id_in_use_is_refused_and_the_first_job_is_not_disturbed(app):
    @app.task
    async def nap(x: int) -> int:
        await asyncio.sleep(0.1)
        return x

    async with Worker(app):
        first = await nap.options(task_id="mine").delay(1)
        waiting = asyncio.create_task(first.get(timeout=60))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="exists already"):
            await nap.options(task_id="mine").delay(2)
        assert await waiting == 1
        with pytest.raises(ValueError, match="exists already") as caught:
            await nap.options(task_id="mine").delay(3)
        assert caught.value.__traceback__ is not None, "it keeps the refused call's handle alive"
        assert await app.AsyncResult("mine").get(timeout=1) == 1
        assert first.state == "SUCCESS"


async def test_an_ignored_result_is_not_kept_and_getting_it_raises_at_once(app, add):
    ignoring = add.options(ignore_result=True)
    async with Worker(app):
        result = await ignoring.delay(1, 2)
        assert result.ignored
        for handle in (result, app.AsyncResult(result.id)):
            with pytest.raises(ResultNotFound):
                await asyncio.wait_for(handle.get(), 1)
        probe = await add.delay(0, 0)
        await probe.get(timeout=30)
        with pytest.raises(ResultNotFound):
            await asyncio.wait_for(app.AsyncResult(result.id).get(), 1)
        with pytest.raises(ResultNotFound):
            await app.AsyncResult(result.id).get(timeout=0)
        assert not await app.AsyncResult(result.id).exists()


async def test_another_handle_learns_that_a_result_is_ignored_while_the_job_waits(app, add):
    result = await add.options(ignore_result=True).delay(1, 2)
    other = app.AsyncResult(result.id)
    assert await other.exists()
    with pytest.raises(ResultNotFound):
        await asyncio.wait_for(other.get(), 1)
    with pytest.raises(ResultNotFound):
        await other.get(timeout=0)


@pytest.mark.one_shard
async def test_a_result_is_kept_for_the_requested_time_and_at_least_a_minute(app, add, raw):
    async with Worker(app):
        for asked, expected in ((300, 300), (timedelta(minutes=3), 180), (1, 60), (None, 3600)):
            result = await add.options(result_ttl=asked).delay(1, 2)
            await result.get(timeout=30)
            left = await raw.pttl(app.sessions.shards[0].records + result.id)
            assert expected - 5 < left / 1000 <= expected


async def test_an_expired_job_never_starts_and_its_handle_raises_task_expired(app):
    started = []

    @app.task
    async def note() -> None:
        started.append(1)

    expired = await note.options(expires=0).delay()
    in_time = await note.options(expires=datetime.now(UTC) + timedelta(minutes=1)).delay()
    async with Worker(app):
        await in_time.get(timeout=30)
        with pytest.raises(TaskExpired):
            await expired.get(timeout=30)
    assert started == [1]
    assert expired.state == "REVOKED"


async def test_a_waiter_wakes_when_its_job_expires_though_no_worker_runs(app, add):
    stopwatch = Stopwatch()
    result = await add.options(expires=0.2).delay(1)
    with pytest.raises(TaskExpired):
        await result.get(timeout=30)
    assert 0.15 < stopwatch.took < 1.0
    assert (result.state, await result.ready()) == ("REVOKED", True)


async def test_a_handle_made_from_an_id_wakes_when_the_job_expires(make_app, add):
    result = await add.options(expires=0.2).delay(1)
    async with make_app() as other:
        with pytest.raises(TaskExpired):
            await other.AsyncResult(result.id).get(timeout=30)


async def test_the_options_of_a_task_may_set_an_expiry(app):
    @app.task(expires=0, queue="slow", result_ttl=120, name="short.lived")
    async def short() -> None: ...

    assert app.queues() == ["default", "slow"]
    async with Worker(app):
        with pytest.raises(TaskExpired):
            await (await short.delay()).get(timeout=30)


def test_a_time_without_a_time_zone_is_refused(make_app):
    app = make_app()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match="time zone"):
        nothing.options(expires=datetime(2030, 1, 1))  # noqa: DTZ001  this is what is refused


@pytest.mark.parametrize(
    "options", [{"expires": -1}, {"result_ttl": -1}, {"wait": -0.1}, {"result_ttl": float("inf")}]
)
def test_invalid_durations_are_refused(make_app, options):
    app = make_app()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match=f"^{next(iter(options))}=.* is not a duration"):
        nothing.options(**options)


def test_an_unknown_option_is_a_type_error(make_app):
    app = make_app()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(TypeError, match="countdwon"):
        nothing.options(countdwon=3)


async def test_a_call_with_a_timeout_gives_up_and_the_job_goes_on(app):
    done = asyncio.Event()

    @app.task
    async def slow() -> None:
        await asyncio.sleep(0.2)
        done.set()

    async with Worker(app):
        with pytest.raises(ResultTimeout):
            await slow.options(wait=0.05).call()
        await asyncio.wait_for(done.wait(), 5)


async def test_a_batch_of_thousands_of_jobs_arrives_in_order(app, add):
    async with Worker(app):
        results = await add.map([(i, i) for i in range(1700)])
        assert len(results) == 1700
        assert await results.get(timeout=30) == [2 * i for i in range(1700)]


async def test_concurrent_calls_are_sent_together(app, add, raw):
    async with Worker(app):
        await add.call(0, 0)
        before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert await asyncio.gather(*(add.call(i, 0) for i in range(200))) == list(range(200))
        calls = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
    assert calls < 60, f"{calls} script calls for 200 jobs"


@pytest.mark.one_shard
async def test_a_caller_who_enqueues_one_job_after_the_other_waits_for_no_turn_of_the_loop(
    app, add, monkeypatch
):
    posted = posted_commands(app.sessions.current().broker.commands, monkeypatch)
    loop = asyncio.get_running_loop()

    async def posts_of(calls: int) -> tuple[int, int]:
        """Makes calls in one turn of the loop. Returns how many commands were posted in that turn, and how
        many in all.
        """
        posted.clear()
        in_this_turn: list[int] = []
        tasks = [loop.create_task(add.delay(number)) for number in range(calls)]
        # Behind the first steps of these tasks, and before what these steps leave for the end of the turn.
        loop.call_soon(lambda: in_this_turn.append(len(posted)))
        await asyncio.gather(*tasks)
        return in_this_turn[0], len(posted)

    for _ in range(2):
        assert [await posts_of(1) for _ in range(LONE)] == [(0, 1)] * LONE, "a call may have company"
        assert [await posts_of(1) for _ in range(LONE)] == [(1, 1)] * LONE
        assert await posts_of(50) == (2, 3), "one at once, 32 together, and the rest at the end of the turn"
        assert await posts_of(3) == (0, 1), "behind a batch, calls are gathered"


@pytest.mark.one_shard
async def test_calls_without_a_connection_are_sent_together_when_there_is_one(app, add, monkeypatch):
    for _ in range(LONE):
        await add.delay(0)
    commands = app.sessions.current().broker.commands
    posted = posted_commands(commands, monkeypatch)
    commands.reconnect()
    assert len(await asyncio.gather(*(add.delay(number) for number in range(20)))) == 20
    assert len(posted) == 2, "the call that seemed to be alone, and the others in one batch"


async def test_children_know_their_parents_and_parents_know_their_children(app, inspect_me):
    @app.task
    async def parent() -> list:
        return [(await inspect_me.delay()).id for _ in range(2)]

    async with Worker(app):
        result = await parent.delay()
        ids = await result.get(timeout=30)
        for child in result.children:
            seen = await child.get(timeout=30)
            assert (seen["parent_id"], seen["root_id"]) == (result.id, result.id)
    assert [child.id for child in result.children] == ids


async def test_two_functions_cannot_have_the_same_task_name(app):
    @app.task(name="one")
    async def first() -> None: ...

    with pytest.raises(ValueError, match="registered already"):

        @app.task(name="one")
        async def second() -> None: ...


def test_only_functions_that_can_be_run_become_tasks(make_app):
    app = make_app()
    for bad in (5, int, (i for i in ()), functools.partial(print)):
        with pytest.raises(TypeError, match="decorates a function"):
            app.task(bad)


async def test_send_accepts_the_name_of_a_task(app, add):
    with pytest.raises(TypeError, match="takes the name of a task"):
        await app.send(add, (1, 2))


def test_a_name_and_headers_of_the_wrong_type_are_refused_at_the_call(make_app):
    app = make_app()

    async def nothing() -> None: ...

    with pytest.raises(TypeError, match="name=3"):
        app.task(name=3)(nothing)
    with pytest.raises(TypeError, match="headers=3"):
        app.task(nothing).options(headers=3)


def test_current_outside_a_task_raises():
    with pytest.raises(LookupError, match="outside a task"):
        asyncq.current()


async def test_a_cancelled_delay_does_not_disturb_later_calls_of_the_app(app, add):
    async with Worker(app):
        for _ in range(20):
            sending = asyncio.create_task(add.delay(1, 1))
            await asyncio.sleep(0)
            sending.cancel()
        assert await add.call(2, 2) == 4


async def test_a_refresh_sees_that_a_job_has_succeeded(app, add):
    result = await add.delay(1, 2)
    async with Worker(app):
        await until_state(result, "SUCCESS")
