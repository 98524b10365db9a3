"""Ids of the command line, abbreviated and from stdin; and what `jobs retry`, `result watch` and `forget` do
with them. Real processes beside a real worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest
from helpers.waiting import until

import asyncq
from asyncq import Worker
from asyncq.cli import job_ids, last_job
from asyncq.cli.exits import CliError

pytestmark = pytest.mark.anyio


@pytest.fixture
def add(app):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        if x < 0:
            raise ValueError("x is negative")
        return x + y

    return add


async def test_the_beginning_of_an_id_that_fits_one_job_is_that_job(app, add, run):
    names = ("waiting-1", "delayed-1", "ended-1", "twin-1", "twin-2")
    options = {"delayed-1": {"countdown": 600}, "ended-1": {"queue": "other"}}
    handles = {name: await add.options(task_id=name, **options.get(name, {})).delay(1, 2) for name in names}
    async with Worker(app, queues=["other"]):
        assert await handles["ended-1"].get(timeout=30) == 3
        await until(lambda: app.control.jobs("SUCCESS"), "the job to be in the history")
    await app.control.queues()
    get, why, show, twin, several, nobody, revoked = await run(
        "result get ended",
        "why delay",
        "jobs show wait",
        "jobs show twin-2",
        "jobs show tw",
        "jobs show nob",
        "revoke wai del --json",
    )
    assert (get.out, get.code) == ("3\n", 0), get
    assert (why.code, why.out.split()[0]) == (0, "SCHEDULED"), why
    assert show.out.startswith("id        waiting-1\n"), show
    assert twin.code == 0
    assert (several.code, several.out) == (2, "")
    assert "'tw' could be any of twin-1, twin-2" in several.err
    assert (nobody.code, "there is no job 'nob'" in nobody.err) == (3, True)
    assert [(row["id"], row["state"]) for row in json.loads(revoked.out)] == [
        ("waiting-1", "REVOKED"),
        ("delayed-1", "REVOKED"),
    ]
    (unsure,) = await run("revoke twin")
    assert unsure.code == 2
    assert await handles["twin-1"].refresh() == "PENDING"
    for name in ("twin-1", "twin-2"):
        await handles[name].revoke()


async def test_the_look_for_an_id_is_bounded_and_commands_that_change_something_say_so(
    app, add, monkeypatch, capsys
):
    monkeypatch.setattr(job_ids, "MOST_LOOKED_AT", 10)
    monkeypatch.setattr(job_ids, "_PAGE", 10)
    await add.options(task_id="first").delay(1, 1)
    results = await add.map([(n, 1) for n in range(30)])
    await app.control.queues()
    async with app:
        assert await job_ids.full(app, "fir") == "first"
        assert "fir is taken for first, the only one among the" in capsys.readouterr().err
        with pytest.raises(Exception, match="and there are more than the 10 jobs") as caught:
            await job_ids.full(app, "fir", surely=True)
        assert caught.value.code == 2
        assert await job_ids.full(app, "first", surely=True) == "first", "a whole id needs no look"
    assert results
    await app.control.purge("default")


async def test_a_dead_letter_is_shown_and_its_job_is_retried_by_the_beginning_of_its_id(app, add, run):
    async with Worker(app):
        failed = await add.options(task_id="fails").delay(-1, 2)
        assert await failed.outcome(timeout=30)
        lost = await app.send("nowhere", (1,), task_id="lost-1", queue="default")
        await lost.outcome(timeout=60)
        letters = await until(app.control.dead.list, "a dead letter of the unknown task")
        show, part, again, unknown_call, nobody = await run(
            f"dlq show {letters[0].id}",
            f"dlq show {letters[0].id[:9]} --json",
            "jobs retry lost --json",
            "jobs retry fails",
            "jobs retry nobody",
        )
        assert show.out.startswith("id "), show
        assert "job_id" in show.out
        assert json.loads(part.out)["job_id"] == "lost-1", part
        ((row,), code) = json.loads(again.out), again.code
        assert (row["id"], row["job_id"], code) == ("lost-1", f"lost-1.{letters[0].id}", 0)
        assert (unknown_call.code, "the arguments of job 'fails' are not known" in unknown_call.err) == (
            1,
            True,
        ), unknown_call
        assert "result_extended" in unknown_call.err
        assert nobody.code == 3
        await app.AsyncResult(row["job_id"]).outcome(timeout=60)
        for letter in await app.control.dead.list():
            await app.control.dead.delete([letter.id])


async def test_ids_of_failed_jobs_from_stdin_are_retried_with_their_arguments(app, make_app, run, project):
    extended = make_app(result_extended=True)
    runs = []

    @extended.task(name="flaky", queue="mail")
    async def flaky(x: int, *, word: str) -> str:
        runs.append(asyncq.current().id)
        if len(runs) <= 2:
            raise ValueError("not yet")
        return word * x

    async with extended, Worker(extended, queues=["mail"]):
        first = [await flaky.delay(n, word="a") for n in (1, 2)]
        for result in first:
            await result.outcome(timeout=30)
        await run("version")
        read, write = os.pipe()
        retry = project.start("jobs", "retry", "-", stdin=read)
        os.close(read)
        with os.fdopen(write, "w") as ids:
            ids.write("\n".join(result.id for result in first))
        out, err = await asyncio.to_thread(retry.communicate, timeout=60)
        assert retry.returncode == 0, err
        pairs = [line.split() for line in out.splitlines()]
        assert [old for old, _ in pairs] == [result.id for result in first]
        assert [await app.AsyncResult(new).get(timeout=30) for _, new in pairs] == ["a", "aa"]


async def test_watch_prints_each_state_and_the_progress_of_a_job_until_its_end(app, run, project):
    go = asyncio.Event()

    @app.task(name="walks")
    async def walks() -> int:
        await asyncq.current().progress(67, 134, "photos")
        await go.wait()
        return 5

    async with Worker(app):
        result = await walks.options(task_id="walks-1").delay()
        await run("version")
        watch = project.start("result", "watch", "walks")
        text = ""
        while "PROGRESS" not in text:
            line = await asyncio.to_thread(watch.stdout.readline)
            assert line, watch.communicate()
            text += line
        go.set()
        out, err = await asyncio.to_thread(watch.communicate, timeout=60)
        assert await result.get(timeout=30) == 5
    assert "walks-1  PROGRESS  67/134 (50 %) photos\n" in text, text
    assert out.splitlines()[-1].endswith("walks-1  SUCCESS   5"), (out, err)
    assert watch.returncode == 0
    (tree,) = await run("result watch walks-1 --json")
    assert json.loads(tree.out.splitlines()[-1])["info"] == 5


async def test_watch_has_the_exit_code_of_the_job(app, add, run):
    async with Worker(app):
        failed = await add.delay(-1, 1)
        await failed.outcome(timeout=30)
    delayed = await add.options(countdown=600).delay(1, 1)
    fails, late, nobody = await run(
        f"result watch {failed.id}", f"result watch {delayed.id} -t 200ms", "result watch nobody"
    )
    assert (fails.code, fails.out.splitlines()[-1].endswith("ValueError: x is negative")) == (1, True), fails
    assert (late.code, late.out.split()[-1]) == (4, "SCHEDULED"), late
    assert nobody.code == 3, nobody
    await delayed.revoke()


async def test_forget_removes_results(app, add, run):
    async with Worker(app):
        result = await add.options(task_id="sum-1").delay(1, 1)
        await result.get(timeout=30)
        await until(lambda: app.control.jobs("SUCCESS", task="add"), "the job to be in the history")
    forget, again = await run("result forget sum", "result forget sum-1")
    assert (forget.code, forget.out) == (0, ""), forget
    assert (again.code, "there is no result of job 'sum-1'" in again.err) == (3, True)
    assert not await app.AsyncResult("sum-1").exists()


async def test_last_is_the_job_that_was_enqueued_last_from_this_terminal(app, add, run, project):
    none, first, second, get, shown = await run(
        "result get @last",
        "call --no-wait shop echo 1",
        "call --no-wait shop add 2 3 --json",
        "result get @last --timeout 0",
        "jobs show @last",
    )
    assert (none.code, "no job was enqueued from this terminal" in none.err) == (3, True), none
    last = json.loads(second.out)["id"]
    assert (get.code, f"job {last} did not end" in get.err) == (4, True), get
    assert shown.out.split()[:2] == ["id", last]
    elsewhere = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "asyncq", "jobs", "show", "@last"],
        cwd=project.folder,
        env=project.environ,
        capture_output=True,
        text=True,
        start_new_session=True,  # as another terminal has one
        check=False,
    )
    assert (elsewhere.returncode, elsewhere.stdout) == (3, ""), elsewhere
    revoke, again = await run("revoke @last", f"revoke {first.out}")
    assert (revoke.out.split(), again.out.split()) == ([last, "REVOKED"], [first.out.strip(), "REVOKED"])


def test_last_is_known_for_a_day_and_old_files_of_other_terminals_are_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    last_job.note("first")
    (file,) = (tmp_path / "asyncq").iterdir()
    assert last_job.read() == "first"
    other = file.with_name("last-job-1")
    other.write_text("other")
    long_ago = time.time() - last_job.GOOD_FOR - 1
    os.utime(other, (long_ago, long_ago))
    last_job.note("second")
    assert [last_job.read(), *(tmp_path / "asyncq").iterdir()] == ["second", file]
    os.utime(file, (long_ago, long_ago))
    with pytest.raises(CliError, match="within a day"):
        last_job.read()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    last_job.note("third")  # nothing can be written there, which is no error


@pytest.fixture
def charge(make_app):
    """A task that fails until the test repairs it, in an app whose results hold the arguments."""
    app = make_app(result_extended=True)

    @app.task(name="charge", queue="mail")
    async def charge(x: int) -> int:
        if not charge_runs:
            raise ValueError(f"no money for {x}")
        return x

    @app.task(name="other", queue="mail")
    async def other() -> None:
        raise KeyError

    charge_runs: list[bool] = []
    charge.runs, charge.other = charge_runs, other
    return charge


async def test_all_jobs_that_fit_a_filter_are_retried_once_after_a_question(app, charge, run):
    async with charge.app, Worker(charge.app, queues=["mail"]):
        failed = await charge.map([(n,) for n in range(5)])
        await (await charge.other.delay()).outcome(timeout=30)
        await failed.join(timeout=30, propagate=False)

        async def are_noted() -> bool:
            return len(await app.control.jobs("FAILURE")) == 6

        await until(are_noted, "the failures to be in the history")
        charge.runs.append(True)
        dry, refused, both, live, none, part, rest, again = await run(
            "jobs retry --task charge --dry-run",
            "jobs retry --task charge",
            "jobs retry --task charge ID",
            "jobs retry --state PENDING",
            "jobs retry",
            "jobs retry --task charge --limit 2 --yes --json",
            "jobs retry --task charge --since 1h --yes",
            "jobs retry --task charge --yes --json",
        )
        assert (len(dry.out.splitlines()), "6 ended jobs looked at, 5 fit" in dry.err) == (5, True), dry
        assert "ValueError: no money for 0" in dry.out
        assert (refused.code, "this enqueues 5 jobs again" in refused.err) == (2, True), refused
        assert (both.code, "write ids, or a filter, and not both" in both.err) == (2, True)
        assert (live.code, "only ended jobs can be retried" in live.err) == (2, True)
        assert (none.code, "write ids, or a filter" in none.err) == (2, True)
        first = json.loads(part.out)
        assert (first["found"], len(first["jobs"])) == (2, 2), part
        assert first["cursor"]
        assert (rest.code, len(rest.out.splitlines())) == (0, 3), rest
        assert "3 enqueued again, 2 were enqueued again before" in rest.err
        last = json.loads(again.out)
        assert (last["found"], last["jobs"], last["skipped"], last["cursor"]) == (5, [], 5, None)
        new = [f"{result.id}.retry" for result in failed]
        values = [await charge.app.AsyncResult(id_).get(timeout=30) for id_ in new]
        assert values == [0, 1, 2, 3, 4]


async def test_jobs_of_a_filter_whose_calls_are_not_known_are_named_up_to_a_number(app, add, run):
    async with Worker(app):
        failed = await add.map([(-1, n) for n in range(12)])
        await failed.join(timeout=30, propagate=False)

        async def are_noted() -> bool:
            return len(await app.control.jobs("FAILURE")) == 12

        await until(are_noted, "the failures to be in the history")
        (ended,) = await run("jobs retry --state FAILURE --yes")
    assert ended.code == 1
    assert ended.err.count("the arguments of job") == 10, ended
    assert "2 more could not be enqueued again" in ended.err
