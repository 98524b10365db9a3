"""Chains, groups, chords and callbacks on a real server, with a real worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.waiting import until, until_state

import asyncq
from asyncq import (
    AsyncResult,
    GroupResult,
    QueueFull,
    ResultNotFound,
    TaskRevoked,
    Worker,
    WouldDeadlock,
    chain,
    chord,
    group,
)
from asyncq.results.handle import workflow_handles

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int


class Tasks:
    """The tasks of these tests, for one app."""

    def __init__(self, app):  # noqa: C901  a function for each task, none with a branch
        self.noted: list[Any] = []
        self.started: list[int] = []

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        @app.task
        def total(values: list[int]) -> int:
            return sum(values)

        @app.task
        async def seen(*args: Any) -> list[Any]:
            return list(args)

        @app.task
        async def fail(*_args: Any) -> None:
            raise ValueError("no")

        @app.task
        async def hang(*_args: Any) -> None:
            self.started.append(1)
            await asyncio.Event().wait()

        @app.task
        async def note(*args: Any) -> None:
            self.noted.append(args)

        @app.task
        async def shift(point: Point, by: int = 1) -> Point:
            return Point(point.x + by)

        @app.task
        async def furthest(points: list[Point]) -> Point:
            return max(points, key=lambda point: point.x)

        @app.task
        async def factorial(n: int, product: int = 1) -> int:
            if n > 1:
                try:
                    await asyncq.current().replace(factorial.s(n - 1, product * n))
                except Exception:
                    return -1
            return product

        @app.task
        def spread(n: int) -> list[Point]:
            return asyncq.current().replace_sync(group(shift.s(Point(i)) for i in range(n)))

        @app.task
        async def linked(n: int) -> int:
            return await asyncq.current().replace((add.s(n, 1) | add.s(1)).link(note.s("linked")))

        @app.task
        async def broken(x: int) -> int:
            return await asyncq.current().replace(fail.s(x) | add.s(1))

        @app.task
        async def about() -> list[Any]:
            job = asyncq.current()
            return [job.id, job.parent_id, job.root_id, job.deadline_ms]

        @app.task
        async def successors() -> list[Any]:
            return await asyncq.current().replace(group(about.si(), about.si()) | seen.s())

        @app.task
        async def starter() -> list[str]:
            await (add.s(1, 1) | add.s(1)).delay()
            job = asyncq.current()
            return [job.id, *job.children]

        @app.task
        async def wrong() -> str:
            try:
                await asyncq.current().replace(add.s(1))
            except TypeError as error:
                return str(error)

        @app.task
        async def joining() -> None:
            await (add.s(1, 1) | add.s(1)).call()

        for task in list(app.tasks.values()):
            setattr(self, task.name.rpartition(".")[2], task)


@pytest.fixture
def tasks(app):
    return Tasks(app)


@pytest.fixture
async def worker(app, tasks):
    async with Worker(app) as worker:
        await tasks.add.call(0, 0)  # from here on the worker reads
        yield worker


COMBINATIONS = {
    "signature": lambda t: (t.add.s(1, 2), 3),
    "chain": lambda t: (t.add.s(1, 2) | t.add.s(3) | t.add.s(4), 10),
    "immutable": lambda t: (t.add.s(1, 2) | t.add.si(1, 1), 2),
    "group": lambda t: (group(t.add.s(n, n) for n in range(3)), [0, 2, 4]),
    "group of arguments": lambda t: (group(t.add.s(1, 1), t.seen.s()), [2, []]),
    "empty group": lambda t: (group([]), []),
    "chord": lambda t: (chord([t.add.s(n, n) for n in range(3)], t.total.s()), 6),
    "chord in two calls": lambda t: (chord([t.add.s(1, 1)])(t.total.s()), 2),
    "empty chord": lambda t: (chord([], t.seen.s()), [[]]),
    "immutable body": lambda t: (chord([t.add.s(1, 1)], t.add.si(2, 2)), 4),
    "chain into a group": lambda t: (t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)), [3, 4]),
    "chain through a group": lambda t: (
        t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.total.s() | t.add.s(1),
        8,
    ),
    "group after group": lambda t: (
        group(t.add.s(1, 1), t.add.s(2, 2)) | group(t.total.s(), t.seen.s(0)),
        [6, [[2, 4], 0]],
    ),
    "chain through an empty group": lambda t: (t.add.s(1, 1) | group([]) | t.seen.s(), [[]]),
    "chains in a group": lambda t: (group(t.add.s(1, 1) | t.add.s(1), t.add.s(2, 2) | t.add.s(2)), [3, 6]),
    "chords in a group in a chord": lambda t: (
        group(chord([t.add.s(1, 1)] * 3, t.total.s()), group(t.add.s(0, 0), group([])), t.seen.si("x"))
        | t.seen.s("end"),
        [[6, [0, []], ["x"]], "end"],
    ),
    "chord after chord": lambda t: (
        group(t.add.s(1, 1), t.add.s(2, 2)) | t.total.s() | group(t.add.s(n) for n in range(3)) | t.total.s(),
        21,
    ),
    "starmap": lambda t: (t.add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "map": lambda t: (t.total.xmap([[1, 2], [3]]), [3, 3]),
    "chunks": lambda t: (t.add.chunks([(n, n) for n in range(5)], 2), [[0, 2], [4, 6], [8]]),
    "chunks, collected": lambda t: (
        t.add.chunks([(n, n) for n in range(3)], 2) | t.seen.s(),
        [[[0, 2], [4]]],
    ),
    "classes": lambda t: (
        group(t.shift.s(Point(n)) | t.shift.s(10) for n in range(3)) | t.furthest.s() | t.shift.s(by=100),
        Point(113),
    ),
    "classes in a starmap": lambda t: (t.shift.starmap([(Point(1),), (Point(2), 5)]), [Point(2), Point(7)]),
    "replaced": lambda t: (t.factorial.s(5), 120),
    "replaced in a chain": lambda t: (t.add.s(2, 2) | t.factorial.s() | t.add.s(1), 25),
    "replaced by a group": lambda t: (t.spread.s(3), [Point(1), Point(2), Point(3)]),
    "replaced by an empty group": lambda t: (t.spread.s(0), []),
    "replaced by a group in a chain": lambda t: (t.add.s(1, 1) | t.spread.s() | t.furthest.s(), Point(2)),
    "replaced by a linked chain": lambda t: (group(t.linked.s(1), t.factorial.s(3)) | t.total.s(), 9),
}


@pytest.mark.parametrize("which", COMBINATIONS)
async def test_a_workflow_gives_the_same_value_as_plain_calls_and_as_apply(tasks, worker, which):
    workflow, value = COMBINATIONS[which](tasks)
    assert await workflow.call() == value
    result = await workflow.delay()
    assert isinstance(result, GroupResult if isinstance(workflow, asyncq.Group) else AsyncResult)
    assert await result.get(timeout=30) == value
    assert await asyncio.to_thread(lambda: workflow.apply().get_sync()) == value


async def test_a_handle_from_an_id_decodes_the_classes_in_the_result_of_a_replaced_job(app, tasks, worker):
    result = await tasks.spread.delay(2)
    assert await tasks.spread.AsyncResult(result.id).get(timeout=30) == [Point(1), Point(2)]
    assert await app.AsyncResult(result.id).get(timeout=30) == [{"x": 1}, {"x": 2}]


async def test_handles_know_their_parents(tasks, worker):
    result = await (tasks.add.s(1, 1) | group(tasks.add.s(1), tasks.add.s(2)) | tasks.total.s()).delay()
    assert await result.get(timeout=30) == 7
    assert isinstance(result.parent, GroupResult)
    assert await result.parent.get(timeout=30) == [3, 4]
    first = result.parent.parent
    assert await first.get(timeout=30) == 2
    assert (first.parent, len(result.as_list())) == (None, 4)
    assert [child.id for child in first.children] == [member.id for member in result.parent]
    assert [child.id for child in result.parent[0].children] == [result.id]
    same = asyncq.result_from_tuple(result.as_tuple(), result.app)
    assert same.as_list() == result.as_list()


async def test_workflows_accept_more_arguments_and_options_and_have_blocking_variants(tasks, worker, app):
    assert await (tasks.add.s(2) | tasks.add.s(3)).call(1) == 6
    assert await tasks.add.s(2).apply_async((1,), queue="default", task_id="mine") == "mine"
    workflow = tasks.add.s(2) | tasks.seen.s()

    def blocking():
        return [
            workflow.call_sync(1),
            workflow.delay_sync(1).get_sync(timeout=30),
            workflow.apply_async_sync((1,)).get_sync(timeout=30),
            group(workflow).call_sync(1),
            group(workflow).delay_sync(1).get_sync(timeout=30),
            group(workflow).apply_async_sync((1,)).get_sync(timeout=30),
            app.submit_sync([workflow.clone((1,))]).get_sync(timeout=30),
        ]

    assert await asyncio.to_thread(blocking) == [[3], [3], [3], [[3]], [[3]], [[3]], [[3]]]


async def test_submit_accepts_calls_and_workflows_in_order(app, tasks, worker):
    results = await app.submit(
        [
            tasks.add.s(1, 1),
            tasks.add.s(1, 1) | tasks.add.s(1),
            group(tasks.add.s(2, 2), tasks.add.s(3, 3)),
            tasks.add.s(5, 5),
        ]
    )
    assert await results.get(timeout=30) == [2, 3, [4, 6], 10]


async def test_nothing_is_enqueued_if_one_call_of_a_submission_is_invalid(app, tasks, raw, namespace):
    with pytest.raises(TypeError, match="add"):
        await app.submit([tasks.add.s(1, 1), tasks.add.s(1, 1) | tasks.add.s(1, 1)])
    assert [key async for key in raw.scan_iter(f"{{{namespace}:0}}:r:*")] == []


@pytest.mark.one_shard
async def test_all_jobs_of_a_workflow_are_accepted_or_none(make_app, namespace, raw):
    async with make_app(max_length=2) as app:
        tasks = Tasks(app)
        with pytest.raises(QueueFull):
            await (group(tasks.add.s(1, 1) for _ in range(3)) | tasks.total.s()).delay()
        first = await tasks.add.options(task_id="mine").delay(1, 1)
        with pytest.raises(ValueError, match="mine"):
            await (tasks.add.s(1, 1) | tasks.add.options(task_id="mine").s(1)).delay()
        assert [key async for key in raw.scan_iter(f"{{{namespace}:0}}:r:*")] == [
            f"{{{namespace}:0}}:r:mine".encode()
        ]
        await first.revoke()


async def test_a_failed_member_fails_its_dependents_at_once_with_its_own_exception(tasks, worker):
    slow = await (group(tasks.fail.s(), tasks.hang.s()) | tasks.seen.s() | tasks.seen.s()).delay()
    with pytest.raises(ValueError, match="no") as caught:
        await slow.get(timeout=30)
    member = slow.parent.parent[0]
    assert caught.value.__notes__ == [
        f"job {slow.id} never ran: it waited for job {member.id} ({tasks.fail.name})"
    ]
    outcome = await slow.outcome()
    assert (outcome.state, outcome.member, outcome.attempts) == ("FAILURE", member.id, 0)
    await slow.revoke(terminate=True)
    await until_state(slow.parent.parent[1], "REVOKED")


async def test_callbacks_run_after_a_success_and_error_callbacks_after_a_failure(tasks, worker):
    call = await tasks.add.options(link=[tasks.note.s("a"), tasks.note.si("b")]).delay(1, 2)
    assert await call.get(timeout=30) == 3
    await until(lambda: len(tasks.noted) == 2, "both callbacks to be called")
    assert sorted(tasks.noted, key=repr) == sorted([(3, "a"), ("b",)], key=repr)
    assert len(call.children) == 2
    assert await asyncq.gather(*call.children) == (None, None)

    tasks.noted.clear()
    bad = await tasks.fail.apply_async((1,), link=tasks.note.s("never"), link_error=tasks.note.s("e"))
    with pytest.raises(ValueError, match="no"):
        await bad.get(timeout=30)
    await until(lambda: tasks.noted, "the error callback to be called")
    ((id_, error, text, extra),) = tasks.noted
    assert (id_, repr(error), extra) == (bad.id, "ValueError('no')", "e")
    assert "raise ValueError" in text
    assert [child.id for child in bad.children] != []


async def test_an_error_callback_of_a_chain_is_called_once_for_a_failure_of_any_step(tasks, worker):
    workflow = (tasks.fail.s() | tasks.seen.s() | tasks.seen.s()).link_error(tasks.note.s())
    result = await workflow.delay()
    await until(lambda: tasks.noted, "the error callback to be called")
    ((id_, error, _),) = tasks.noted
    assert (id_, repr(error)) == (result.id, "ValueError('no')")
    good = await (tasks.add.s(1, 1) | tasks.add.s(1)).link_error(tasks.note.s()).delay()
    assert await good.get(timeout=30) == 3
    assert len(tasks.noted) == 1
    assert good.children == []


async def test_callbacks_of_a_group_run_after_all_its_members(tasks, worker):
    await group(tasks.add.s(1, 1), tasks.add.s(2, 2)).link(tasks.note.s("all")).delay()
    await until(lambda: tasks.noted, "the callback to be called")
    assert tasks.noted == [([2, 4], "all")]
    tasks.noted.clear()
    failing = await group(tasks.fail.s(1), tasks.fail.s(2)).link_error(tasks.note.si("each")).delay()
    await until(lambda: len(tasks.noted) == 2, "each error callback to be called")
    assert await failing.failed()


@pytest.mark.parametrize("which", ["chain", "chord", "group"])
async def test_revoking_a_workflow_revokes_every_member(app, tasks, which):
    first, second, last = tasks.add.s(1, 1), group(tasks.add.s(1), tasks.add.s(2)), tasks.total.s()
    whole = {"chain": first | tasks.add.s(1), "chord": first | second | last, "group": first | second}[which]
    result = await whole.delay()
    handles = list(asyncq.results.handle.workflow_handles(result))
    assert len(handles) == {"chain": 2, "chord": 4, "group": 3}[which]
    await result.revoke(reason="enough")
    for handle in handles:
        assert await handle.refresh() == "REVOKED"
        with pytest.raises(TaskRevoked, match=f"{handle.id} was revoked: enough"):
            await handle.get(timeout=1)


async def test_revoking_with_terminate_ends_the_running_member(tasks, worker):
    result = await (tasks.hang.s() | tasks.seen.s()).delay()
    await until(lambda: tasks.started, "the first step to run")
    assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"
    await until_state(result.parent, "REVOKED")


async def test_dependents_of_a_revoked_member_end_as_revoked(tasks, app):
    result = await (tasks.add.s(1, 1) | tasks.add.s(1)).delay()
    await result.parent.revoke()
    with pytest.raises(TaskRevoked):
        await result.get(timeout=30)


async def test_forgetting_a_workflow_forgets_every_member(tasks, worker):
    result = await (tasks.add.s(1, 1) | group(tasks.add.s(1), tasks.add.s(2)) | tasks.total.s()).delay()
    await result.get(timeout=30)
    handles = list(asyncq.results.handle.workflow_handles(result))
    await result.forget()
    assert [await handle.exists() for handle in handles] == [False] * 4
    side = await (tasks.add.s(1, 1) | group(tasks.add.s(1))).delay()
    await side.get(timeout=30)
    await side.forget()
    with pytest.raises(ResultNotFound):
        await side.parent.get(timeout=1)


async def test_the_countdown_of_a_workflow_delays_its_first_step(tasks, worker):
    result = await (tasks.add.s(1, 1) | tasks.add.s(1)).options(countdown=0.2).delay()
    assert await result.parent.refresh() == "SCHEDULED"
    assert await result.refresh() == "PENDING"
    assert await result.get(timeout=30) == 3


async def test_a_workflow_that_a_task_starts_is_a_child_of_the_task(tasks, worker):
    result = await tasks.starter.delay()
    id_, first = await result.get(timeout=30)
    assert [child.id for child in result.children] == [first]
    assert id_ == result.id
    (second,) = (await tasks.add.AsyncResult(first).outcome(timeout=30)).children
    assert await tasks.add.AsyncResult(second).get(timeout=30) == 3


async def test_calling_a_workflow_inside_a_task_is_refused_before_anything_is_enqueued(tasks, worker):
    with pytest.raises(WouldDeadlock):
        await tasks.joining.call()


async def test_a_replacement_inherits_deadline_parent_and_root(tasks, worker):
    result = await tasks.successors.options(deadline=60).delay()
    ((first, second),) = [await result.get(timeout=30)][0]
    assert first[1:] == second[1:]
    assert first[0] != second[0]
    _, parent, root, deadline = first
    assert (parent, root) == (None, result.id)
    assert deadline is not None


async def test_a_replaced_job_keeps_its_id_and_its_dependents_are_its_children(tasks, worker):
    result = await (tasks.factorial.s(4) | tasks.add.s(1)).delay()
    assert await result.get(timeout=30) == 25
    assert await result.parent.get(timeout=30) == 24
    assert [child.id for child in result.parent.children] == [result.id]


async def test_a_replacement_that_fails_also_fails_the_dependents_of_the_job(tasks, worker):
    result = await (tasks.add.s(1, 1) | tasks.broken.s() | tasks.seen.s()).delay()
    with pytest.raises(ValueError, match="no"):
        await result.get(timeout=30)
    with pytest.raises(ValueError, match="no"):
        await result.parent.get(timeout=30)


async def test_an_invalid_replacement_raises_in_the_task(tasks, worker):
    assert "missing a required argument: 'y'" in await tasks.wrong.call()


async def test_replace_is_refused_outside_a_running_task(tasks):
    with pytest.raises(LookupError):
        asyncq.current()
    context = asyncq.Context("id", "name", (), {}, "default")
    with pytest.raises(RuntimeError):
        await context.replace(tasks.add.s(1, 1))


async def test_long_chains_and_wide_chords_complete(tasks, worker):
    assert await chain([tasks.add.s(0, 0), *[tasks.add.s(1)] * 300]).call() == 300
    assert await (group(tasks.add.s(n, 0) for n in range(1000)) | tasks.total.s()).call() == 499_500
    wide = group(tasks.add.s(n, 0) for n in range(200)) | group(tasks.total.s() for _ in range(200))
    assert await wide.call() == [19_900] * 200


@pytest.mark.trial
async def test_a_chain_of_two_thousand_steps_runs_and_its_job_tree_can_be_read(app, tasks):
    async with Worker(app):
        last = await chain(tasks.add.s(0, 0), *(tasks.add.s(1) for _ in range(1999))).delay()
        assert await last.get(timeout=30) == 1999
        first = [*workflow_handles(last)][-1]
        assert len(await first.build_graph()) == len(last.as_list()) == 2000
        assert first.graph.to_mermaid().count("-->") == first.graph.to_dot().count("->") == 1999
