"""Workflows without a server: their signatures, the plan that they become, and how `apply` runs it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.examples import examples
from helpers.inside import be_the_only_app
from hypothesis import given, settings, strategies as st

from asyncq import (
    AsyncQ,
    AsyncResult,
    Chain,
    EagerResult,
    Group,
    GroupResult,
    SerializationError,
    Signature,
    SyncInAsyncContext,
    chain,
    chord,
    group,
    result_from_tuple,
    wire,
)
from asyncq.results.handle import workflow_handles
from asyncq.tasks.planning import Plan

app = AsyncQ("redis://127.0.0.1:1/0", namespace="w")  # no server listens there, and none is needed


@dataclass
class Point:
    x: int


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def seen(*args: Any) -> list[Any]:
    return list(args)


@app.task
def fail(*_args: Any) -> None:
    raise ValueError("no")


@app.task
def shift(point: Point, by: int = 1) -> Point | None:
    return Point(point.x + by)


@app.task
async def sleepy(x: int) -> int:
    return x


NOTED: list[Any] = []


@app.task
def note(*args: Any) -> None:
    NOTED.append(args)


@pytest.fixture(autouse=True)
def _nothing_noted():
    NOTED.clear()


def planned(workflow):
    plan = Plan(workflow.app)
    handle = workflow.plan(plan, None)
    return [job for job, _ in plan.messages()], handle


# -- signatures --


def test_arguments_of_a_partial_call_are_completed_from_the_front():
    assert add.s(2).apply((4,)).get_sync() == 6
    assert seen.s(2).clone((1,)).apply().get_sync() == [1, 2]
    assert add.s(y=2).apply((4,)).get_sync() == 6
    assert add.s(y=2).clone(kwargs={"y": 3}).apply((4,)).get_sync() == 7


@pytest.mark.parametrize(("args", "kwargs"), [((1, 2, 3), {}), ((), {"z": 1}), ((1,), {"x": 1})])
def test_arguments_that_can_never_fit_are_refused_at_once(args, kwargs):
    with pytest.raises(TypeError, match=r"add\(x: 'int', y: 'int'\)"):
        add.s(*args, **kwargs)


def test_an_immutable_signature_must_be_complete_and_accepts_no_more_arguments():
    with pytest.raises(TypeError, match="missing a required argument: 'y'"):
        add.si(1)
    with pytest.raises(TypeError, match="immutable"):
        add.si(1, 2).clone((3,))
    assert (add.si(5, 5) | add.si(1, 1)).apply().get_sync() == 2


@pytest.mark.parametrize(
    "workflow",
    [
        add.s(1) | add.s(1),
        add.si(1, 1) | add.s(1, 2),
        group(add.s(1, 1)) | add.s(),
        add.s(1, 1) | group(add.s(1), add.s()),
        add.s(1, 1).link(add.s()),
        add.s(1, 1).link_error(add.s(1)),
    ],
)
def test_arguments_that_do_not_fit_in_a_plan_are_a_type_error_that_names_the_task(workflow):
    with pytest.raises(TypeError, match=r"test_workflows\.add\("):
        planned(workflow)


def test_signatures_are_equal_if_their_calls_and_options_are_equal():
    assert add.s(1, 2) == add.s(1, 2)
    assert add.s(1, 2) != add.si(1, 2)
    assert add.s(1, 2) != add.s(2, 1)
    assert add.s(1, 2).set(queue="a") != add.s(1, 2)
    assert add.s(1, 2).set(queue="a") == add.options(queue="a").s(1, 2)
    assert (add.s(1, 2) | add.s(3)) == chain(add.s(1, 2), add.s(3))
    assert group(add.s(1, 2)) == group([add.s(1, 2)]) != group()
    assert add.s(1, 2).link(note.s()) != add.s(1, 2)


def test_set_and_link_change_the_signature_and_options_returns_a_new_one():
    call = add.s(1, 2)
    assert call.options(queue="a") != call
    assert call.set(queue="a") is call
    assert call.link(note.s()) is call
    assert call.link(note.s(2)).task.builder.options.links == (note.s(), note.s(2))
    assert call.task.builder.options.queue == "a"


def test_joining_signatures_copies_them():
    first = add.s(1, 2)
    both = first | add.s(3)
    side = group(first)
    first.set(queue="later")
    assert both.steps[0].task.builder.options.queue is None
    assert side.members[0].task.builder.options.queue is None


def test_the_repr_of_a_group_shows_the_first_members_and_the_number_of_the_others():
    few, many = (group(add.s(n, n) for n in range(count)) for count in (6, 10_000))
    assert repr(few).count("add(") == repr(many).count("add(") == 6
    assert repr(many).endswith("add(5, 5), ... 9,994 more)")


@pytest.fixture
def only_app(monkeypatch):
    be_the_only_app(monkeypatch, app)


@pytest.mark.usefixtures("only_app")
def test_signatures_chains_and_groups_are_pickled_as_data():
    whole = (
        add.s(1, 2).set(queue="a", link=note.s(1)) | group(add.si(1, 2), add.s(3)) | seen.s()
    ).link_error(note.s())
    again = pickle.loads(pickle.dumps(whole))
    assert again == whole
    assert repr(again) == repr(whole)
    calls = add.starmap([(1, 2)])
    assert pickle.loads(pickle.dumps(calls)).apply().get_sync() == [3]


# -- joining --


def test_the_or_operator_makes_chains_and_chords():
    a, b, c = seen.s(1), seen.s(2), seen.s(3)
    assert isinstance(a | b, Chain)
    assert (a | b) | c == a | (b | c) == chain(a, b, c) == chain([a, b, c])
    assert isinstance(a | group(b, c), Group)
    assert (a | group(b)) | c == chain(a, group(b), c) == a | (group(b) | c) == a | chord(group(b), c)
    assert group(a) | group(b) == chain(group(a), group(b)) == chord([a], group(b))
    assert chord([a, b], c) == chord([a, b])(c) == group(a, b) | c == chord((s for s in (a, b)), c)
    assert chain(a) == Chain((a,))
    assert chain(group(a)) == group(a)


@pytest.mark.parametrize("bad", [5, add, "add", [5]])
def test_only_workflows_can_be_joined(bad):
    with pytest.raises(TypeError):
        add.s(1, 2) | bad
    with pytest.raises(TypeError, match=r"add\.s\(1, 2\)"):
        group(add.s(1, 2), bad)
    with pytest.raises(TypeError, match=r"add\.s\(1, 2\)"):
        chain(bad)
    with pytest.raises(TypeError, match=r"total\.s\(\)"):
        chord([add.s(1, 2)], bad)
    with pytest.raises(TypeError, match=r"note\.s\(\)"):
        add.options(link=bad)


def test_an_error_callback_must_be_one_call():
    with pytest.raises(TypeError, match="link_error"):
        add.s(1, 2).link_error(note.s() | note.s())


def test_a_chain_must_have_a_step():
    with pytest.raises(ValueError, match="at least one"):
        chain()


def test_options_of_a_workflow_go_to_the_calls_that_they_concern():
    line = (add.s(1, 1) | group(add.s(1), add.s(2)) | seen.s()).set(
        queue="q", countdown=5, task_id="last", ignore_result=True, wait=3
    )
    jobs, _ = planned(line)
    assert [job.queue for job in jobs] == ["q"] * 4
    assert [job.wait for job in jobs] == [5000, None, None, None]
    assert [job.id == "last" for job in jobs] == [False, False, False, True]
    assert [job.ignore_result for job in jobs] == [False, False, False, True]
    assert line._wait == 3

    side = (add.s(1, 1) | group(add.s(1), add.s(2))).set(queue="q", eta=5, ignore_result=True, wait=2)
    jobs, _ = planned(side)
    assert [job.queue for job in jobs] == ["q"] * 3
    assert [job.wait is None for job in jobs] == [False, True, True]
    assert [job.ignore_result for job in jobs] == [False, True, True]
    assert side._wait == 2
    assert [job.wait for job in planned(group(add.s(1, 1), add.s(2, 2)).set(countdown=1))[0]] == [1000, 1000]
    with pytest.raises(ValueError, match="task_id"):
        side.set(task_id="one")


def test_further_arguments_go_to_the_calls_that_start_first():
    assert (add.s(1) | add.s(2)).apply((3,)).get_sync() == 6
    assert group(add.s(1), add.s(2), add.si(7, 7)).apply((3,)).get_sync() == [4, 5, 14]
    assert (add.s(1) | group(add.s(1), add.s(2))).apply((3,)).get_sync() == [5, 6]
    assert (group(add.s(1), add.s(2)) | seen.s()).apply((3,)).get_sync() == [[4, 5]]


# -- plans --


def test_a_planned_job_has_its_parents_its_dependents_and_a_template_for_the_values():
    jobs, handle = planned(group(add.s(1, 1), add.s(2, 2) | add.s(1)) | seen.s("x"))
    one, two, three, last = jobs
    assert (one.parents, one.value_template, one.dependents) == ((), None, (last.id,))
    assert (two.parents, two.dependents) == ((), (three.id,))
    assert (three.parents, three.value_template, three.dependents) == ((two.id,), 0, (last.id,))
    assert (last.parents, last.value_template, last.dependents) == ((one.id, three.id), [0, 1], ())
    assert handle.id == last.id
    assert isinstance(handle.parent, GroupResult)
    assert [member.id for member in handle.parent] == [one.id, three.id]
    assert handle.parent[1].parent.id == two.id
    assert handle.as_list() == [last.id, one.id, three.id, two.id]


def test_the_description_of_a_chain_of_groups_grows_with_the_sum_of_their_sizes():
    whole = chain([group(seen.s() for _ in range(4)) for _ in range(30)])
    jobs, handle = planned(whole)
    assert len(jobs) == 120
    assert len(repr(handle.as_tuple())) < 10_000
    assert handle.parent.parent is not None
    assert [member.parent for member in handle] == [None] * 4


def test_one_job_is_planned_between_two_large_groups():
    many = group(seen.s(n).set(queue="fast", priority=4) for n in range(101))
    jobs, handle = planned(many | group(seen.s(), *[add.si(1, 1)] * 100))
    assert len(jobs) == 101 + 1 + 101
    assert (jobs[101].queue, jobs[101].priority) == ("fast", 4), "it does not wait behind what it belongs to"
    assert sum(len(job.parents) for job in jobs) == 101 + 101
    assert len(handle.parent) == 101
    assert handle[0].parent is None
    assert len(planned(group(seen.s(n) for n in range(100)) | group([seen.s()] * 100))[0]) == 200
    whole = group(seen.s(n) for n in range(101)) | group([seen.s("x")] * 101)
    assert whole.apply().get_sync() == [[[[n] for n in range(101)], "x"]] * 101


def test_an_immutable_step_waits_and_gets_no_value():
    (first, second), _ = planned(add.s(1, 1) | add.si(2, 2))
    assert (second.parents, second.value_template) == ((first.id,), None)


def test_a_step_after_an_empty_group_waits_for_the_step_before_the_group():
    (first, last), handle = planned(add.s(1, 1) | group([]) | seen.s())
    assert last.parents == (first.id,)
    assert handle.parent.parent.id == first.id
    (a, b, last), _ = planned(group(chain(add.s(1, 1), group([])), add.s(2, 2)) | seen.s())
    assert (last.parents, last.value_template) == ((a.id, b.id), [[], 1])
    (only,), _ = planned(
        group(
            [],
        )
        | seen.s()
    )
    assert only.parents == ()


def test_callbacks_wait_for_their_call():
    call = add.s(1, 1).link(seen.s()).link_error(note.s("late"))
    plan = Plan(app)
    call.plan(plan, None)
    (first, message), (callback, _), (error, _) = plan.messages()
    assert (callback.parents, callback.value_template, callback.on_error) == ((first.id,), 0, False)
    assert (error.parents, error.value_template, error.on_error) == ((first.id,), "e", True)
    assert first.dependents == (callback.id, error.id)
    assert wire.decode_job(first.id, "default", message).dependents == [callback.id]


def test_a_link_of_a_group_follows_the_whole_group_and_an_error_link_each_member():
    jobs, _ = planned(group(add.s(1, 1), add.s(2, 2)).link(seen.s()).link_error(note.s()))
    after = [
        (job.name.rpartition(".")[2], len(job.parents), job.value_template) for job in jobs if job.parents
    ]
    assert sorted(after) == sorted([("note", 1, "e"), ("note", 1, "e"), ("seen", 2, [0, 1])])


def test_a_workflow_of_more_than_ten_thousand_jobs_is_refused():
    call = add.si(1, 1)
    assert len(planned(group(call for _ in range(10_000)))[0]) == 10_000
    with pytest.raises(ValueError, match="10,000"):
        planned(group(call for _ in range(10_001)))


def test_planning_a_long_chain_needs_no_deep_recursion():
    assert len(planned(chain([add.si(1, 1)] * 3000))[0]) == 3000


def test_tasks_of_two_apps_cannot_be_in_one_workflow():
    other = AsyncQ("redis://127.0.0.1:1/0", namespace="other").task(name="other")(lambda x: x)
    with pytest.raises(ValueError, match="belongs to"):
        planned(add.s(1, 1) | other.s())


def test_a_workflow_cannot_have_an_id_twice_or_a_key():
    call = add.options(task_id="mine").si(1, 1)
    with pytest.raises(ValueError, match="mine"):
        planned(call | call)
    with pytest.raises(ValueError, match="key='k'"):
        planned(add.options(key="k").s(1, 1) | add.s(1))
    with pytest.raises(ValueError, match="key='k'"):
        planned(add.s(1, 1) | add.options(key="k").s(1))
    assert len(planned(add.options(key="k").s(1, 1))[0]) == 1


def test_the_last_job_of_a_replacement_has_the_identity_of_the_replaced_job():
    old = wire.Job(
        *("old", "n", "q", b"", "request", "channel", 7, 60_000),
        ignore_result=True,
        parent_id="above",
        root_id="top",
        dependents=["after"],
        ancestors=["higher"],
    )
    for workflow in (
        add.s(1, 1) | add.s(1),
        group(add.s(1, 1), add.s(2, 2)),
        (add.s(1, 1) | add.s(1)).link(seen.s()),
        group([]),
    ):
        jobs = [job for job, _ in workflow.in_place_of(app, old)]
        *others, last = jobs
        assert (last.id, last.request_id, last.channel, last.result_ttl, last.enqueued) == (
            *("old", "request", "channel", 60_000, 7),
        )
        assert (last.dependents, last.ignore_result) == (("after",), True)
        assert {(job.parent_id, job.root_id, *(job.ancestors or ())) for job in jobs} == {
            ("above", "top", "higher")
        }
        assert "old" not in {job.id for job in others}
        for job in others:
            assert set(job.dependents) == {child.id for child in jobs if job.id in child.parents}
    with pytest.raises(ValueError, match="key='k'"):
        add.options(key="k").s(1, 1).in_place_of(app, old)


# -- apply --


@st.composite
def workflows(draw: st.DrawFn, depth: int = 4) -> tuple[Any, Any]:
    """Draws a workflow, and the function that gives its value from the argument in front."""
    kind = draw(st.sampled_from(["call", "fixed"] if depth == 0 else ["call", "fixed", "chain", "group"]))
    number = draw(st.integers(0, 9))
    if kind == "call":
        return seen.s(number), lambda front: [*front, number]
    if kind == "fixed":
        return seen.si(number), lambda _: [number]
    parts = draw(st.lists(workflows(depth=depth - 1), min_size=kind == "chain", max_size=3))
    if kind == "group":
        return group(part for part, _ in parts), lambda front: [value(front) for _, value in parts]

    def one_after_the_other(front: list[Any]) -> Any:
        for _, value in parts:
            front = [value(front)]
        return front[0]

    return chain([part for part, _ in parts]), one_after_the_other


def template_is_right(job: wire.Job) -> bool:
    indexes: list[int] = []

    def walk(template: Any) -> None:
        if isinstance(template, list):
            for part in template:
                walk(part)
        elif template is not None:
            indexes.append(template)

    walk(job.value_template)
    return len(set(indexes)) == len(indexes) and set(indexes) <= set(range(len(job.parents)))


@settings(max_examples=examples(150), deadline=None)
@given(workflows())
def test_any_nested_workflow_is_planned_parents_first_and_returns_what_plain_calls_return(drawn):
    workflow, value = drawn
    jobs, handle = planned(workflow)
    known: set[str] = set()
    for job in jobs:
        assert set(job.parents) <= known, "a child comes before one of its parents"
        assert template_is_right(job)
        known.add(job.id)
    children = {parent: [job.id for job in jobs if parent in job.parents] for parent in known}
    assert {job.id: list(job.dependents) for job in jobs} == children
    result = workflow.apply()
    assert result.get_sync() == value([])
    assert isinstance(result, GroupResult if isinstance(handle, GroupResult) else EagerResult)


def test_apply_keeps_the_parents_and_an_empty_group_is_a_group():
    result = (add.s(1, 1) | group(add.s(1), add.s(2)) | seen.s() | seen.s(0)).apply()
    assert result.get_sync() == [[[3, 4]], 0]
    assert result.parent.get_sync() == [[3, 4]]
    assert result.parent.parent.get_sync() == [3, 4]
    assert result.parent.parent.parent.get_sync() == 2
    assert (result.args, result.parent.parent.parent.args) == ((0,), (1, 1)), "its own, as on any handle"
    assert group([]).apply().get_sync() == []
    assert chord([], seen.s()).apply().get_sync() == [[]]
    result.forget_sync()
    assert result.parent.parent.parent.exists_sync() is False


def test_a_failure_reaches_the_last_step_with_a_note_that_names_the_failed_job():
    result = (add.s(1, 1) | fail.s() | seen.s() | seen.s()).apply()
    with pytest.raises(ValueError, match="no") as caught:
        result.get_sync()
    member = result.parent.parent
    assert caught.value.__notes__ == [
        f"job {result.id} never ran: it waited for job {member.id} ({fail.name})"
    ]
    assert result.outcome_sync().member == member.id
    with pytest.raises(ValueError, match="no"):
        (fail.s() | seen.s()).apply(throw=True)


def test_apply_calls_the_callbacks():
    assert add.apply((1, 2), link=note.s("well")).get_sync() == 3
    assert fail.apply(link=note.s("well"), link_error=[note.s("badly"), note.si("so")]).failed_sync()
    assert (fail.s() | seen.s()).link_error(note.s("last")).apply().failed_sync()
    well, (id_, error, text, badly), (so,), (_, last_error, *_, last) = NOTED
    assert well == (3, "well")
    assert (type(id_), repr(error), badly, so, last) == (str, "ValueError('no')", "badly", "so", "last")
    assert "ValueError: no" in text
    assert repr(last_error) == "ValueError('no')"


@pytest.mark.anyio
async def test_apply_of_a_coroutine_function_is_refused_while_a_loop_runs():
    with pytest.raises(SyncInAsyncContext):
        (add.s(1, 1) | sleepy.s()).apply()


# -- many calls in one job --


def test_starmap_makes_all_calls_in_one_job_and_keeps_their_types():
    assert add.starmap([(1, 2), (3, 4)]).apply().get_sync() == [3, 7]
    assert sleepy.xmap(range(3)).apply().get_sync() == [0, 1, 2]
    assert shift.starmap([(Point(1),), (Point(2), 5)]).apply().get_sync() == [Point(2), Point(7)]
    assert (shift.s(Point(1)) | shift.s(5)).apply().get_sync() == Point(7)
    assert (add.s(1, 1) | add.starmap([(1, 2)])).apply().get_sync() == [3], "it is complete"
    assert add.starmap([]).apply().get_sync() == []
    with pytest.raises(TypeError, match="missing a required argument: 'y'"):
        add.starmap([(1, 2), (3,)])
    with pytest.raises(SerializationError, match=r"args\[0\]\[1\]\[0\]"):
        seen.starmap([(1,), (object(),)]).apply()


def test_chunks_are_a_group_of_starmaps():
    parts = add.chunks(((n, n) for n in range(5)), 2)
    assert [len(part.args[0]) for part in parts.members] == [2, 2, 1]
    assert parts.apply().get_sync() == [[0, 2], [4, 6], [8]]
    assert add.options(queue="q").chunks([(1, 1)], 5).members[0].task.builder.resolved.queue == "q"
    with pytest.raises(ValueError, match="n=0"):
        add.chunks([(1, 1)], 0)


def test_a_batch_task_is_found_by_name_and_is_not_listed():
    assert app.tasks[f"{add.name}*"] is add.batch_task()
    assert f"{add.name}*" not in app.tasks
    with pytest.raises(KeyError):
        app.tasks["unknown*"]
    assert isinstance(add.starmap([]), Signature)


# -- long chains -----------------------------------------------------------------------------------

LONG = 5000


@pytest.fixture(scope="module")
def line():
    return chain(seen.si(0), *(seen.si(n) for n in range(1, LONG)))


@pytest.mark.usefixtures("only_app")
def test_a_chain_of_thousands_of_steps_can_be_pickled_and_compared(line):
    assert pickle.loads(pickle.dumps(line)).clone() == line
    assert len(line.steps) == LONG
    assert repr(line).endswith(f"| ... {LONG - 6:,} more)")


@pytest.mark.usefixtures("only_app")
def test_the_handle_of_a_long_chain_knows_all_its_steps_also_after_pickling(line):
    plan = Plan(app)
    handle = line.plan(plan, None)
    before = GroupResult("g", [handle], handle, app)
    for one in (handle, before):
        same = pickle.loads(pickle.dumps(one))
        assert (type(same), same == one, [x.id for x in workflow_handles(same)]) == (
            type(one),
            True,
            [x.id for x in workflow_handles(one)],
        )
        rebuilt = result_from_tuple(one.as_tuple(), app)
        assert [x.id for x in workflow_handles(rebuilt)] == [x.id for x in workflow_handles(one)]
    assert handle.as_list() == [planned.job.id for planned in reversed(plan.jobs)]
    assert len(pickle.dumps(before)) < len(pickle.dumps(handle)) + 100, (
        "a handle that is the parent of many is pickled once"
    )


def test_apply_runs_a_long_chain(line):
    result = line.apply()
    assert (result.get_sync(), len(result.as_list())) == ([LONG - 1], LONG)


@pytest.mark.usefixtures("only_app")
def test_groups_in_a_long_chain_can_be_compared():
    def groups(last: str) -> GroupResult[Any]:
        above = GroupResult(last, [AsyncResult("x", app)], None, app)
        for n in range(LONG):
            above = GroupResult(str(n), [AsyncResult("x", app)], above, app)
        return above

    assert groups("a") == groups("a") != groups("b")
    assert pickle.loads(pickle.dumps(groups("a"))) == groups("a")


def test_a_handle_that_is_its_own_ancestor_is_refused():
    first, second = AsyncResult("first", app), AsyncResult("second", app)
    first.parent, second.parent = second, first
    with pytest.raises(ValueError, match="after itself"):
        first.as_tuple()
