"""Workflows in a client: what `delay` returns, what is enqueued, and what the end of a member does."""

from __future__ import annotations

import asyncio

import pytest

from asyncq import GroupResult, TaskRevoked, Worker, chain, chord, group
from asyncq.results.handle import workflow_handles

pytestmark = pytest.mark.anyio


@pytest.fixture
def seen(app):
    @app.task
    async def seen(*args: object) -> list[object]:
        return list(args)

    return seen


@pytest.fixture
async def worker(app):
    """Runs the bodies on the test's own loop."""
    async with Worker(app) as worker:
        yield worker


# -- what is enqueued --------------------------------------------------------------------------------------


async def test_a_workflow_is_sent_in_one_round_trip(add, server):
    server.calls.clear()
    await chain(add.s(1, 2), group(add.s(n) for n in range(20)), add.si(1, 1)).delay()
    assert server.calls == {"submit": 1}


async def test_only_the_first_step_of_a_chain_is_queued(add, hand):
    result = await (add.s(1, 2) | add.s(3) | add.s(4)).delay()
    first, second, third = workflow_handles(result)
    assert [job.id for job in await hand.take_all()] == [third.id]
    assert [handle.state for handle in (first, second, third)] == ["PENDING"] * 3


async def test_a_chain_returns_the_handle_of_its_last_step_whose_parents_are_the_earlier_steps(add, hand):
    result = await (add.s(1, 2) | add.s(3)).delay()
    assert result.parent is not None
    assert result.as_list() == [result.id, result.parent.id]
    await hand.succeed(result.parent, 3)
    await hand.succeed(result, 6)
    assert (await result, await result.parent) == (6, 3)


async def test_a_group_returns_a_group_of_handles_in_order(add, hand):
    result = await group(add.s(n, n) for n in range(3)).delay()
    assert isinstance(result, GroupResult)
    assert [job.args for job in await hand.take_all()] == [[0, 0], [1, 1], [2, 2]]


async def test_a_chord_starts_its_body_when_the_last_of_its_header_has_ended(add, seen, hand):
    result = await chord([add.s(n, n) for n in range(3)], seen.s()).delay()
    *others, last = await hand.take_all()
    for job in others:
        await job.succeed(1)
    assert await hand.take_all() == []
    await last.succeed(2)
    (body,) = await hand.take_all()
    assert body.id == result.id
    assert isinstance(result.parent, GroupResult)


async def test_the_job_of_a_step_has_the_options_of_the_step(add, hand):
    step = add.s(2).set(task_id="second", ignore_result=False)
    result = await (add.s(1, 2).options(task_id="first") | step).delay()
    assert (result.id, result.parent.id) == ("second", "first")


async def test_a_workflow_with_an_id_that_is_taken_is_refused_as_a_whole(app, add, hand):
    await add.options(task_id="taken").delay(1, 2)
    flow = add.s(1, 2) | add.s(3).set(task_id="taken")
    with pytest.raises(ValueError, match="'taken' exist already"):
        await flow.delay()
    assert [job.id for job in await hand.take_all()] == ["taken"]


# -- what the end of a member does -------------------------------------------------------------------------


async def test_a_failed_step_fails_the_last_step_at_once_with_its_exception(add, hand):
    result = await (add.s(1, 2) | add.s(3) | add.s(4)).delay()
    waiting = asyncio.create_task(result.get(timeout=30))
    await asyncio.sleep(0)
    await (await hand.take()).fail(ValueError("no"))
    with pytest.raises(ValueError, match="no") as caught:
        await waiting
    assert "never ran: it waited for job" in caught.value.__notes__[-1]
    assert await hand.take_all() == []


async def test_without_follow_parents_the_error_names_the_failed_parent(add, hand):
    result = await (add.s(1, 2) | add.s(3)).delay()
    await hand.fail(result.parent, ValueError("no"))
    with pytest.raises(TaskRevoked, match=f"it never ran, because it waited for job {result.parent.id}"):
        await result.get(timeout=30, follow_parents=False)


async def test_a_failed_member_of_a_header_fails_the_body_while_others_run(add, seen, hand):
    result = await (group(add.s(n, n) for n in range(3)) | seen.s()).delay()
    first, _, _ = await hand.take_all()
    await first.fail(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await result.get(timeout=30)


async def test_revoke_of_the_last_step_revokes_every_member(add, hand):
    result = await (add.s(1, 2) | group(add.s(3), add.s(4)) | add.si(1, 1)).delay()
    await result.revoke()
    assert {handle.state for handle in workflow_handles(result)} == {"REVOKED"}
    assert await hand.take_all() == []


async def test_a_link_runs_after_success_with_the_value(app, add, seen, hand):
    result = await add.s(1, 2).link(seen.s("after")).delay()
    await hand.succeed(result, 3)
    follower = await hand.take()
    assert follower.args == ["after"]
    assert follower.delivery.values


async def test_an_error_link_runs_after_a_failure_and_not_after_success(add, seen, hand):
    good = await add.s(1, 2).link_error(seen.s()).delay()
    bad = await add.s(3, 4).link_error(seen.s("bad")).delay()
    await hand.succeed(good, 3)
    await hand.fail(bad, ValueError("no"))
    assert [job.args for job in await hand.take_all()] == [["bad"]]


async def test_an_error_link_of_a_chain_is_called_once_whichever_step_fails(add, seen, hand):
    result = await (add.s(1, 2) | add.s(3) | add.s(4)).link_error(seen.s("bad")).delay()
    await (await hand.take()).succeed(3)
    await (await hand.take()).fail(ValueError("no"))
    assert [job.args for job in await hand.take_all()] == [["bad"]]
    with pytest.raises(ValueError, match="no"):
        await result.get(timeout=30)


# -- with a worker -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 4])
async def test_a_nested_workflow_returns_what_plain_calls_would_return(make_app, shards):
    async with make_app(shards=shards) as app:

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        @app.task
        def total(values: list[int]) -> int:
            return sum(values)

        async with Worker(app):
            steps = chain(add.s(1, 1), group(add.s(1), chain(add.s(2), add.s(3))), total.s(), add.s(100))
            assert await steps.call() == (2 + 1) + (2 + 2 + 3) + 100


async def test_a_chain_passes_each_value_to_the_next_step(worker, add, seen):
    assert await (add.s(1, 2) | seen.s("x") | seen.s()).call() == [[3, "x"]]


async def test_a_task_that_fails_in_a_worker_fails_the_chain(worker, fail, seen):
    with pytest.raises(ValueError, match="no"):
        await (fail.s() | seen.s()).call()


async def test_the_results_of_a_group_can_be_read_in_the_order_of_their_ends(worker, add):
    result = await group(add.s(n, 1) for n in range(5)).delay()
    assert sorted([await each async for each in result.as_completed(timeout=30)]) == [1, 2, 3, 4, 5]


async def test_the_job_tree_of_a_workflow_is_read_from_its_handle(worker, add):
    result = await (add.s(1, 2) | add.s(3)).delay()
    assert await result == 6
    steps = [(above, handle) async for above, handle in result.iterdeps(intermediate=True)]
    assert steps[0] == (None, result)
    assert result.parent.state == "SUCCESS"
