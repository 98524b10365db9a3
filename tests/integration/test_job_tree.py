"""From a job to all jobs that came from it: iterdeps, collect, get_leaf, graphs;
and their blocking variants.
"""

from __future__ import annotations

import asyncio
import re

import pytest
from helpers.stopwatch import Stopwatch
from helpers.waiting import until_state

from asyncq import (
    DependencyGraph,
    IncompleteStream,
    ResultNotFound,
    ResultTimeout,
    SyncInAsyncContext,
    Worker,
    WouldDeadlock,
    group,
    wire,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def tree(app):
    """A job that starts other jobs: `[[], [[]]]` has two children, and one of these has a child."""

    @app.task(name="tree")
    async def tree(name: str, below: list) -> str:
        for number, one in enumerate(below):
            await tree.delay(f"{name}{number}", one)
        return name

    return tree


@pytest.fixture
def add(app):
    @app.task(name="add")
    async def add(*numbers: int) -> int:
        return sum(numbers)

    return add


@pytest.fixture
def total(app):
    @app.task(name="total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    return total


FAMILY = [[[], []], [], [[[]]]]
NAMES = ["r", "r0", "r1", "r2", "r00", "r01", "r20", "r200"]


async def grown(app, tree, below=FAMILY):
    """Runs a job and all jobs that it starts. Returns a new handle of the first job,
    which knows only the id.
    """
    async with Worker(app):
        result = await tree.delay("r", below)
        async for _ in result.collect(timeout=120):  # there may be 700
            pass
    return app.AsyncResult(result.id)


async def test_collect_waits_level_by_level_for_all_jobs_in_the_job_tree(app, tree):
    async with Worker(app):
        result = await tree.delay("r", FAMILY)
        seen = [(job.id, value) async for job, value in result.collect(timeout=30)]
    assert [value for _, value in seen] == NAMES
    assert seen[0][0] == result.id
    assert len(dict(seen)) == len(NAMES)


async def test_the_job_tree_is_found_from_an_id_alone_in_any_process(make_app, app, tree):
    root = await grown(app, tree)
    async with make_app() as other:
        values = [value async for _, value in other.AsyncResult(root.id).collect()]
    assert values == NAMES


async def test_iterdeps_gives_each_job_with_its_parent(app, tree):
    root = await grown(app, tree)
    steps = [(parent, await node.get()) async for parent, node in root.iterdeps()]
    names = {job: value async for job, value in root.collect()}
    assert [(names.get(parent), value) for parent, value in steps] == [
        (None, "r"),
        ("r", "r0"),
        ("r", "r1"),
        ("r", "r2"),
        ("r0", "r00"),
        ("r0", "r01"),
        ("r2", "r20"),
        ("r20", "r200"),
    ]


async def test_the_job_tree_of_a_job_that_has_not_ended_is_incomplete(app, tree):
    result = await tree.delay("r", FAMILY)
    pairs = result.iterdeps()
    assert await anext(pairs) == (None, result)
    with pytest.raises(IncompleteStream, match=rf"{result.id} is PENDING.*intermediate=True"):
        await anext(pairs)
    assert [step async for step in result.iterdeps(intermediate=True)] == [(None, result)]
    with pytest.raises(IncompleteStream):
        await result.build_graph()
    with pytest.raises(IncompleteStream, match="does not exist"):
        await app.AsyncResult("nobody").build_graph()
    await result.revoke()


async def test_the_known_part_of_an_incomplete_job_tree_is_given_on_request(app, tree):
    @app.task(name="start")
    async def start() -> list[str]:
        return [(await tree.options(queue=queue).delay("r", [])).id for queue in ("nobody", "default")]

    async with Worker(app):
        result = await start.delay()
        ids = await result.get(timeout=30)
        await app.AsyncResult(ids[1]).get(timeout=30)
        given = [node.id async for _, node in result.iterdeps(intermediate=True)]
        assert given == [result.id, *ids]
        with pytest.raises(IncompleteStream, match=ids[0]):
            [step async for step in result.iterdeps()]
    await app.AsyncResult(ids[0]).revoke()


async def test_a_caller_of_iterdeps_may_wait_for_a_job_before_it_goes_on(app, tree):
    async with Worker(app):
        result = await tree.delay("r", FAMILY)
        assert [await node.get(timeout=30) async for _, node in result.iterdeps()] == NAMES


async def test_members_of_a_workflow_are_in_the_job_tree_of_its_first_job(app, add, total):
    async with Worker(app):
        last = await (add.si(1, 2) | group(add.s(10), add.s(20)) | total.s() | add.s(100)).delay()
        assert await last.get(timeout=30) == 136
        first = app.AsyncResult(last.parent.parent.parent.id)
        assert [value async for _, value in first.collect(timeout=30)] == [3, 13, 23, 36, 136]
        assert await first.get_leaf(timeout=30) == 136
        steps = [(parent, node) async for parent, node in first.iterdeps()]
        assert len(steps) == 6, (
            "the chord's body is reached from both members, and its children are visited once"
        )
        graph = await first.build_graph()
    assert (len(graph), len(graph.edges)) == (5, 5)
    assert graph.children(last.parent) == [last]


async def test_each_job_of_a_wide_and_deep_workflow_is_visited_once_and_not_once_for_each_path(app, total):
    layers = [group(total.si([n]) for n in range(6)) for _ in range(8)]
    flow = layers[0]
    for layer in layers[1:]:
        flow |= layer
    async with Worker(app):
        result = await flow.delay()
        await result.get(timeout=30)
        first = result
        while first.parent is not None:
            first = first.parent
        head = app.AsyncResult(first.results[0].id)
        count = sum([1 async for _ in head.collect(timeout=30)])
    assert count == 1 + 7 * 6


async def test_a_failure_in_a_job_tree_is_raised_or_given_as_a_value(app):
    @app.task(name="fail")
    async def fail() -> None:
        raise ValueError("below")

    @app.task(name="parent")
    async def parent() -> str:
        await fail.delay()
        return "above"

    async with Worker(app):
        result = await parent.delay()
        pairs = result.collect(timeout=30)
        assert (await anext(pairs))[1] == "above"
        with pytest.raises(ValueError, match="below"):
            await anext(pairs)
        with pytest.raises(ValueError, match="below"):
            await result.get_leaf(timeout=30)
        values = [value async for _, value in result.collect(timeout=30, propagate=False)]
    assert values[0] == "above"
    assert isinstance(values[1], ValueError)


async def test_one_timeout_applies_to_the_whole_collection(app, tree):
    @app.task(name="parent")
    async def parent() -> str:
        return (await tree.options(queue="nobody").delay("r", [])).id

    async with Worker(app):
        result = await parent.delay()
        await result.get(timeout=30)
        stopwatch = Stopwatch()
        pairs = result.collect(timeout=0.6)
        _, child = await anext(pairs)
        await asyncio.sleep(0.4)
        with pytest.raises(ResultTimeout):
            await anext(pairs)
        assert 0.55 < stopwatch.took < 0.9
        with pytest.raises(ResultTimeout):
            await result.get_leaf(timeout=0.05)
    await app.AsyncResult(child).revoke()


async def test_a_result_that_is_not_kept_ends_the_collection_at_once(app, tree):
    @app.task(name="parent")
    async def parent() -> str:
        await tree.options(ignore_result=True).delay("r", [])
        return "above"

    async with Worker(app):
        result = await parent.delay()
        with pytest.raises(ResultNotFound):
            async with asyncio.timeout(3):
                await result.get_leaf()


async def test_a_job_without_children_is_its_own_leaf(app, add):
    async with Worker(app):
        result = await add.delay(1, 2)
        assert await result.get_leaf(timeout=30) == 3
        assert len(await result.build_graph()) == 1


async def test_inside_a_task_collect_counts_as_a_wait_and_iterdeps_does_not(app, add):
    @app.task(name="nosy")
    async def nosy(id_: str) -> tuple[int, str]:
        other = app.AsyncResult(id_)
        count = len(await other.build_graph())
        try:
            await other.get_leaf()
        except WouldDeadlock as error:
            return count, type(error).__name__
        return count, ""

    async with Worker(app):
        result = await add.delay(1)
        await result.get(timeout=30)
        assert await nosy.call(result.id) == (1, "WouldDeadlock")


async def test_a_large_job_tree_is_queried_in_few_commands(app, tree, raw):
    root = await grown(app, tree, [[]] * 700)
    before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    graph = await root.build_graph()
    calls = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
    assert len(graph) == 701
    assert calls <= 5


async def test_collecting_a_large_running_job_tree_queries_each_job_once(app, tree, raw):
    @app.task(name="start")
    async def start() -> None:
        await tree.options(queue="nobody").map([("r", [])] * 600)

    async with Worker(app):
        result = await start.delay()
        await result.get(timeout=30)
    # Without the worker, whose heartbeats count, too.
    before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    graph = await app.AsyncResult(result.id).build_graph(intermediate=True)
    assert sorted(str(node.state) for node in graph) == ["PENDING"] * 600 + ["SUCCESS"]
    assert (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before <= 6
    await app.ResultSet(result.children).revoke()


# -- graphs ----------------------------------------------------------------------------------------


async def test_a_graph_contains_its_jobs_and_the_children_of_each(app, tree):
    root = await grown(app, tree)
    with pytest.raises(IncompleteStream, match="build_graph"):
        _ = root.graph
    graph = await root.build_graph()
    assert root.graph is graph
    assert isinstance(graph, DependencyGraph)
    assert (graph.root, len(graph), len(graph.edges), list(graph)) == (root, 8, 7, graph.nodes)
    values = {node: node.result for node in graph}
    assert [values[node] for node in graph.children(root)] == ["r0", "r1", "r2"]
    assert root in graph
    assert "nobody" not in graph
    with pytest.raises(KeyError):
        graph.children("nobody")
    assert repr(graph) == f"<DependencyGraph of 8 jobs below {root.id}>"


async def test_a_graph_can_be_drawn_in_dot(app, tree):
    root = await grown(app, tree, [[]])
    graph = await root.build_graph()
    child = graph.children(root)[0]
    assert graph.to_dot() == (
        f'digraph "{root.id}" {{\n'
        '    node [shape=box style="rounded,filled" fontname="sans-serif"];\n'
        f'    "{root.id}" [label="tree\\n{root.id}\\nSUCCESS" fillcolor="#c8e6c9"];\n'
        f'    "{child.id}" [label="tree\\n{child.id}\\nSUCCESS" fillcolor="#c8e6c9"];\n'
        f'    "{root.id}" -> "{child.id}";\n'
        "}\n"
    )


async def test_a_graph_can_be_drawn_in_mermaid(app, tree):
    root = await grown(app, tree, [[]])
    graph = await root.build_graph()
    child = graph.children(root)[0]
    assert graph.to_mermaid() == (
        "flowchart TD\n"
        f'    n0["tree<br>{root.id}<br>SUCCESS"]\n'
        "    style n0 fill:#c8e6c9\n"
        f'    n1["tree<br>{child.id}<br>SUCCESS"]\n'
        "    style n1 fill:#c8e6c9\n"
        "    n0 --> n1\n"
    )


async def test_names_with_special_characters_of_a_graph_language_are_drawn_unchanged(app):
    @app.task(name='a "quoted" <b>\\name]\nline')
    async def odd() -> None:
        raise ValueError

    async with Worker(app):
        result = await odd.delay()
        await result.outcome(timeout=30)
        graph = await result.build_graph()
    [label] = re.findall(r'label="((?:[^"\\]|\\.)*)"', graph.to_dot())
    assert label.startswith(r"a \"quoted\" <b>\\name]\nline\n")
    [shown] = re.findall(r'n0\["([^"]*)"\]', graph.to_mermaid())
    assert shown.startswith("a #34;quoted#34; #60;b#62;#92;name#93;#10;line<br>")
    assert "#ffcdd2" in graph.to_dot()


# -- blocking --------------------------------------------------------------------------------------


async def test_the_blocking_variants_find_the_same_job_tree(app, tree):
    root = await grown(app, tree)

    def blocking() -> None:
        assert [value for _, value in root.collect_sync(timeout=30)] == NAMES
        assert [node.get_sync(timeout=30) for _, node in root.iterdeps_sync()] == NAMES
        assert root.get_leaf_sync(timeout=60) == "r200"
        assert len(root.build_graph_sync()) == 8
        unknown = app.AsyncResult("nobody")
        with pytest.raises(IncompleteStream):
            list(unknown.iterdeps_sync())
        with pytest.raises(ResultNotFound):
            list(unknown.collect_sync())

    await asyncio.to_thread(blocking)
    for refused in (root.collect_sync, root.iterdeps_sync, root.get_leaf_sync, root.build_graph_sync):
        with pytest.raises(SyncInAsyncContext):
            refused()


async def test_a_job_tree_can_be_read_on_another_loop(app, tree):
    root = await grown(app, tree)

    async def elsewhere() -> list[str]:
        return [value async for _, value in root.collect(timeout=30)]

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == NAMES


def test_the_job_tree_of_a_local_call_is_the_call_itself(make_app):
    app = make_app()

    @app.task
    def double(x: int) -> int:
        return 2 * x

    result = double.apply((4,))
    assert [(job, value) for job, value in result.collect_sync()] == [(result, 8)]
    assert result.get_leaf_sync() == 8
    assert result.build_graph_sync().nodes == [result]


async def test_collect_goes_on_with_a_handle_that_learns_of_the_end_meanwhile(app, tree):
    result = await tree.delay("r", [[]])
    pairs = result.iterdeps(intermediate=True)
    await anext(pairs)
    async with Worker(app):
        await until_state(result, "SUCCESS")
        assert [value async for _, value in result.collect(timeout=30)] == ["r", "r0"]
        assert len([step async for step in pairs]) == 1


async def test_collect_reports_that_an_outcome_names_only_the_first_of_very_many_children(app, monkeypatch):
    monkeypatch.setattr(wire, "MOST_CHILDREN", 3)

    @app.task
    async def leaf(number: int) -> int:
        return number

    @app.task
    async def parent(count: int) -> None:
        await leaf.map([(n,) for n in range(count)])

    async with Worker(app):
        for count, is_truncated in ((3, False), (8, True)):
            result = await parent.delay(count)
            assert result.children_truncated is False, "not known yet"
            outcome = await result.outcome(timeout=30)
            assert (len(outcome.children), outcome.children_truncated) == (3, is_truncated)
            assert result.children_truncated is is_truncated
            given = [value async for _, value in result.collect(intermediate=True, timeout=30)]
            assert given == [None, 0, 1, 2]
        pairs = result.collect(timeout=30)
        assert [(await anext(pairs))[1] for _ in range(4)] == [None, 0, 1, 2], "known jobs come first"
        with pytest.raises(IncompleteStream, match="more jobs than the 3"):
            await anext(pairs)
