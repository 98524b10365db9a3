"""`asyncq queues`, `workers`, `why` and `jobs ls`, run by real processes beside a real worker."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from helpers.inside import ended
from helpers.waiting import until, until_state

from asyncq import TaskRevoked, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def add(app):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    return add


async def note_queues(app) -> None:
    """Makes the app note its queues at the server now, and not half a second after it first used them."""
    await app.control.queues()


def last(ended_):
    """Returns the last line for the user. Above it there may be a message about the server."""
    return ended_.err.splitlines()[-1]


async def test_a_queue_is_paused_looked_into_purged_and_resumed(app, add, run):
    async with Worker(app, name="w1"):
        (paused,) = await run("queues pause default")
        assert (paused.code, last(paused)) == (0, "queue 'default' is paused: 0 jobs wait, 0 run")
        results = [await add.delay(n, n) for n in range(3)]
        ls, tree, show, shown_tree, dry, refused, purged, resumed = await run(
            "queues ls",
            "queues ls --json",
            "queues show default --limit 2",
            "queues show default --json",
            "queues purge default --dry-run",
            "queues purge default",
            "queues purge default --yes --json",
            "queues resume default --json",
        )
        words = ls.out.split()
        assert (words[:5], words[-3:]) == (
            ["default", "3", "waiting", "0", "running"],
            ["1", "workers", "paused"],
        )
        (queue,) = json.loads(tree.out)
        assert (queue["name"], queue["waiting"], queue["paused"], queue["consumers"]) == (
            "default",
            3,
            True,
            1,
        )
        assert [line.split()[0] for line in show.out.splitlines()] == [
            "default",
            results[0].id,
            results[1].id,
        ]
        assert show.out.splitlines()[1].split()[1:5] == ["PENDING", "add", "attempt", "1"]
        assert [job["id"] for job in json.loads(shown_tree.out)["jobs"]] == [result.id for result in results]
        assert last(dry) == "3 jobs waited, 0 ended"
        assert refused.code == 2
        assert "this ends the jobs that wait in queue 'default' (3)" in refused.err
        assert json.loads(purged.out) == {"waiting": 3, "ended": 3}
        assert json.loads(resumed.out)["paused"] is False
        for result in results:
            with pytest.raises(TaskRevoked):
                await result.get(timeout=5)
        assert await add.call(1, 1) == 2


async def test_a_purge_spares_younger_jobs(app, add, run):
    await add.delay(1, 1)
    await note_queues(app)
    spared, wrong = await run(
        "queues purge default --older-than 1h --yes --json", "queues purge default --older-than soon --yes"
    )
    assert json.loads(spared.out) == {"waiting": 1, "ended": 0}
    assert (wrong.code, "--older-than" in wrong.err) == (2, True)
    await app.control.purge("default")


async def test_a_queue_that_there_is_not_is_exit_3(app, run):
    await app.control.pause("mail")
    for ended_ in await run(
        "queues pause nobody", "queues resume nobody", "queues show nobody", "queues purge nobody --yes"
    ):
        assert (ended_.code, ended_.out) == (3, "")
        assert "there is no queue 'nobody'" in ended_.err
        assert last(ended_).strip() == "queues: mail"
    await app.control.resume("mail")


async def test_queues_and_workers_are_listed_with_one_json_document_a_line(app, add, run):
    for queue in ("mail", "other"):
        await app.control.pause(queue)
    async with Worker(app, name="w1"), Worker(app, name="w2"):
        queues, workers = await run("queues ls --jsonl", "workers ls --jsonl")
    assert {"mail", "other"} <= {json.loads(line)["name"] for line in queues.out.splitlines()}
    assert [json.loads(line)["name"] for line in workers.out.splitlines()] == ["w1", "w2"]
    for queue in ("mail", "other"):
        await app.control.resume(queue)


async def test_workers_are_listed_and_take_orders(app, add, run):
    async with Worker(app, name="w1", concurrency=7) as worker:
        ls, tree, ping, quiet = await run(
            "workers ls", "workers ls --json", "workers ping", "workers quiet w1"
        )
        assert ls.out.split()[0] == "w1"
        assert "0/7 busy" in ls.out
        (info,) = json.loads(tree.out)
        assert (info["name"], info["concurrency"], info["quiet"]) == ("w1", 7, False)
        assert (ping.code, ping.out.split()[0], ping.out.split()[-1]) == (0, "w1", "ms")
        assert (quiet.code, worker.is_quiet, last(quiet)) == (0, True, "worker 'w1' takes no more jobs")
        (again,) = await run("workers quiet w1 --off")
        assert (again.code, worker.is_quiet) == (0, False)
        assert await add.call(1, 1) == 2


async def test_the_stacks_of_a_worker_show_its_jobs(app, run):
    go = asyncio.Event()

    @app.task(name="waits")
    async def waits() -> None:
        await go.wait()

    async with Worker(app, name="w1"):
        result = await waits.delay()
        await until_state(result, "STARTED")
        text, tree = await run("workers stacks w1", "workers stacks w1 --json")
        go.set()
        await result.get(timeout=30)
    assert f"waits {result.id}: attempt 1, running" in text.out
    assert "await go.wait()" in text.out
    assert result.id in json.loads(tree.out)["stacks"]


async def test_stop_asks_and_then_stops_a_worker(app, run):
    async with Worker(app, name="w1") as worker:
        refused, unknown, stopped = await run(
            "workers stop w1", "workers stop w2 --yes", "workers stop w1 --yes"
        )
        assert (refused.code, "this stops worker 'w1'" in refused.err) == (2, True)
        assert (unknown.code, "there is no worker 'w2'; registered workers: 'w1'" in unknown.err) == (3, True)
        assert (stopped.code, last(stopped)) == (0, "worker 'w1' stops")
        await ended(worker)


async def test_without_workers_the_commands_say_so(app, run):
    ls, ping, empty = await run("workers ls", "workers ping --json", "queues ls --json")
    assert (ls.code, ls.out, last(ls)) == (0, "", "no workers")
    assert (ping.code, json.loads(ping.out)) == (0, {})
    assert json.loads(empty.out) == []


async def test_jobs_are_listed_in_pages_and_the_ids_of_a_listing_can_be_revoked(app, add, project, run):
    mail = [(await add.options(queue="mail").delay(n, 1)).id for n in range(3)]
    other = (await add.options(queue="other", countdown=600).delay(1, 1)).id
    await note_queues(app)
    table, page, lines, first, none, wrong, too_many = await run(
        "jobs ls --queue mail",
        "jobs ls --json",
        "jobs ls --jsonl --queue mail --since 1h -q",
        "jobs ls --limit 2 --json",
        f"jobs ls --task {add.name} --state STARTED",
        "jobs ls --state LATER",
        "jobs ls --limit 1001",
    )
    assert [line.split()[:3] for line in table.out.splitlines()] == [[id_, "PENDING", "mail"] for id_ in mail]
    assert last(table).startswith("3 jobs of ")
    assert sorted(job["id"] for job in json.loads(page.out)["items"]) == sorted([*mail, other])
    assert [json.loads(line)["id"] for line in lines.out.splitlines()] == mail
    assert lines.err == ""
    start = json.loads(first.out)
    assert last(first) == f"2 jobs of {start['looked_at']} looked at; go on: --cursor {start['cursor']}"
    (rest,) = await run(f"jobs ls --json --cursor {start['cursor']}")
    assert sorted(job["id"] for some in (start, json.loads(rest.out)) for job in some["items"]) == sorted(
        [*mail, other]
    )
    assert (none.code, none.out, last(none)) == (0, "", "0 jobs of 0 looked at")
    assert (wrong.code, "state='LATER': use one of" in wrong.err) == (2, True)
    assert (too_many.code, "a page has 1 to 1000 jobs" in too_many.err) == (2, True)

    read, write = os.pipe()
    revoke = project.start("jobs", "revoke", "-", stdin=read)
    os.close(read)
    with os.fdopen(write, "w") as ids:
        ids.write("\n".join([*mail, other]))
    out, err = await asyncio.to_thread(revoke.communicate, timeout=60)
    assert (revoke.returncode, out.splitlines()) == (0, [f"{id_}  REVOKED" for id_ in [*mail, other]]), err


async def test_why_prints_what_a_job_waits_for(app, add, run):
    result = await add.delay(1, 1)
    why, tree, unknown = await run(f"why {result.id}", f"why {result.id} --json", "why nobody")
    assert why.out.splitlines() == [
        "PENDING  add  default",
        "no worker serves queue 'default'; no worker lives",
    ]
    answer = json.loads(tree.out)
    assert (answer["state"], [reason["kind"] for reason in answer["reasons"]]) == ("PENDING", ["no worker"])
    assert (unknown.code, "there is no job 'nobody'" in unknown.err) == (3, True)
    assert "--app MODULE:APP" in unknown.err
    await until(lambda: app.control.purge("default"), "the job to end")
