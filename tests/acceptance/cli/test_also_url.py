"""`asyncq worker --also-url`, and the move of a running app from one server to another one, as
`docs/howto/move.md` describes it: real processes, two real servers, load all the time.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import re
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
from helpers.own_server import OwnServer, free_port
from helpers.server_cluster import server_cluster
from helpers.waiting import until

from asyncq import AsyncQ, ResultNotFound, chain
from asyncq.cli.also_server import AlsoServer, share
from asyncq.cli.exits import CliError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncq import AsyncResult, Outcome

pytestmark = pytest.mark.anyio

TASKS = """
import asyncio, os
import asyncq
from asyncq import AsyncQ

app = AsyncQ(lease=2)
journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(*words):
    os.write(journal, (" ".join(map(str, words)) + "\\n").encode())

@app.task(name="work")
async def work(number: int, seconds: float = 0.01) -> int:
    note("begin", number, os.getpid())
    await asyncio.sleep(seconds)
    note("end", number, os.getpid())
    return number

@app.task(name="parent")
async def parent(number: int) -> str:
    note("begin", number, os.getpid())  # if it is killed and runs again, there are two jobs of this number
    return (await work.delay(number)).id

@app.task(name="last")
async def last(value: int) -> int:
    note("end", f"last-{value}", os.getpid())
    return value

@app.task(name="tick", every=1)
async def tick() -> None:
    note("tick", asyncq.current().headers["scheduled_for"], os.getpid())
"""


class Place(NamedTuple):
    """A namespace at a server."""

    url: str
    namespace: str
    shards: int

    @property
    def environ(self) -> dict[str, str]:
        return {
            "ASYNCQ_URL": self.url,
            "ASYNCQ_NAMESPACE": self.namespace,
            "ASYNCQ_SHARDS": str(self.shards),
        }

    @property
    def also(self) -> str:
        return f"{self.url}#shards={self.shards},namespace={self.namespace}"

    def app(self) -> AsyncQ:
        return AsyncQ(self.url, namespace=self.namespace, shards=self.shards, lease=2)


@pytest.fixture
def servers(tmp_path) -> Iterator[list[OwnServer]]:
    both = [OwnServer(tmp_path / name).start() for name in ("old", "new")]
    yield both
    for server in both:
        with suppress(ProcessLookupError):
            server.process.kill()
        server.process.wait(30)


@pytest.fixture
def places(request, servers, namespace, tmp_path) -> Iterator[tuple[Place, Place]]:
    """The old place and the new one, which is another server or a Cluster."""
    old, new = servers
    before = Place(old.url, namespace, 1)
    if getattr(request, "param", "server") == "server":
        yield before, Place(new.url, f"{namespace}n", 4)
        return
    with server_cluster(tmp_path / "cluster", replicas=0, save="3600 1") as cluster:
        yield before, Place(cluster.url, f"{namespace}n", 8)


def pids(worker) -> dict[str, int]:
    """Returns the worker processes that a banner lists, by name."""
    return {name: int(pid) for name, pid in re.findall(r"([\w.-]+) \(pid (\d+)\)", worker.banner)}


class Load:
    """Makes jobs all the time, of several kinds, and waits for the end of each.

    Args:
        app: the app through which it makes them; another one may take its place at any time.

    Attributes:
        made: how many jobs it has made.
    """

    def __init__(self, app: AsyncQ) -> None:
        self.app = app
        self.made = 0
        self._waits: list[asyncio.Task[Outcome[object]]] = []
        self._goes_on = True
        self._task = asyncio.create_task(self._make_all())

    async def _make_all(self) -> None:
        while self._goes_on:
            handle = await self._made(self.made)
            self.made += 1
            self._waits.append(asyncio.create_task(handle.outcome(timeout=90)))
            await asyncio.sleep(0.01)

    async def _made(self, number: int) -> AsyncResult[object]:
        work = self.app.tasks["work"]
        match number % 10:
            case 3:
                return await work.options(countdown=1.5).delay(number)
            case 5:
                return await self.app.tasks["parent"].delay(number)
            case 7:
                return await chain(work.s(number), self.app.tasks["last"].s()).delay()
            case 9:
                return await work.options(queue="mail").delay(number, 0.2)
        return await work.delay(number)

    async def until_made(self, more: int) -> None:
        """Waits until it has made so many more."""
        enough = self.made + more
        await until(lambda: self.made >= enough or self._task.done(), f"{more} more jobs to be made")

    async def end(self) -> list[Outcome[object]]:
        """Makes no more, and returns how the jobs have ended."""
        self._goes_on = False
        await self._task
        return await asyncio.gather(*self._waits)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[AsyncQ]:
    """An app of this process at a place, with the names of the tasks."""
    app = place.app()

    async def work(number: int, seconds: float = 0.01) -> int: ...

    async def parent(number: int) -> str: ...

    async def last(value: int) -> int: ...

    for task in (work, parent, last):
        app.task(name=task.__name__)(task)
    async with app:
        yield app


class Journal:
    """What the tasks have noted."""

    def __init__(self, folder: Path) -> None:
        lines = [line.split() for line in (folder / "journal").read_text().splitlines()]
        self.started_by: dict[str, set[int]] = collections.defaultdict(set)
        self.ends: collections.Counter[str] = collections.Counter()
        self.ticks: collections.Counter[str] = collections.Counter()
        self.pids_of_ticks: set[int] = set()
        for kind, name, pid in lines:
            if kind == "begin":
                self.started_by[name].add(int(pid))
            elif kind == "end":
                self.ends[name] += 1
            else:
                self.ticks[name] += 1
                self.pids_of_ticks.add(int(pid))


def is_empty(project, place: Place) -> bool:
    """Returns whether a place has no work left, as the page tells a user to find out."""
    shown = json.loads(project.run("inspect", "--json", **place.environ).out)
    in_queues = [queue["waiting"] + queue["running"] for queue in shown["queues"]]
    return not sum([*in_queues, shown["stats"]["delayed"], shown["stats"]["waiting_for_parents"]])


@pytest.mark.parametrize("places", ["server", "cluster"], indirect=True)
async def test_a_running_app_moves_to_another_server_and_no_job_is_lost_or_run_twice(
    project, places, servers, stop
):
    old, new = places
    project.write("shop.py", TASKS)
    queues = ("default", "mail", "--name", "w")
    project.environ |= old.environ
    before = await asyncio.to_thread(project.worker, *queues)
    async with opened(old) as old_app, opened(new) as new_app:
        load = Load(old_app)
        await load.until_made(50)

        # 1. The schedules stop at the old server, and workers serve both.
        assert project.run("schedule", "pause", "tick").code == 0
        project.environ |= new.environ
        both = await asyncio.to_thread(project.worker, *queues, "--also-url", old.also)
        assert set(pids(both)) == {"w-1", "w-also-1"}
        stop(before, signal.SIGTERM)
        await load.until_made(50)

        # A worker of the old server is killed: its jobs run again there.
        killed = pids(both)["w-also-1"]
        os.kill(killed, signal.SIGKILL)
        await load.until_made(50)

        # 2. Producers change to the new server.
        moved_at = load.made
        load.app = new_app
        await load.until_made(100)
        await until(lambda: asyncio.to_thread(is_empty, project, old), "the old server to be empty", 90)

        # 3. Workers serve the new server only, and the old one is switched off.
        after = await asyncio.to_thread(project.worker, *queues)
        assert stop(both, signal.SIGTERM).code == 0
        servers[0].process.terminate()
        await asyncio.to_thread(servers[0].process.wait, 30)
        await load.until_made(50)
        outcomes = await load.end()
    stop(after, signal.SIGTERM)
    assert 150 <= moved_at < load.made - 100
    assert collections.Counter(outcome.state for outcome in outcomes) == {"SUCCESS": load.made}
    found = Journal(project.folder)
    assert not [number for number in range(load.made) if not found.ends[str(number)]], "a job was lost"
    again = {name for name, times in found.ends.items() if times > 1 and not name.startswith("last")}
    assert not {name for name in again if killed not in found.started_by[name]}, "a job ran twice"
    assert not {name: times for name, times in found.ticks.items() if times > 1}, "a tick came twice"
    assert len(found.ticks) >= 2
    assert found.pids_of_ticks <= {before.pid, pids(both)["w-1"], after.pid}


async def test_workers_of_both_servers_have_different_names_and_divide_the_concurrency(project, places, stop):
    old, new = places
    project.write("shop.py", TASKS)
    project.environ |= new.environ
    options = ("-w", "2", "-c", "5", "--name", "w", "--also-url", old.also)
    worker = await asyncio.to_thread(project.worker, *options)
    assert list(pids(worker)) == ["w-1", "w-2", "w-also-1", "w-also-2"]
    assert f"at {old.url}" in next(line for line in worker.banner.splitlines() if line.split()[0] == "also")
    async with old.app() as old_app, new.app() as new_app:
        here, there = await new_app.control.workers(), await old_app.control.workers()
        assert [(info.name, info.concurrency) for info in here] == [("w-1", 3), ("w-2", 3)]
        assert [(info.name, info.concurrency) for info in there] == [("w-also-1", 2), ("w-also-2", 2)]
        assert [schedule.name for schedule in await new_app.schedules.list()] == ["tick"]
        assert await old_app.schedules.list() == [], "else each tick would come twice"
        result = await old_app.send("work", (7,))
        assert await result.get(timeout=30) == 7
        with pytest.raises(ResultNotFound):
            await new_app.AsyncResult(result.id).get(timeout=5)
    assert stop(worker, signal.SIGTERM).code == 0


async def test_the_metrics_of_queues_are_those_of_the_first_server(project, places, stop):
    old, new = places
    project.write("shop.py", TASKS)
    port = free_port()
    async with old.app() as old_app, new.app() as new_app:
        for app, count in ((old_app, 3), (new_app, 1)):
            await app.control.pause("mail")
            for number in range(count):
                await app.send("work", (number,), queue="mail")
        options = ("default", "mail", "--also-url", old.also, "--metrics-port", str(port))
        project.environ |= new.environ
        worker = await asyncio.to_thread(project.worker, *options)

        async def depth() -> str | None:
            async with httpx.AsyncClient() as client:
                page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            found = re.search(r'^asyncq_queue_depth\{queue="mail"\} (\S+)$', page, re.MULTILINE)
            return None if found is None else found[1]

        assert await until(depth, "the queue to be measured") == "1.0"
        await (await old_app.send("work", (9,), queue="default")).get(timeout=30)
        assert await depth() == "1.0"
        for app in (old_app, new_app):
            await app.control.purge("mail")
            await app.control.resume("mail")
    assert stop(worker, signal.SIGTERM).code == 0


def test_a_second_server_that_cannot_be_reached_ends_the_start_with_one_line(project, places):
    _, new = places
    project.write("shop.py", TASKS)
    gone = project.run("worker", "shop", "--also-url", "redis://127.0.0.1:1", **new.environ)
    assert (gone.code, "127.0.0.1:1" in gone.err) == (69, True), gone
    assert "Traceback" not in gone.err
    same, unknown = project.run_each(
        ("--url", new.url, "worker", "shop", "--also-url", new.url),
        ("worker", "shop", "--also-url", f"{new.url}#shard=1"),
    )
    assert (same.code, "that is the server of --url" in same.err) == (2, True), same
    assert (unknown.code, "write URL, or URL#shards=1,namespace=shop" in unknown.err) == (2, True), unknown


def test_a_second_server_is_read_from_its_url():
    assert AlsoServer.of("redis://old:6379/0") == AlsoServer("redis://old:6379/0")
    both = AlsoServer.of("redis://:p%23@old/0#shards=2,namespace=shop")
    assert both == AlsoServer("redis://:p%23@old/0", "shop", 2)
    for text, problem in (("redis://o#shard=2", "'shard=2' is not known"), ("redis://o#shards=0", "too few")):
        with pytest.raises(CliError, match=problem):
            AlsoServer.of(text)


@pytest.mark.parametrize(("total", "parts"), [(100, [50, 50]), (5, [3, 2]), (1, [1, 1])])
def test_each_server_gets_its_part_of_the_concurrency(total, parts):
    assert [share(total, server, 2) for server in (0, 1)] == parts
