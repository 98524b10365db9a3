"""Which session serves a call: no call needs a loop that its user may stop, and blocks do not disturb other
calls.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
from helpers import servers
from helpers.waiting import until, until_sync
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

from asyncq import AsyncQ, ResultNotFound, ResultTimeout, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
THREADS = 8


@pytest.fixture
def worker(server_url, namespace):
    with worker_process(server_url, namespace) as worker:
        yield worker


@pytest.fixture
def jobs(make_app):
    app = make_app()
    jobs = register(app)
    jobs.app = app
    return jobs


def _in_threads(call: Callable[[], object], threads: int = THREADS) -> list[object]:
    """Makes a call in several threads at once, and returns all results."""
    values: list[object] = []

    def body() -> None:
        try:
            values.append(call())
        except BaseException as error:
            values.append(error)

    running = [threading.Thread(target=body, daemon=True) for _ in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join(60)
        assert not each.is_alive(), "a thread hangs"
    return values


# -- outside of blocks --


def test_a_call_does_not_depend_on_a_loop_that_is_idle(jobs):
    loop = asyncio.new_event_loop()
    result = loop.run_until_complete(jobs.add.delay(1, 2))
    with pytest.raises(ResultTimeout):
        result.get_sync(timeout=0.2)
    loop.close()


def test_blocking_calls_work_beside_a_block_whose_loop_is_idle(jobs, worker):
    """The loop idles, as in a test with a session-scoped fixture, or in a notebook between two cells."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(jobs.app.__aenter__())
    result = loop.run_until_complete(jobs.add.delay(1, 2))
    assert result.get_sync(timeout=30) == 3
    assert jobs.add.call_sync(2, 2) == 4
    loop.run_until_complete(jobs.app.__aexit__(None, None, None))
    loop.close()


def test_threads_with_loops_of_their_own_share_the_background_session(jobs, worker, connections):
    async def view() -> int:
        return await jobs.add.options(wait=30).call(1, 2)

    values = _in_threads(lambda: [asyncio.run(view()) for _ in range(ROUNDS)])
    assert values == [[3] * ROUNDS] * THREADS
    assert connections() <= 2


def test_a_block_in_each_thread_has_its_own_connections_and_closes_them(jobs, worker, connections):
    most = []

    async def view() -> int:
        async with jobs.app:
            most.append(connections())
            return await jobs.add.options(wait=30).call(1, 2)

    values = _in_threads(lambda: [asyncio.run(view()) for _ in range(ROUNDS)])
    assert values == [[3] * ROUNDS] * THREADS
    assert max(most) <= 3 * THREADS
    until_sync(lambda: connections() == 0, "the connections to be closed", 1.0)


def test_a_block_leaves_no_connection_though_its_loop_is_never_closed(jobs, worker, connections):
    async def view() -> int:
        async with jobs.app:
            return await jobs.add.options(wait=30).call(1, 2)

    loops = [asyncio.new_event_loop() for _ in range(3)]
    assert [loop.run_until_complete(view()) for loop in loops] == [3, 3, 3]
    until_sync(lambda: connections() == 0, "the connections to be closed", 1.0)
    for loop in loops:
        loop.close()


@pytest.fixture
def connections(server_url):
    """Returns how many connections asyncq has from this process to the server."""

    mine = f"-{os.getpid()}"
    with servers.client(server_url) as client:
        before = {each["id"] for each in client.client_list()}

        def count() -> int:
            now = client.client_list()
            return sum(
                each["id"] not in before and each["name"].startswith("asyncq") and mine in each["name"]
                for each in now
            )

        yield count


def test_the_first_of_two_blocks_may_end_first(jobs, worker, tmp_path):
    gate = tmp_path / "gate"
    log = str(tmp_path / "log")
    started = threading.Event()

    async def long() -> str:
        async with jobs.app:
            result = await jobs.wait_for_file.delay(log, "long", str(gate))
            started.set()
            return await result.get(timeout=30)

    async def short() -> int:
        async with jobs.app:
            return await jobs.add.options(wait=30).call(1, 2)

    values = []
    thread = threading.Thread(target=lambda: values.append(asyncio.run(long())))
    thread.start()
    assert started.wait(30)
    assert asyncio.run(short()) == 3
    gate.touch()
    thread.join(60)
    assert values[0].startswith("long")


@pytest.mark.anyio
async def test_nested_blocks_of_one_app_are_counted(jobs, worker):
    async with jobs.app:
        async with jobs.app:
            result = await jobs.add.delay(1, 2)
        assert await result.get(timeout=30) == 3
        assert jobs.app.sessions.is_on_app_loop()
    assert not jobs.app.sessions.is_on_app_loop()


@pytest.mark.anyio
async def test_closing_the_app_closes_the_background_session_and_no_block(jobs, worker):
    assert await jobs.add.options(wait=30).call(1, 2) == 3
    async with jobs.app:
        waiting = asyncio.create_task(jobs.add.options(countdown=0.5, wait=30).call(1, 2))
        await asyncio.sleep(0)
        await jobs.app.close()
        assert await waiting == 3
    await jobs.app.close()


@pytest.mark.anyio
async def test_open_and_close_work_like_a_block(jobs, worker):
    await jobs.app.open()
    await jobs.app.open()
    assert await jobs.add.options(wait=30).call(1, 2) == 3
    await jobs.app.close()
    assert jobs.app.sessions.is_on_app_loop()
    await jobs.app.close()
    assert not jobs.app.sessions.is_any_open


@pytest.mark.anyio
async def test_jobs_of_an_app_with_a_private_server_outlive_each_block():
    app = AsyncQ("memory://")

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app:
        result = await add.delay(1, 2)
    async with app, Worker(app):
        assert await result.get(timeout=30) == 3
    other = AsyncQ("memory://")
    async with other:
        assert not await other.AsyncResult(result.id).exists(), "the server is the app's own"


# -- handles --


def test_a_handle_made_in_one_session_can_be_awaited_in_another(jobs, worker):
    async def send():
        async with jobs.app:
            return await jobs.add.options(countdown=0.2).delay(1, 2)

    async def receive(result) -> int:
        async with jobs.app:
            return await result.get(timeout=30)

    result = asyncio.run(send())
    assert result.state == "SCHEDULED"
    assert _in_threads(lambda: asyncio.run(receive(result)), 3) == [3, 3, 3]
    assert (result.state, result.result) == ("SUCCESS", 3)


@pytest.mark.anyio
async def test_a_handle_shows_the_outcome_that_any_of_its_sessions_receives(jobs, worker):
    async with jobs.app:
        result = await jobs.add.options(countdown=0.5).delay(1, 2)

        async def give_up() -> None:
            async with jobs.app:
                with pytest.raises(ResultTimeout):
                    await result.get(timeout=0.01)

        await asyncio.to_thread(lambda: asyncio.run(give_up()))
        # The session in which it was awaited is closed. The session that made it still waits.
        await until(lambda: result.state == "SUCCESS", "the outcome to be pushed to the other session", 4.0)
        assert result.result == 3


@pytest.mark.anyio
async def test_a_forgotten_result_is_unknown_in_all_sessions(jobs, worker):
    async with jobs.app:
        result = await jobs.add.delay(1, 2)
        assert await result.get(timeout=30) == 3
        await asyncio.to_thread(result.forget_sync)
        assert result.state == "UNKNOWN"
        with pytest.raises(ResultNotFound):
            await result.get(timeout=30)


# -- contexts --

user: ContextVar[object] = ContextVar("user", default="nobody")


@pytest.mark.anyio
@pytest.mark.parametrize("in_block", [True, False])
async def test_a_callback_runs_in_the_context_of_the_caller_that_registered_it(jobs, worker, in_block):
    seen = {}

    async def request(name: str) -> None:
        user.set(name)
        result = await jobs.add.delay(1, 2)
        result.then(lambda _: seen.update({name: user.get()}))

    async def all_of_them() -> None:
        for name in ("alice", "bob", "carol"):
            await asyncio.create_task(request(name))
        await until(lambda: len(seen) == 3, "the callbacks")

    if in_block:
        async with jobs.app:
            await all_of_them()
    else:
        await all_of_them()
    assert seen == {"alice": "alice", "bob": "bob", "carol": "carol"}


@pytest.mark.anyio
@pytest.mark.parametrize("in_block", [True, False])
async def test_a_session_keeps_nothing_of_the_context_that_opened_it(make_app, worker, in_block):
    # asyncio keeps the context of a timer until its time has come, also if it was cancelled: here, a second.
    app = make_app(operation_timeout=1)
    add = register(app).add

    class Request:
        pass

    async def first(request: Request) -> None:
        user.set(request)
        if in_block:
            await app.open()
        assert await (await add.delay(1, 2)) == 3

    request = Request()
    kept = weakref.ref(request)
    await asyncio.create_task(first(request))
    del request

    async def is_free() -> bool:
        gc.collect()
        return kept() is None

    try:
        await until(is_free, "the context of the first caller to be released")
    finally:
        await app.close()


# -- objects that nobody holds --

KEPT = """
import asyncio, gc, sys
from asyncq import AsyncQ, Worker, wait
app = AsyncQ(sys.argv[1], namespace=sys.argv[2])

@app.task
async def nap(s: float) -> float:
    await asyncio.sleep(s)
    return s

@app.task
async def items(n: int):
    for i in range(n):
        await asyncio.sleep(.1)
        yield i

ended = []

async def follow(name, make):
    await make()
    ended.append(name)

async def events(h):
    async for event in h.events():
        pass

async def stream(h):
    return [x async for x in h.stream()]

def start(name, make):
    asyncio.create_task(follow(name, make))

async def launch():
    handles = [await nap.delay(.4) for _ in range(5)]
    start("get", handles[0].get)
    start("get timeout", lambda h=handles[1]: h.get(timeout=20))
    start("events", lambda h=handles[2]: events(h))
    start("wait", lambda h=handles[3]: wait([h]))
    handles[4].then(lambda r: ended.append("then"))
    h = await items.delay(3)
    start("stream", lambda: stream(h))
    start("call", lambda: nap.call(.4))
    results = await nap.map([(.4,), (.3,)])
    start("set", results.get)

async def main():
    if sys.argv[3] == "block":
        await app.open()
    async with AsyncQ(sys.argv[1], namespace=sys.argv[2]) as there:
        there.tasks.update(app.tasks)
        async with Worker(there):
            await launch()
            for _ in range(300):
                gc.collect()
                await asyncio.sleep(.1)
                if len(ended) == 8:
                    break
    await app.close()
    print(sorted(ended))

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["block", "no block"])
def test_an_unreferenced_asyncio_task_is_not_garbage_collected_while_it_waits(server_url, namespace, where):
    words = [sys.executable, "-c", KEPT, server_url, namespace, where]
    done = subprocess.run(words, capture_output=True, text=True, timeout=55, check=False)
    expected = ["call", "events", "get", "get timeout", "set", "stream", "then", "wait"]
    assert done.stdout == f"{expected}\n", done.stderr


# -- workers --


@pytest.mark.parametrize("first", ["here", "there"])
def test_a_worker_runs_in_a_thread_beside_blocking_code(make_app, first):
    """A program as Streamlit, Flask's development server or a notebook runs it."""
    app = make_app()

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def add_in_thread(x: int, y: int) -> int:
        return x + y

    @app.task
    def from_inside(x: int) -> str:
        return add.delay_sync(x, x).id

    if first == "here":
        app.open_sync()
    workers: list[tuple[asyncio.AbstractEventLoop, Worker]] = []

    async def work() -> None:
        worker = Worker(app, grace=1)
        workers.append((asyncio.get_running_loop(), worker))
        await worker.run()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert add.options(wait=30).call_sync(1, 2) == 3
    assert add_in_thread.options(wait=30).call_sync(1, 2) == 3
    assert asyncio.run(add.options(wait=30).call(1, 2)) == 3
    child = app.AsyncResult(from_inside.options(wait=30).call_sync(4))
    assert child.get_sync(timeout=30) == 8
    loop, worker = workers[0]
    loop.call_soon_threadsafe(worker.stop)
    thread.join(30)
    assert not thread.is_alive()
    assert add.delay_sync(1, 2).refresh_sync() == "PENDING"
    app.close_sync()


# -- an enqueue that failed --


@pytest.mark.anyio
async def test_a_job_id_whose_enqueue_was_refused_is_queried(app, add):
    async with Worker(app):
        first = await add.options(task_id="mine").delay(1, 2)
        assert await first.get(timeout=30) == 3
        with pytest.raises(ValueError, match="mine"):
            await app.submit([add.options(task_id="other").s(3, 4) | add.options(task_id="mine").s(1)])
        assert await app.AsyncResult("mine").get(timeout=30) == 3
        with pytest.raises(ResultNotFound):
            await app.AsyncResult("other").get(timeout=30)


@pytest.mark.anyio
async def test_a_job_id_whose_enqueue_was_given_up_is_queried(app, add, raw):
    await raw.execute_command("CLIENT", "PAUSE", "300", "ALL")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await add.options(task_id="late").delay(1, 2)
    start = time.monotonic()
    async with Worker(app):
        try:
            value = await app.AsyncResult("late").get(timeout=30)
        except ResultNotFound:
            value = None
    assert value in {3, None}
    assert time.monotonic() - start < 4, "it was found by a query, and not by the poll"
