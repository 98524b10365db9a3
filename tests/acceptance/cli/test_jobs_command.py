"""`asyncq jobs show`: jobs in each state, as a process of its own prints them."""

import asyncio
import json

import pytest

from asyncq import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def show(project, server_url, namespace):
    """Runs `jobs show` for several jobs, one after the other in one process, beside the loop."""

    async def show(*commands):
        project.environ |= {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}
        lines = (("jobs", "show", *command.split()) for command in commands)
        return await asyncio.to_thread(project.run_each, *lines)

    return show


async def test_jobs_show_describes_a_job_in_each_state(app, show):
    @app.task(name="shop.add")
    async def add(a: int, b: int) -> int:
        return a + b

    running = asyncio.Event()

    @app.task(name="shop.wait")
    async def wait() -> None:
        running.set()
        await asyncio.Event().wait()

    @app.task(name="shop.silent", track_started=False)
    async def silent() -> None: ...

    options = add.options
    waiting = await options(task_id="waiting", priority=5, expires=3600).delay(1, 2)
    await options(task_id="later", countdown=3600, ignore_result=True).delay(1, 2)
    unseen = await silent.options(task_id="hidden").delay()
    async with Worker(app, queues=["other"]):
        done = await options(task_id="done", queue="other").delay(1, 2)
        await done.get(timeout=20)
        await wait.options(task_id="running", queue="other").delay()
        await asyncio.wait_for(running.wait(), 20)
        shown = await show("waiting --raw", "later", "done", "running", "hidden", "nobody", "waiting --json")
        await app.AsyncResult("running").revoke(terminate=True)
    [waits, later, ended, runs, hidden, unknown, tree] = shown

    def rows(command) -> dict[str, str]:
        assert command.code == 0, command.err
        return {line.split()[0]: " ".join(line.split()[1:]) for line in command.out.splitlines()}

    assert rows(waits).items() >= {"id": "waiting", "state": "PENDING", "task": "shop.add"}.items()
    assert rows(waits)["stream"] == "default^5"
    assert rows(waits)["expires"].startswith("20")
    assert rows(waits)["raw"].startswith("b'L--- ")
    assert rows(later)["state"] == "SCHEDULED"
    assert rows(later)["record"] == "waits for its time; its result is ignored"
    assert rows(ended).items() >= {"state": "SUCCESS", "task": "shop.add", "attempts": "1"}.items()
    assert rows(ended)["record"] == "returned a value"
    assert rows(runs)["state"] == "STARTED"
    assert {"worker", "started"} <= rows(runs).keys()
    assert (unknown.code, unknown.out) == (3, "")
    assert "there is no job 'nobody'" in unknown.err
    assert "--app MODULE:APP" in unknown.err
    assert json.loads(tree.out)["record"] == ["waits in its queue; asyncq why says for what"]
    assert rows(runs)["record"] == "a worker runs it"
    assert rows(hidden)["record"] == (
        "waits in its queue, or runs already: its task does not show starts (track_started=False)"
    )
    await unseen.revoke()
    await waiting.revoke()
    await app.AsyncResult("later").revoke()
