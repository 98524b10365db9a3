"""`asyncq schedule`: schedules are listed, run, paused, resumed and removed by real processes."""

import asyncio
import json

import pytest

from asyncq import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def schedule(project, server_url, namespace):
    """Runs commands one after the other in one process, beside the loop."""

    async def schedule(*commands):
        project.environ |= {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
        return await asyncio.to_thread(project.run_each, *(("schedule", *command) for command in commands))

    return schedule


@pytest.fixture
async def nightly(app):
    """A schedule, and its task."""

    @app.task(name="report")
    async def report(region: str) -> str:
        return region

    return await app.schedules.add("nightly", report.s("eu"), cron="0 3 * * *", tz="Europe/Paris")


async def test_schedules_are_listed_in_columns_and_as_json(nightly, schedule):
    shown, tree, lines, soonest = await schedule(
        ("ls",), ("ls", "--json"), ("ls", "--jsonl"), ("next", "-n", "2")
    )
    assert shown.out.split()[:8] == ["nightly", "report", "0", "3", "*", "*", "*", "Europe/Paris"]
    assert shown.out.rstrip().endswith("0 runs  runtime")
    (found,) = json.loads(tree.out)
    assert (found["name"], found["args"], found["paused"]) == ("nightly", ["eu"], False)
    assert json.loads(lines.out) == found
    assert [line.split()[2] for line in soonest.out.splitlines()] == ["nightly", "nightly"]
    assert soonest.out.startswith(nightly.next_at.isoformat(sep=" "))


async def test_a_schedule_is_paused_resumed_run_and_removed(app, nightly, schedule):
    paused, resumed, ran, refused, removed, none = await schedule(
        ("pause", "nightly"),
        ("resume", "nightly", "--json"),
        ("run", "nightly"),
        ("rm", "nightly"),
        ("rm", "nightly", "--yes"),
        ("ls",),
    )
    assert "  paused  " in paused.out
    assert json.loads(resumed.out)["paused"] is False
    async with Worker(app):
        assert await app.AsyncResult(ran.out.strip()).get(timeout=10) == "eu"
    assert refused.code == 2
    assert "to do that, add --yes" in refused.err
    assert removed.code == 0
    assert (none.out, none.err.splitlines()[-1]) == ("", "no schedules")


async def test_an_unknown_schedule_is_exit_code_3(schedule):
    for ended in await schedule(*((verb, "nope") for verb in ("run", "pause", "resume", "rm"))):
        assert ended.code == 3
        assert "there is no schedule 'nope'" in ended.err


async def test_preview_reads_a_cron_text_and_shows_what_is_wrong_with_it(schedule):
    good, tree, bad, zone = await schedule(
        ("preview", "30 2 * * *", "--tz", "Europe/Paris", "--count", "3"),
        ("preview", "@daily", "--json"),
        ("preview", "61 * * * *"),
        ("preview", "@daily", "--tz", "Mars/Base"),
    )
    assert len(good.out.splitlines()) == 3
    assert len(json.loads(tree.out)) == 5
    assert (bad.code, zone.code) == (2, 2)
    assert "'61' is no minute" in bad.err
    assert "is no time zone" in zone.err
