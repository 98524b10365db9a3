"""A workflow that replaces a job: it ends with the job, and the job tree contains it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import until

import asyncq
from asyncq import AsyncQ, ResultTimeout, Worker, group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio


class Tasks:
    """The tasks of these tests, for one app, and the notes of their bodies."""

    def __init__(self, app: AsyncQ) -> None:
        self.app = app
        self.started_bodies: list[str] = []
        self.ended: list[str] = []

        @app.task
        async def step(*args: Any) -> str:
            name: str = args[-1]  # the value of the step before may come before it
            self.started_bodies.append(name)
            if name.startswith("hang"):
                await asyncio.Event().wait()
            self.ended.append(name)
            return name

        @app.task
        async def plan(*_values: Any) -> Any:
            lines = [step.si("first") | group(step.si("hang one"), step.si("two")) | step.s("join")]
            await asyncq.current().replace(group(*lines, step.si("beside")) | step.s("last"))

        @app.task
        async def outer() -> Any:
            await asyncq.current().replace(step.si("before") | plan.s() | step.s("after"))

        @app.task
        async def started() -> Any:
            await step.si("child").delay()
            await asyncq.current().replace(step.si("one") | step.s("two") | step.s("three"))

        @app.task
        async def failing() -> Any:
            await asyncq.current().replace(step.si("one") | fail.s() | step.s("never"))

        @app.task
        async def fail(*_values: Any) -> None:
            raise ValueError("no")

        self.step, self.plan, self.outer, self.started, self.failing = step, plan, outer, started, failing


@pytest.fixture(params=[1, 3], ids=["one shard", "three"])
async def tasks(request, make_app) -> AsyncIterator[Tasks]:
    async with make_app(shards=request.param) as app:
        tasks = Tasks(app)
        async with Worker(app):
            yield tasks


async def by_handle(tasks: Tasks) -> None:
    result = await tasks.plan.delay()
    await until(lambda: "hang one" in tasks.started_bodies, "the replacement to run")
    assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"


async def by_id(tasks: Tasks) -> None:
    result = await tasks.outer.delay()
    await until(lambda: "hang one" in tasks.started_bodies, "the replacement of a replacement to run")
    assert await tasks.app.AsyncResult(result.id).revoke(terminate=True) == "REVOKED"


async def of_a_group(tasks: Tasks) -> None:
    results = await group(tasks.plan.si(), tasks.plan.si()).delay()
    await until(lambda: tasks.started_bodies.count("hang one") == 2, "both replacements to run")
    assert await results.revoke(terminate=True, wait=True, timeout=30) == ["REVOKED"] * 2


async def of_a_step(tasks: Tasks) -> None:
    result = await (tasks.step.s("early") | tasks.plan.s() | tasks.step.s("late")).delay()
    await until(lambda: "hang one" in tasks.started_bodies, "the replacement to run")
    await result.revoke(terminate=True)
    assert await result.refresh() == "REVOKED"


async def by_scope(tasks: Tasks) -> None:
    async with tasks.app.scope():
        await tasks.plan.delay()
        await until(lambda: "hang one" in tasks.started_bodies, "the replacement to run")


async def by_abandon(tasks: Tasks) -> None:
    result = await tasks.plan.delay()
    await until(lambda: "hang one" in tasks.started_bodies, "the replacement to run")
    with pytest.raises(ResultTimeout):
        await result.get(timeout=0.01, revoke_on_abandon=True)
    await until(lambda: result.state == "REVOKED", "the abandoned job to be revoked")


async def by_the_id_of_a_dependent(tasks: Tasks) -> None:
    last = await (tasks.plan.s() | tasks.step.s("late") | tasks.step.s("last of all")).delay()
    await until(lambda: "hang one" in tasks.started_bodies, "the replacement to run")
    await tasks.app.AsyncResult(last.id).revoke(terminate=True, parents=True)
    assert await last.parent.parent.refresh() == "REVOKED"


@pytest.mark.parametrize(
    "end",
    [by_handle, by_id, of_a_group, of_a_step, by_scope, by_abandon, by_the_id_of_a_dependent],
)
async def test_the_revocation_of_a_job_ends_the_workflow_that_replaced_it(
    tasks: Tasks, end: Callable[[Tasks], Awaitable[None]]
) -> None:
    await end(tasks)

    async def nothing_is_left() -> bool:
        return not await members_that_run(tasks.app)

    await until(nothing_is_left, "the members that ran to end")
    assert not {"join", "last", "after", "late", "hang one"} & {*tasks.ended}


async def members_that_run(app: AsyncQ) -> list[bytes]:
    """Returns the entries of the queue in all shards: of jobs that wait, and of jobs that a worker holds."""
    broker = app.sessions.current().broker
    found = [
        await broker.commands.send(keys, "XRANGE", keys.stream("default"), "-", "+") for keys in broker.shards
    ]
    return [entry for entries in found for entry in entries]


async def test_a_revocation_by_id_alone_does_not_revoke_the_parents_of_the_job(tasks: Tasks) -> None:
    result = await (tasks.step.si("hang first") | tasks.step.si("second") | tasks.step.si("third")).delay()
    await until(lambda: tasks.started_bodies, "the first step to run")
    alone = tasks.app.AsyncResult(result.parent.id)
    assert await alone.revoke(terminate=True) == "REVOKED"
    assert await result.parent.parent.refresh() == "STARTED"
    await result.parent.parent.revoke(terminate=True)
    again = await (tasks.step.si("hang first") | tasks.step.si("second") | tasks.step.si("third")).delay()
    assert await tasks.app.AsyncResult(again.id).revoke(terminate=True, parents=True) == "REVOKED"
    assert (await again.parent.parent.outcome(timeout=30)).state == "REVOKED"
    assert (await again.parent.outcome(timeout=30)).member is None, "it was revoked itself"


async def test_the_job_tree_of_a_replaced_job_contains_its_children_and_its_replacement(tasks: Tasks) -> None:
    result = await tasks.started.delay()
    values = [value async for _, value in result.collect(timeout=30)]
    assert values == ["three", "child", "one", "two"]
    graph = await result.build_graph()
    assert len(list(graph)) == 4


async def test_a_callback_of_a_job_is_called_when_the_workflow_that_replaced_it_fails(tasks: Tasks) -> None:
    received: list[Any] = []

    @tasks.app.task
    async def alarm(id_: str, error: Exception, _traceback: str, name: str) -> None:
        received.append((id_, str(error), name))

    workflow = tasks.failing.s().link_error(alarm.s("own")) | tasks.step.s("late").link_error(alarm.s("late"))
    result = await workflow.link_error(alarm.s("line")).delay()
    with pytest.raises(ValueError, match="no"):
        await result.get(timeout=30)
    await until(lambda: len(received) == 2, "both callbacks to be called")
    assert sorted(received) == sorted([(result.parent.id, "no", "own"), (result.id, "no", "line")])
