"""How workflows end: empty groups, what a revocation reaches, and which callbacks a failure calls."""

from __future__ import annotations

import asyncio
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import until

from asyncq import TaskExpired, Worker, chain, chord, group
from asyncq.results.handle import workflow_handles

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq import AsyncQ
    from asyncq.tasks.workflow import Workflow

pytestmark = pytest.mark.anyio


class Tasks:
    """The tasks of these tests, and the arguments of the callbacks."""

    def __init__(self, app: AsyncQ) -> None:
        self.received: list[Any] = []
        self.gate = asyncio.Event()

        @app.task
        async def give(*args: Any) -> Any:
            return args[-1]

        @app.task
        async def fail(*_args: Any) -> None:
            raise ValueError("no")

        @app.task
        async def hold(*_args: Any) -> None:
            await self.gate.wait()

        @app.task
        async def note(value: Any) -> None:
            self.received.append(value)

        @app.task
        async def alarm(_id: str, error: Exception, _traceback: str, name: str) -> None:
            self.received.append(f"{name}: {error}")

        self.give, self.fail, self.hold, self.note, self.alarm = give, fail, hold, note, alarm


@pytest.fixture
def tasks(app: AsyncQ) -> Tasks:
    return Tasks(app)


# -- groups without members --------------------------------------------------------------------------------

EMPTY: dict[str, Callable[[Workflow[Any]], Workflow[Any]]] = {
    "a group": lambda first: first | group([]),
    "groups inside": lambda first: first | group(group([]), group([])),
    "a group inside": lambda first: group(first | group([]), group([])),
    "two groups": lambda first: first | group([]) | group([]),
    "a chord": lambda first: chord([first], group([])),
    "after a group inside": lambda first: group(group(first) | group([])) | group([]),
}


@pytest.mark.parametrize("name", EMPTY)
async def test_an_empty_group_waits_and_fails_as_a_group_with_members_does(app, tasks, name):
    make = EMPTY[name]
    good = await make(tasks.hold.s()).delay()
    bad = await make(tasks.fail.s()).delay()
    called: list[str] = []
    good.then(lambda _: called.append("good"), lambda _: called.append("good, but failed"))
    bad.then(lambda _: called.append("bad, but succeeded"), lambda _: called.append("bad"))
    async with Worker(app):
        assert [await good.ready(), await good.successful(), await good.waiting()] == [False, False, True]
        with pytest.raises(TimeoutError):
            await good.get(timeout=0.01)
        with pytest.raises(ValueError, match="no"):
            await bad.get(timeout=30)
        assert [await bad.ready(), await bad.successful(), await bad.failed()] == [True, False, True]
        with pytest.raises(ValueError, match="no"):
            await bad.maybe_throw()
        assert await bad.completed_count() == 0
        tasks.gate.set()
        empty = await good.get(timeout=30)
        assert empty == await bad.get(timeout=30, propagate=False)
        eager = await asyncio.to_thread(make(tasks.give.s(1)).apply)
        assert await eager.get() == empty
        with pytest.raises(ValueError, match="no"):
            await asyncio.to_thread(make(tasks.fail.s(1)).apply, throw=True)
        assert [await good.ready(), await good.successful(), await good.failed()] == [True, True, False]
        notified: list[Any] = []
        await good.maybe_throw(callback=lambda *received: notified.append(received))
        assert notified == []
        await until(lambda: len(called) == 2, "both callbacks")
    assert sorted(called) == ["bad", "good"]


async def test_the_callback_of_an_empty_group_gets_an_empty_list(app, tasks):
    async with Worker(app):
        assert await group([]).link(tasks.note.s()).call() == []
        assert await (await app.submit([group([]).link(tasks.note.s())])).get(timeout=30) == [[]]
        assert await (tasks.give.s(1) | group([]).link(tasks.note.s())).call() == []
        await until(lambda: tasks.received == [[]] * 3, "each callback to be called")
        await (tasks.fail.s(1) | group([]).link(tasks.note.s())).options(wait=30).delay()
        with pytest.raises(ValueError, match="no"):
            await (tasks.fail.s(1) | group([]).link(tasks.note.s())).call()
    assert tasks.received == [[]] * 3


@pytest.mark.parametrize("count", [1, 3])
async def test_arguments_go_to_each_member_whatever_their_number(app, tasks, count):
    members = [tasks.give.s(1), tasks.give.si(2), tasks.give.si(3) | tasks.give.s()]
    async with Worker(app):
        for one, value in zip(members, (1, 2, 3), strict=True):
            assert await group([one] * count).call(5) == [value] * count
        assert await group([tasks.give.s()] * count).call(5) == [5] * count


# -- what a revocation reaches -----------------------------------------------------------------------------

NESTED: dict[str, Callable[[Callable[[str], Any]], Workflow[Any]]] = {
    "a | group(b, c)": lambda s: s("a") | group(s("b"), s("c")),
    "group(a | group(b, c), d)": lambda s: group(s("a") | group(s("b"), s("c")), s("d")),
    "group(a | group(b, group(c)), d)": lambda s: group(s("a") | group(s("b"), group(s("c"))), s("d")),
    "group(group(a | group(b)), d)": lambda s: group(group(s("a") | group(s("b"))), s("d")),
    "group(a | group(), d)": lambda s: group(s("a") | group([]), s("d")),
    "group(a | group(b, c), d) | e": lambda s: group(s("a") | group(s("b"), s("c")), s("d")) | s("e"),
}


@pytest.mark.parametrize("name", NESTED)
async def test_revoke_and_forget_reach_the_jobs_before_nested_groups(app, tasks, hand, name):
    whole = NESTED[name](tasks.give.si)
    result = await whole.delay()
    handles = list(workflow_handles(result))
    assert len(handles) == len({*name} & {*"abcde"})
    states = await result.revoke()
    assert len(states if isinstance(states, list) else [states]) <= len(handles)
    assert [await handle.refresh() for handle in handles] == ["REVOKED"] * len(handles)
    assert await hand.take_all() == []
    await result.forget()
    assert [await app.AsyncResult(handle.id).exists() for handle in handles] == [False] * len(handles)


# -- which callbacks a failure calls -----------------------------------------------------------------------


def _workflows(t: Tasks) -> dict[str, tuple[Workflow[Any], list[str]]]:
    """Workflows with error callbacks in every position, and the callbacks that must be called."""
    good, bad = t.give.s, t.fail.s

    def with_own(step: Any, name: str) -> Any:
        return step.link_error(t.alarm.s(name))

    return {
        "a call": (with_own(bad(), "own"), ["own"]),
        "a call that does not fail": (with_own(good(1), "own"), []),
        "its own and those of later steps": (
            chain(with_own(bad(), "1"), with_own(good(1), "2"), with_own(good(1), "3")),
            ["1"],
        ),
        "a chain": (
            chain(with_own(good(1), "1"), with_own(bad(), "2"), with_own(good(1), "3")).link_error(
                t.alarm.s("line")
            ),
            ["2", "line"],
        ),
        "a chain, by options": ((bad() | good(1)).options(link_error=t.alarm.s("line")), ["line"]),
        "a chain in a longer one": (
            good(1) | (good(1) | bad()).link_error(t.alarm.s("inner")) | good(1),
            ["inner"],
        ),
        "a chain after the failure": (
            bad() | (good(1) | good(1)).link_error(t.alarm.s("inner")) | good(1),
            [],
        ),
        "a chain before the failure": (
            (good(1) | good(1)).link_error(t.alarm.s("inner")) | bad(),
            [],
        ),
        "chains inside each other": (
            ((bad() | good(1)).link_error(t.alarm.s("inner")) | good(1)).link_error(t.alarm.s("outer")),
            ["inner", "outer"],
        ),
        "members that never ran": (bad() | group(with_own(good(1), "member") for _ in range(3)), []),
        "a step before a group": (
            (bad() | group(good(1), good(1), good(1))).link_error(t.alarm.s("all")),
            ["all"],
        ),
        "a step before a group, by options": (
            (good(1) | bad() | group(good(1), good(1))).options(link_error=t.alarm.s("all")),
            ["all"],
        ),
        "each member that fails": (
            (good(1) | group(bad(), good(1), bad())).link_error(t.alarm.s("all")),
            ["all", "all"],
        ),
        "a member that is a chain": (
            group(bad() | good(1) | good(1), good(1)).link_error(t.alarm.s("all")),
            ["all"],
        ),
        "a member that is a group": (
            group(bad() | group(good(1), good(1)), good(1)).link_error(t.alarm.s("all")),
            ["all"],
        ),
        "a group in a chain": (
            (group(bad(), bad(), good(1)) | good(1)).link_error(t.alarm.s("line")),
            ["line"],
        ),
        "a callback that fails": (
            (good(1) | good(1).link(bad())).link_error(t.alarm.s("line")),
            [],
        ),
        "a chain whose callback is one": (
            good(1).link((bad() | good(1)).link_error(t.alarm.s("callback"))).link_error(t.alarm.s("own")),
            ["callback"],
        ),
    }


def _called(received: list[str]) -> list[str]:
    return sorted(one.removesuffix(": no") for one in received)


async def test_a_failure_calls_the_error_callbacks_of_its_step_and_of_the_workflows_around_it_once(
    app, tasks
):
    workflows = _workflows(tasks)
    async with Worker(app):
        for name, (whole, called) in workflows.items():
            tasks.received.clear()
            results = await whole.delay()
            await until(lambda: nothing_waits(app), f"the end of {name!r}")
            assert _called(tasks.received) == called, name
            del results


async def test_the_same_callbacks_are_called_without_a_server(tasks):
    for name, (whole, called) in _workflows(tasks).items():
        tasks.received.clear()
        await asyncio.to_thread(whole.apply)
        assert _called(tasks.received) == called, name


async def nothing_waits(app: AsyncQ) -> bool:
    """Whether no job is left: in the queue, with a worker, or waiting for others."""
    broker = app.sessions.current().broker
    keys = broker.shards[0]
    entries = await broker.commands.send(keys, "XLEN", keys.stream("default"))
    return not entries


async def test_a_job_that_was_revoked_or_expired_calls_no_error_callback(app, tasks):
    revoked = await tasks.give.s(1).link_error(tasks.alarm.s("revoked")).delay()
    expired = await tasks.give.options(link_error=tasks.alarm.s("expired"), expires=0.01).delay(1)
    whole = (
        await (tasks.give.s(1) | tasks.give.s(2).link_error(tasks.alarm.s("step")))
        .link_error(tasks.alarm.s("line"))
        .delay()
    )
    await revoked.revoke(reason="the user has closed the page")
    await whole.revoke()
    with pytest.raises(TaskExpired):
        await expired.get(timeout=30)
    async with Worker(app):
        assert await tasks.give.s(1).call() == 1
        await until(lambda: nothing_waits(app), "the queue to be empty")
    assert tasks.received == []
    assert [handle.state for handle in (revoked, expired, whole)] == ["REVOKED"] * 3


async def test_a_failure_calls_the_callback_of_its_chain_though_the_last_step_was_revoked(app, tasks):
    """The last step was revoked before the first one failed."""
    result = await (tasks.fail.s() | tasks.give.s(1)).link_error(tasks.alarm.s("line")).delay()
    await app.AsyncResult(result.id).revoke()
    async with Worker(app):
        await until(lambda: tasks.received, "the callback")
    assert tasks.received == ["line: no"]


async def test_new_error_callbacks_replace_the_earlier_ones(tasks):
    whole = (tasks.fail.s() | tasks.give.s(1)).link_error(tasks.alarm.s("old"))
    await asyncio.to_thread(whole.options(link_error=[tasks.alarm.s("new"), tasks.alarm.s("other")]).apply)
    assert _called(tasks.received) == ["new", "other"]
    with pytest.raises(TypeError, match="link_error"):
        whole.link_error(tasks.note.s() | tasks.note.s())


# -- groups that are too deep ------------------------------------------------------------------------------


async def test_a_group_that_is_nested_deeper_than_a_value_may_be_is_refused_at_the_call(app, tasks):
    def nested(depth: int) -> Workflow[Any]:
        return reduce(lambda inner, _: group(inner), range(depth), tasks.give.s(1))

    async with Worker(app):
        deep = await (nested(64) | tasks.give.s()).call()
        for _ in range(64):
            [deep] = deep
        assert deep == 1
        for whole in (nested(65), nested(65) | tasks.give.s(), tasks.give.s(1) | nested(65)):
            with pytest.raises(ValueError, match="64 deep"):
                await whole.delay()
            with pytest.raises(ValueError, match="64 deep"):
                await app.submit([whole])
            with pytest.raises(ValueError, match="64 deep"):
                await asyncio.to_thread(whole.apply)
        flat = reduce(lambda inner, _: group(inner) | tasks.give.s(1), range(70), tasks.give.s(1))
        assert await flat.call() == 1
