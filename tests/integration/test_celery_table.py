"""Each row of the page that compares asyncq with Celery has a test here with the name of the row.

A row without a test fails, and so do a test without a row and a member of Celery's classes without a row.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.inside import be_the_only_app
from helpers.stopwatch import Stopwatch
from helpers.waiting import until, until_state

import asyncq
from asyncq import (
    AsyncResult,
    EagerResult,
    GroupResult,
    IncompleteStream,
    ResultNotFound,
    ResultSet,
    ResultTimeout,
    State,
    TaskRevoked,
    Worker,
    WouldDeadlock,
    chord,
    group,
    precedence,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncq import AsyncQ

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs/celery.md").read_text(encoding="utf-8")

# The public members of the classes of celery.result and celery.states, in Celery 5.5.3.
MEMBERS = {
    "AsyncResult": "TimeoutError app args as_list as_tuple backend build_graph children collect date_done "
    "failed forget get get_leaf graph id ignored info iterdeps kwargs maybe_reraise maybe_throw name "
    "on_ready parent queue ready result retries revoke revoke_by_stamped_headers state status "
    "successful supports_native_join task_id then throw traceback wait worker get(timeout=) "
    "get(propagate=) get(interval=) get(no_ack=) get(follow_parents=) get(callback=) "
    "get(on_message=) get(on_interval=) get(disable_sync_subtasks=) get(EXCEPTION_STATES=) "
    "get(PROPAGATE_STATES=) revoke(connection=) revoke(terminate=) revoke(signal=) revoke(wait=) "
    "revoke(timeout=)",
    "ResultSet": "add app backend clear completed_count discard failed forget get iter_native join "
    "join_native maybe_reraise maybe_throw parent ready remove results revoke successful "
    "supports_native_join then update waiting",
    "GroupResult": "as_tuple children delete id parent restore save",
    "EagerResult": "forget get ready result revoke state then traceback wait",
    "states": "PENDING RECEIVED STARTED SUCCESS FAILURE REVOKED REJECTED RETRY IGNORED READY_STATES "
    "UNREADY_STATES EXCEPTION_STATES PROPAGATE_STATES ALL_STATES PRECEDENCE PRECEDENCE_LOOKUP "
    "NONE_PRECEDENCE precedence state",
    "result": "ResultBase allow_join_result denied_join_result assert_will_not_block result_from_tuple",
}

ROWS = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)

TESTS: dict[str, Callable[[Any], Any]] = {}


def row(*names: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Registers a function as the test of some rows."""

    def register(test: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for name in names:
            assert name not in TESTS, f"{name} has two tests"
            TESTS[name] = test
        return test

    return register


class Stage:
    """An app with a worker and three tasks."""

    def __init__(self, app: AsyncQ) -> None:
        self.app = app
        self.gate = asyncio.Event()

        @app.task(name="add")
        async def add(x: int, y: int = 0) -> int:
            return x + y

        @app.task(name="fail")
        async def fail(text: str = "no") -> None:
            raise ValueError(text)

        @app.task(name="gated")
        async def gated() -> str:
            await self.gate.wait()
            return "open"

        self.add, self.fail, self.gated = add, fail, gated

    async def ended(self, *args: int) -> AsyncResult[int]:
        """Returns the handle of a job that has succeeded. The handle knows the outcome."""
        result = await self.add.delay(*(args or (1, 2)))
        await result.get(timeout=30)
        return result

    async def failed(self) -> AsyncResult[None]:
        result = await self.fail.delay()
        await result.outcome(timeout=30)
        return result

    async def queued(self) -> AsyncResult[int]:
        """Returns the handle of a job that no worker takes."""
        return await self.add.options(queue="nobody").delay(1, 2)

    def fresh(self, result: AsyncResult[Any]) -> AsyncResult[Any]:
        """Returns a new handle of the same job, which knows only the id."""
        return AsyncResult(result.id, self.app)


@pytest.fixture
async def stage(app: AsyncQ, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    be_the_only_app(monkeypatch, app)
    async with Worker(app, name="me"):
        stage = Stage(app)
        assert await stage.add.call(0) == 0
        yield stage


@pytest.mark.parametrize("name", ROWS)
async def test_each_row_holds(stage: Stage, name: str) -> None:
    assert name in TESTS, f"the row {name!r} has no test"
    outcome = TESTS[name](stage)
    if inspect.isawaitable(outcome):
        await outcome


def test_every_test_has_exactly_one_row() -> None:
    assert set(TESTS) - set(ROWS) == set()
    assert len(ROWS) == len(set(ROWS))


def test_every_public_member_of_celerys_classes_has_a_row() -> None:
    expected_rows = {f"{owner}.{member}" for owner, members in MEMBERS.items() for member in members.split()}
    assert expected_rows - set(ROWS) == set()


def has_none(owner: Any, *names: str) -> None:
    for name in names:
        assert not hasattr(owner, name)


def refuses(call: Callable[..., Any], *parameters: str) -> None:
    assert not set(parameters) & set(inspect.signature(call).parameters)


# -- AsyncResult -----------------------------------------------------------------------------------


@row("AsyncResult(id)")
async def _(stage: Stage) -> None:
    result = await stage.ended()
    for handle in (
        AsyncResult(result.id),
        stage.app.AsyncResult(result.id),
        stage.add.AsyncResult(result.id),
    ):
        assert await handle.get(timeout=30) == 3
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="needs the id"):
            AsyncResult(nothing)
    refuses(AsyncResult.__init__, "backend", "task_name", "parent")


@row("AsyncResult.TimeoutError", "exceptions.TimeoutError", "a timeout is not a TimeoutError")
async def _(stage: Stage) -> None:
    has_none(AsyncResult, "TimeoutError")
    result = await stage.queued()
    with pytest.raises(TimeoutError) as caught:
        await result.get(timeout=0.01)
    assert type(caught.value) is ResultTimeout

    @stage.app.task(name="late")
    async def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as theirs:
        await late.call()
    assert not isinstance(theirs.value, ResultTimeout)
    await result.revoke()


@row("AsyncResult.app")
async def _(stage: Stage) -> None:
    assert (await stage.ended()).app is stage.app
    assert AsyncResult("any").app is stage.app


@row("AsyncResult.args", "AsyncResult.kwargs")
async def _(stage: Stage) -> None:
    result = await stage.add.delay(1, y=2)
    assert (result.args, result.kwargs) == ((1,), {"y": 2})
    assert await result.get(timeout=30) == 3
    other = stage.fresh(result)
    await other.refresh()
    assert (other.args, other.kwargs) == (None, None)


@row("AsyncResult.as_list")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    assert last.as_list() == [last.id, last.parent.id]
    assert await last.get(timeout=30) == 3


@row("AsyncResult.as_tuple")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    assert last.as_tuple() == ((last.id, ((last.parent.id, None), None)), None)
    assert await last.get(timeout=30) == 3


@row("AsyncResult.backend", "AsyncResult.supports_native_join")
def _(stage: Stage) -> None:
    has_none(stage.app.AsyncResult("any"), "backend", "supports_native_join")


@row("AsyncResult.build_graph", "AsyncResult.graph")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    await last.get(timeout=30)
    first = stage.fresh(last.parent)
    with pytest.raises(IncompleteStream):
        _ = first.graph
    graph = await first.build_graph()
    assert (graph.edges, first.graph) == ([(first, last)], graph)
    assert "digraph" in graph.to_dot()
    assert "flowchart" in graph.to_mermaid()
    refuses(first.build_graph, "formatter")


@row("AsyncResult.children")
async def _(stage: Stage) -> None:
    @stage.app.task(name="parent")
    async def parent() -> str:
        return (await stage.add.delay(1)).id

    result = await (parent.s() | stage.fail.s()).delay()
    first = result.parent
    assert first.children is None
    started = await first.get(timeout=30)
    assert set(first.children) == {started, result.id}
    await result.outcome(timeout=30)
    assert await stage.app.AsyncResult(started).get(timeout=30) == 1


@row("AsyncResult.collect")
async def _(stage: Stage) -> None:
    first = (await (stage.add.s(1) | stage.add.s(2)).delay(0)).parent
    assert [value async for _, value in first.collect(timeout=30)] == [1, 3]
    assert await asyncio.to_thread(lambda: [value for _, value in first.collect_sync()]) == [1, 3]
    waiting = await stage.queued()
    with pytest.raises(ResultTimeout):
        await anext(aiter(waiting.collect(timeout=0.01)))
    await waiting.revoke()


@row("AsyncResult.date_done")
async def _(stage: Stage) -> None:
    result = await stage.ended()
    assert result.date_done.tzinfo is not None
    assert abs(result.date_done.timestamp() - time.time()) < 60


@row("AsyncResult.failed", "AsyncResult.successful", "AsyncResult.ready")
async def _(stage: Stage) -> None:
    handles = [await stage.queued(), await stage.ended(), await stage.failed()]
    assert [await stage.fresh(one).ready() for one in handles] == [False, True, True]
    assert [await stage.fresh(one).successful() for one in handles] == [False, True, False]
    assert [await stage.fresh(one).failed() for one in handles] == [False, False, True]
    await handles[0].revoke()


@row("AsyncResult.forget")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    await last.get(timeout=30)
    await last.forget()
    for handle in (last, last.parent):
        with pytest.raises(ResultNotFound):
            await stage.fresh(handle).get(timeout=30)
    live = await stage.gated.delay()
    await live.forget()
    stage.gate.set()
    assert await live.get(timeout=30) == "open"
    assert not await live.exists()


@row("AsyncResult.get", "AsyncResult.wait")
async def _(stage: Stage) -> None:
    result = await stage.add.delay(1, 2)
    assert [await result, await result.get(), await result.wait(timeout=30)] == [3, 3, 3]
    assert await asyncio.to_thread(result.get_sync) == 3
    for none in (await stage.add.options(ignore_result=True).delay(1), stage.app.AsyncResult("unknown")):
        with pytest.raises(ResultNotFound):
            await none.get()
    with pytest.raises(ValueError, match="no"):
        await stage.fail.call()


@row("AsyncResult.get(timeout=)", "timeout=0 waits for ever")
async def _(stage: Stage) -> None:
    waiting, ended = await stage.queued(), stage.fresh(await stage.ended())
    stopwatch = Stopwatch()
    with pytest.raises(ResultTimeout):
        await waiting.get(timeout=0)
    with pytest.raises(ResultTimeout):
        await stage.app.ResultSet([waiting]).join(timeout=0)
    assert stopwatch.took < 1
    assert await ended.get(timeout=0) == 3
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting.get(timeout=None), 0.1)
    await waiting.revoke()


@row("AsyncResult.get(propagate=)")
async def _(stage: Stage) -> None:
    result = await stage.failed()
    assert isinstance(await result.get(propagate=False), ValueError)
    with pytest.raises(ValueError, match="no"):
        await result.get()


@row(
    "AsyncResult.get(interval=)",
    "AsyncResult.get(no_ack=)",
    "AsyncResult.get(on_interval=)",
    "AsyncResult.get(EXCEPTION_STATES=)",
    "AsyncResult.get(PROPAGATE_STATES=)",
)
def _(_: Stage) -> None:
    refuses(AsyncResult.get, "interval", "no_ack", "on_interval", "EXCEPTION_STATES", "PROPAGATE_STATES")


@row("AsyncResult.get(follow_parents=)")
async def _(stage: Stage) -> None:
    last = await (stage.fail.s() | stage.add.s(1)).delay()
    with pytest.raises(ValueError, match="no"):
        await last.get(timeout=30)
    with pytest.raises(TaskRevoked, match=last.parent.id):
        await last.get(timeout=30, follow_parents=False)


@row("AsyncResult.get(callback=)")
async def _(stage: Stage) -> None:
    calls = []
    result = await stage.add.delay(1)
    assert await result.get(timeout=30, callback=lambda *call: calls.append(call)) == 1
    assert calls == [(result.id, 1)]


@row("AsyncResult.get(on_message=)")
async def _(stage: Stage) -> None:
    events = []
    result = await stage.add.delay(1)
    assert await result.get(timeout=30, on_event=events.append) == 1
    assert events[-1].state == "SUCCESS"
    assert [event.state async for event in result.events(timeout=30)] == ["SUCCESS"]
    refuses(AsyncResult.get, "on_message")


@row("AsyncResult.get(disable_sync_subtasks=)")
async def _(stage: Stage) -> None:
    @stage.app.task(name="waits")
    async def waits(disable: bool) -> int:
        return await (await stage.add.delay(1)).get(timeout=30, disable_sync_subtasks=disable)

    assert await waits.call(disable=False) == 1
    with pytest.raises(WouldDeadlock):
        await waits.call(disable=True)


@row("AsyncResult.get_leaf")
async def _(stage: Stage) -> None:
    first = (await (stage.add.s(1) | stage.add.s(2)).delay(0)).parent
    assert await first.get_leaf(timeout=30) == 3


@row("AsyncResult.id", "AsyncResult.task_id")
async def _(stage: Stage) -> None:
    result = await stage.add.options(task_id="mine").delay(1)
    assert (result.id, result.task_id) == ("mine", "mine")
    with pytest.raises(AttributeError):
        result.task_id = "other"
    await result.get(timeout=30)


@row("AsyncResult.ignored")
async def _(stage: Stage) -> None:
    ignoring = await stage.add.options(ignore_result=True).delay(1)
    assert (ignoring.ignored, (await stage.ended()).ignored) == (True, False)
    with pytest.raises(AttributeError):
        ignoring.ignored = False


@row("AsyncResult.info", "AsyncResult.result")
async def _(stage: Stage) -> None:
    @stage.app.task(name="busy")
    async def busy() -> None:
        await asyncq.current().update_state("PROGRESS", {"done": 1})
        await stage.gate.wait()

    result = await stage.ended()
    assert (result.result, result.info) == (3, 3)
    assert isinstance((await stage.failed()).result, ValueError)
    running = await busy.delay()
    async for event in running.events(timeout=30):
        if event.state == "PROGRESS":
            break
    assert (running.state, running.info) == ("PROGRESS", {"done": 1})
    stage.gate.set()
    await running.get(timeout=30)


@row("AsyncResult.iterdeps")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    first = last.parent
    await last.get(timeout=30)
    assert [step async for step in first.iterdeps()] == [(None, first), (first, last)]
    assert await asyncio.to_thread(lambda: len(list(first.iterdeps_sync()))) == 2
    waiting = await stage.queued()
    with pytest.raises(IncompleteStream):
        [step async for step in waiting.iterdeps()]
    await waiting.revoke()


@row("AsyncResult.maybe_throw", "AsyncResult.maybe_reraise")
async def _(stage: Stage) -> None:
    has_none(AsyncResult, "maybe_throw", "maybe_reraise")
    with pytest.raises(ValueError, match="no"):
        await stage.fresh(await stage.failed()).get(timeout=0)
    assert await stage.fresh(await stage.ended()).get(timeout=0) == 3
    waiting = await stage.queued()
    with pytest.raises(ResultTimeout):
        await waiting.get(timeout=0)
    await waiting.revoke()


@row("AsyncResult.name", "AsyncResult.queue", "AsyncResult.retries", "AsyncResult.worker")
async def _(stage: Stage) -> None:
    result = stage.fresh(await stage.ended())
    await result.refresh()
    assert (result.name, result.queue, result.retries, result.worker) == ("add", "default", 0, "me")


@row("AsyncResult.on_ready", "AsyncResult.then", "then never fires")
async def _(stage: Stage) -> None:
    has_none(AsyncResult, "on_ready")
    received: list[Any] = []
    result = await stage.gated.delay()
    assert result.then(received.append) is result
    (await stage.fail.delay()).then(received.append, lambda failed: received.append(failed.state))
    stage.gate.set()
    await until(lambda: len(received) == 2, "both callbacks to be called, though nobody waits")
    assert set(map(str, received)) == {result.id, "FAILURE"}
    refuses(AsyncResult.then, "weak")


@row("AsyncResult.parent")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    assert await last.get(timeout=30) == 3
    assert await last.parent.get(timeout=30) == 1
    assert last.parent.parent is None


@row("AsyncResult.revoke")
async def _(stage: Stage) -> None:
    last = await (stage.add.options(queue="nobody").s(1) | stage.add.s(2)).delay(0)
    waiting = asyncio.ensure_future(last.get(timeout=30))
    await asyncio.sleep(0)
    await last.revoke()
    with pytest.raises(TaskRevoked):
        await waiting
    assert [await stage.fresh(one).refresh() for one in (last, last.parent)] == ["REVOKED"] * 2


@row("AsyncResult.revoke(connection=)")
def _(_: Stage) -> None:
    refuses(AsyncResult.revoke, "connection")
    refuses(ResultSet.revoke, "connection")


@row("AsyncResult.revoke(terminate=)", "AsyncResult.revoke(wait=)", "AsyncResult.revoke(timeout=)")
async def _(stage: Stage) -> None:
    running = await stage.gated.delay()
    await until_state(running, "STARTED")
    with pytest.raises(ResultTimeout):
        await running.revoke(wait=True, timeout=0.05)
    assert await running.revoke(terminate=True, wait=True, timeout=60) == "REVOKED"


@row("AsyncResult.revoke(signal=)")
async def _(stage: Stage) -> None:
    waiting = await stage.queued()
    with pytest.raises(ValueError, match="SIGTERM"):
        await waiting.revoke(terminate=True, signal="SIGSTOP")
    assert await waiting.revoke(terminate=True, signal="SIGKILL") == "REVOKED"


@row("AsyncResult.revoke_by_stamped_headers")
async def _(stage: Stage) -> None:
    has_none(AsyncResult, "revoke_by_stamped_headers")
    async with stage.app.scope():
        waiting = await stage.queued()
    assert await waiting.refresh() == "REVOKED"


@row("AsyncResult.state", "AsyncResult.status")
async def _(stage: Stage) -> None:
    waiting = await stage.queued()  # a job that has a worker may have ended when `delay` returns
    assert (waiting.state, waiting.status) == ("PENDING", "PENDING")
    result = await stage.add.delay(1)
    await until(lambda: result.state == "SUCCESS", "the state to be pushed")
    other = stage.fresh(await stage.ended(5))
    assert (other.state, await other.refresh(), other.status) == ("UNKNOWN", "SUCCESS", "SUCCESS")


@row("AsyncResult.throw")
def _(_: Stage) -> None:
    has_none(AsyncResult, "throw")


@row("AsyncResult.traceback")
async def _(stage: Stage) -> None:
    assert "ValueError: no" in (await stage.failed()).traceback
    assert (await stage.ended()).traceback is None


@row("AsyncResult == other", "hash(AsyncResult)", "str(AsyncResult)", "repr(AsyncResult)")
async def _(stage: Stage) -> None:
    result = await stage.ended()
    assert result == stage.fresh(result) == result.id
    assert result != stage.app.AsyncResult("other")
    assert (hash(result), str(result)) == (hash(result.id), result.id)
    assert repr(result) == f"<AsyncResult {result.id} add SUCCESS>"


@row("copy(AsyncResult)", "pickle(AsyncResult)")
async def _(stage: Stage) -> None:
    last = await (stage.add.s(1) | stage.add.s(2)).delay(0)
    for other in (copy.copy(last), pickle.loads(pickle.dumps(last))):
        assert (other, other.parent) == (last, last.parent)
        assert await other.get(timeout=30) == 3


# -- ResultSet -------------------------------------------------------------------------------------


async def _several(stage: Stage) -> ResultSet[Any]:
    """Returns the handles of a job that waits, one that has succeeded, and one that has failed."""
    handles: list[Any] = [await stage.queued(), await stage.ended(), await stage.failed()]
    return stage.app.ResultSet([stage.fresh(one) for one in handles])


@row("ResultSet(results)", "ResultSet.results", "ResultSet.app", "iter(ResultSet)", "len(ResultSet)")
async def _(stage: Stage) -> None:
    result = await stage.ended()
    for results in (ResultSet([result]), stage.app.ResultSet([result])):
        assert (results.results, list(results), len(results)) == ([result], [result], 1)
        assert results.app is stage.app
        with pytest.raises(AttributeError):
            results.app = stage.app
    refuses(ResultSet.__init__, "ready_barrier")


@row(
    "ResultSet.add",
    "ResultSet.update",
    "ResultSet.remove",
    "ResultSet.discard",
    "ResultSet.clear",
    "ResultSet == other",
)
def _(stage: Stage) -> None:
    a, b, c = (stage.app.AsyncResult(id_) for id_ in "abc")
    results = ResultSet([a])
    results.add(a)
    results.add(b)
    results.update([b, c])
    assert results == ResultSet([a, b, c])
    results.remove("b")
    with pytest.raises(KeyError):
        results.remove(b)
    results.discard(b)
    assert results != ResultSet([c, a])
    results.clear()
    assert results == ResultSet([])


@row(
    "ResultSet.backend", "ResultSet.supports_native_join", "ResultSet.join_native", "ResultSet.maybe_reraise"
)
def _(_: Stage) -> None:
    has_none(ResultSet, "backend", "supports_native_join", "join_native", "maybe_reraise")


@row(
    "ResultSet.completed_count",
    "ResultSet.failed",
    "ResultSet.ready",
    "ResultSet.successful",
    "ResultSet.waiting",
)
async def _(stage: Stage) -> None:
    results = await _several(stage)
    assert (await results.completed_count(), await results.failed(), await results.ready()) == (
        1,
        True,
        False,
    )
    assert (await results.successful(), await results.waiting()) == (False, True)
    await results.revoke()
    assert (await results.ready(), await results.waiting()) == (True, False)
    assert await results[1:2].successful()


@row("ResultSet.forget")
async def _(stage: Stage) -> None:
    results = stage.app.ResultSet([await stage.ended(1), await stage.ended(2)])
    await results.forget()
    assert [await one.exists() for one in results] == [False, False]


@row("ResultSet.get", "ResultSet.join")
async def _(stage: Stage) -> None:
    received = []
    results = await stage.add.map([(1,), (2,)])
    assert await results.get(timeout=30) == [1, 2]
    assert await results.join(timeout=30, callback=lambda id_, value: received.append(value)) == [1, 2]
    assert received == [1, 2]
    with pytest.raises(ValueError, match="no"):
        await (await _several(stage)).get(timeout=30)


@row("ResultSet.iter_native")
async def _(stage: Stage) -> None:
    has_none(ResultSet, "iter_native")
    results = await stage.add.map([(1,), (2,)])
    assert {await one async for one in results.as_completed(timeout=30)} == {1, 2}


@row("ResultSet.maybe_throw")
async def _(stage: Stage) -> None:
    results = await _several(stage)
    received = []
    await results.maybe_throw(lambda id_, value: received.append(value), propagate=False)
    assert [received[0], type(received[1])] == [3, ValueError]
    with pytest.raises(ValueError, match="no"):
        await results.maybe_throw()
    await results.revoke()


@row("ResultSet.parent", "GroupResult.parent")
async def _(stage: Stage) -> None:
    has_none(ResultSet([]), "parent")
    results = await (stage.add.s(1) | group(stage.add.s(2), stage.add.s(3))).delay(0)
    assert await results.parent.get(timeout=30) == 1
    assert await results.get(timeout=30) == [3, 4]


@row("ResultSet.revoke")
async def _(stage: Stage) -> None:
    results = await _several(stage)
    assert await results.revoke() == ["REVOKED", "SUCCESS", "FAILURE"]


@row("ResultSet.then")
async def _(stage: Stage) -> None:
    received: list[Any] = []
    results = await stage.add.map([(1,), (2,)])
    results.then(received.append)
    await until(lambda: received, "the callback of the set to be called")
    assert received == [results]


@row("ResultSet[index]")
def _(stage: Stage) -> None:
    results = ResultSet([stage.app.AsyncResult(id_) for id_ in "abc"])
    assert (results[1], results[-1]) == ("b", "c")
    assert isinstance(results[1:], ResultSet)


@row("repr(ResultSet)", "repr(GroupResult)", "str(GroupResult)", "hash(GroupResult)", "bool(GroupResult)")
def _(stage: Stage) -> None:
    handles = [stage.app.AsyncResult(id_) for id_ in "abcd"]
    assert repr(ResultSet(handles)) == "<ResultSet of 4: a, b, c, ...>"
    results = GroupResult("mine", handles)
    assert (repr(results), str(results)) == ("<GroupResult mine of 4>", "mine")
    assert hash(results) == hash("mine")
    assert GroupResult("empty", [])


# -- GroupResult -----------------------------------------------------------------------------------


@row("GroupResult(id, results, parent)", "GroupResult.id", "GroupResult.children", "GroupResult == other")
def _(stage: Stage) -> None:
    a, b = stage.app.AsyncResult("a"), stage.app.AsyncResult("b")
    results = GroupResult("mine", [a], b)
    assert (results.id, results.children, results.parent) == ("mine", [a], b)
    assert results == stage.app.GroupResult("mine", [a], b) == "mine"
    assert results != GroupResult("mine", [b], b)
    assert len(GroupResult(results=[a]).id) == 24


@row("GroupResult.as_tuple", "result.result_from_tuple", "pickle(GroupResult)")
def _(stage: Stage) -> None:
    results = GroupResult("mine", [stage.app.AsyncResult("a")], stage.app.AsyncResult("b"))
    assert results.as_tuple() == (("mine", (("b", None), None)), [(("a", None), None)])
    assert asyncq.result_from_tuple(results.as_tuple()) == results
    assert pickle.loads(pickle.dumps(results)) == results


@row("GroupResult.save", "GroupResult.restore", "GroupResult.delete")
async def _(stage: Stage) -> None:
    results = GroupResult(results=await stage.add.map([(1,), (2,)]))
    await results.save()
    same = await GroupResult.restore(results.id)
    assert await same.get(timeout=30) == [1, 2]
    await same.delete()
    assert await GroupResult.restore(results.id) is None
    for method in (GroupResult.save, GroupResult.restore, GroupResult.delete):
        refuses(method, "backend")


# -- EagerResult -----------------------------------------------------------------------------------


@row("EagerResult(id, value, state)", "EagerResult.state", "EagerResult.traceback", "repr(EagerResult)")
def _(stage: Stage) -> None:
    result = EagerResult("a", ValueError("no"), "FAILURE", "where")
    assert (result.state, result.status, result.traceback) == ("FAILURE", "FAILURE", "where")
    assert repr(result) == "<EagerResult a FAILURE>"
    for value, state in ((1, "STARTED"), (1, "FAILURE")):
        with pytest.raises(ValueError, match="state"):
            EagerResult("a", value, state)


@row("EagerResult.get", "EagerResult.wait", "EagerResult.ready", "EagerResult.revoke", "EagerResult.forget")
async def _(stage: Stage) -> None:
    result = EagerResult("a", 3, "SUCCESS")
    with asyncq.denied_join_result():
        assert [await result.get(), await result.wait(), await result] == [3, 3, 3]
    assert await result.ready()
    assert await result.revoke(terminate=True) == "SUCCESS"
    with pytest.raises(ValueError, match="no"):
        await EagerResult("a", ValueError("no"), "FAILURE").get()
    await result.forget()
    with pytest.raises(ResultNotFound):
        await result.get()


@row("EagerResult.result")
def _(stage: Stage) -> None:
    @stage.app.task(name="same")
    def same(value: list[int]) -> list[int]:
        return value

    value = [1]
    result = same.apply((value,)).result
    assert result == value
    assert result is not value


@row("EagerResult.then")
async def _(_: Stage) -> None:
    received: list[Any] = []
    result = EagerResult("a", 3, "SUCCESS")
    result.then(received.append)
    assert received == []
    await until(lambda: received == [result], "the callback")


@row("copy(EagerResult)", "pickle(EagerResult)")
def _(_: Stage) -> None:
    result = EagerResult("a", 3, "SUCCESS")
    assert copy.copy(result).result == 3
    with pytest.raises(TypeError, match="this process"):
        pickle.dumps(result)


# -- states ----------------------------------------------------------------------------------------


@row("states.PENDING", "a job that does not exist is PENDING")
async def _(stage: Stage) -> None:
    waiting, unknown = await stage.queued(), stage.app.AsyncResult("unknown")
    assert [await stage.fresh(waiting).refresh(), await unknown.refresh()] == [State.PENDING, State.UNKNOWN]
    assert [await waiting.exists(), await unknown.exists()] == [True, False]
    with pytest.raises(ResultNotFound):
        await asyncio.wait_for(unknown.get(), 30)
    await waiting.revoke()


@row("states.RECEIVED", "states.REJECTED", "states.IGNORED")
def _(_: Stage) -> None:
    has_none(State, "RECEIVED", "REJECTED", "IGNORED")


@row("states.STARTED")
async def _(stage: Stage) -> None:
    running = await stage.gated.delay()
    await until_state(stage.fresh(running), State.STARTED)
    stage.gate.set()
    await running.get(timeout=30)


@row("states.SUCCESS", "states.FAILURE")
async def _(stage: Stage) -> None:
    assert (await stage.ended()).state is State.SUCCESS
    assert (await stage.failed()).state is State.FAILURE


@row("states.REVOKED", "exceptions.TaskRevokedError")
async def _(stage: Stage) -> None:
    expired = await stage.add.options(queue="nobody", expires=0.01).delay(1)
    with pytest.raises(TaskRevoked) as caught:
        await expired.get(timeout=30)
    assert type(caught.value) is asyncq.TaskExpired
    assert expired.state is State.REVOKED


@row("states.RETRY")
async def _(stage: Stage) -> None:
    policy = asyncq.Retry(max_retries=1, backoff=60, jitter=False)
    result = await stage.fail.options(retry=policy).delay()
    await until_state(result, State.RETRY)
    assert isinstance(result.result, ValueError)
    await result.revoke()


@row(
    "states.READY_STATES",
    "states.UNREADY_STATES",
    "states.EXCEPTION_STATES",
    "states.PROPAGATE_STATES",
    "states.ALL_STATES",
)
def _(_: Stage) -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == asyncq.READY_STATES
    assert {"PENDING", "SCHEDULED", "STARTED", "RETRY"} == asyncq.UNREADY_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == asyncq.EXCEPTION_STATES
    assert {"FAILURE", "REVOKED"} == asyncq.PROPAGATE_STATES
    assert set(State) == {*asyncq.READY_STATES, *asyncq.UNREADY_STATES, "UNKNOWN"}


@row(
    "states.PRECEDENCE",
    "states.PRECEDENCE_LOOKUP",
    "states.NONE_PRECEDENCE",
    "states.precedence",
    "states.state",
)
def _(_: Stage) -> None:
    ranked = sorted(State, key=precedence)
    assert [*map(str, ranked)] == [
        *("SUCCESS", "FAILURE", "REVOKED", "STARTED", "RETRY", "SCHEDULED", "PENDING", "UNKNOWN")
    ]
    assert precedence("PROGRESS") == precedence("STARTED")
    assert precedence("SUCCESS") < precedence("PENDING")
    assert State.PENDING < State.SUCCESS, "as texts"


# -- functions and errors --------------------------------------------------------------------------


@row("result.ResultBase", "result.assert_will_not_block")
def _(_: Stage) -> None:
    has_none(asyncq, "ResultBase", "assert_will_not_block")
    assert set(AsyncResult.__mro__) & set(ResultSet.__mro__) <= {object, *AsyncResult.__mro__[1:]}


@row("result.allow_join_result")
async def _(stage: Stage) -> None:
    @stage.app.task(name="allowed")
    async def allowed() -> int:
        with asyncq.allow_join_result():
            return await stage.add.call(1)

    assert await allowed.call() == 1


@row("result.denied_join_result", "the guard is global")
async def _(stage: Stage) -> None:
    result = await stage.add.delay(1)
    seen: list[int] = []
    with asyncq.denied_join_result():
        with pytest.raises(WouldDeadlock):
            await result.get()
        # A new thread has a context of its own, and so have asyncio tasks that were started before.
        thread = threading.Thread(target=lambda: seen.append(result.get_sync(timeout=30)))
        thread.start()
        await until(lambda: seen, "the other thread to get the result")
        thread.join()

    @stage.app.task(name="allows")
    async def allows() -> None:
        with asyncq.allow_join_result():
            await stage.gate.wait()

    @stage.app.task(name="waits")
    async def waits() -> int:
        return await stage.add.call(1)

    allowing = await allows.delay()
    await until_state(allowing, "STARTED")
    with pytest.raises(WouldDeadlock):
        await waits.call()
    stage.gate.set()
    await allowing.get(timeout=30)


@row("exceptions.IncompleteStream")
async def _(stage: Stage) -> None:
    with pytest.raises(asyncq.IncompleteStream):
        await stage.app.AsyncResult("unknown").build_graph()


@row("exceptions.WorkerLostError")
def _(_: Stage) -> None:
    # The death of a worker is tested in tests/integration/test_worker_death.py.
    assert issubclass(asyncq.WorkerLost, asyncq.AsyncQError)
    assert not issubclass(asyncq.WorkerLost, TaskRevoked)


@row("exceptions.ChordError")
async def _(stage: Stage) -> None:
    body = await chord([stage.add.s(1), stage.fail.s("mine")], stage.add.si(1)).delay()
    with pytest.raises(ValueError, match="mine") as caught:
        await body.get(timeout=30)
    failed = next(one for one in body.parent if one.state == "FAILURE")
    assert failed.id in "".join(caught.value.__notes__)


# -- what goes wrong with Celery -------------------------------------------------------------------


@row("a final state flips")
async def _(stage: Stage) -> None:
    @stage.app.task(name="threaded")
    def threaded() -> str:
        started.set()
        go_on.wait(5)
        return "late"

    started, go_on = threading.Event(), threading.Event()
    result = await threaded.delay()
    await until(started.is_set, "the thread to run")
    assert await result.revoke(terminate=True, wait=True, timeout=30) == "REVOKED"
    go_on.set()
    probe = await stage.ended()
    assert [await stage.fresh(result).refresh(), probe.state] == ["REVOKED", "SUCCESS"]
    await asyncio.sleep(0.1)
    assert await stage.fresh(result).refresh() == "REVOKED"


@row("a chord hangs when a member fails or is revoked")
async def _(stage: Stage) -> None:
    never = stage.add.options(queue="nobody").s(1)
    failing = await chord([never, stage.fail.s("member")], stage.add.si(1)).delay()
    with pytest.raises(ValueError, match="member"):
        await failing.get(timeout=30)
    revoked = await chord([never, stage.add.s(1)], stage.add.si(1)).delay()
    await revoked.parent[0].revoke()
    with pytest.raises(TaskRevoked):
        await revoked.get(timeout=30)
    await failing.parent[0].revoke()


@row("a chord hangs when a member ignores its result")
async def _(stage: Stage) -> None:
    @stage.app.task(name="total")
    async def total(values: list[int]) -> int:
        return sum(values)

    members = [stage.add.s(1), stage.add.s(2).options(ignore_result=True)]
    assert await chord(members, total.s()).options(wait=30).call() == 3
