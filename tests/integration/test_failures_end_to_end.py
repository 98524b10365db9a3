"""An exception of a task arrives where the job is awaited. If it cannot travel, the job fails, not the
worker.
"""

from __future__ import annotations

import asyncio
import dataclasses
import traceback

import pytest

from asyncq import NotRegistered, PayloadTooLarge, RemoteError, RemoteTraceback, SerializationError, Worker

pytestmark = pytest.mark.anyio


class OutOfStock(Exception):
    """An exception that needs two arguments."""

    def __init__(self, article: str, left: int) -> None:
        super().__init__(article, left)
        self.article, self.left = article, left


class Refuses(Exception):
    """An exception whose constructor does not accept the arguments that it passes to Exception."""

    def __init__(self) -> None:
        super().__init__("made", "otherwise")


@pytest.fixture
def raising(app):
    @app.task
    async def raising(kind: str) -> None:
        class Local(Exception):
            pass

        if kind == "chain":
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer") from error
        if kind == "group":
            raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])
        raise {
            "value": ValueError("no", 3),
            "stock": OutOfStock("lamp", 2),
            "refuses": Refuses(),
            "local": Local("here"),
            "odd": ValueError(object()),
            "stop": StopIteration("x"),
            "async stop": StopAsyncIteration("x"),
        }[kind]

    return raising


@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_exception_arrives_with_type_arguments_and_remote_traceback(app, in_thread):
    if in_thread:

        @app.task
        def sells(n: int) -> None:
            raise OutOfStock("lamp", n)
    else:

        @app.task
        async def sells(n: int) -> None:
            raise OutOfStock("lamp", n)

    async with Worker(app):
        result = await sells.delay(2)
        with pytest.raises(OutOfStock) as caught:
            await result.get(timeout=30)
    assert (caught.value.article, caught.value.left) == ("lamp", 2)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    text = "".join(traceback.format_exception(caught.value))
    assert 'raise OutOfStock("lamp", n)' in text
    assert "asyncq/execution/runner.py" not in caught.value.__cause__.traceback, (
        "the traceback starts below asyncq's frames"
    )
    assert (result.state, type(result.result)) == ("FAILURE", OutOfStock)
    assert 'raise OutOfStock("lamp", n)' in result.traceback


async def test_a_cause_chain_and_a_group_survive(app, raising):
    async with Worker(app):
        with pytest.raises(ValueError, match="outer") as chained:
            await raising.call("chain")
        with pytest.raises(ExceptionGroup) as group:
            await raising.call("group")
    text = "".join(traceback.format_exception(chained.value))
    assert "inner" in text
    assert [type(e) for e in group.value.exceptions] == [ValueError, KeyError]


async def test_an_exception_whose_class_cannot_be_imported_is_a_remote_error(app, raising):
    async with Worker(app):
        with pytest.raises(RemoteError) as caught:
            await raising.call("local")
    assert caught.value.type_name.rpartition(".")[2] == "Local"
    assert "raise " in caught.value.traceback


async def test_an_exception_arrives_though_its_constructor_does_not_take_its_arguments(app, raising):
    async with Worker(app):
        with pytest.raises(Refuses) as caught:
            await raising.call("refuses")
    assert caught.value.args == ("made", "otherwise")


@pytest.mark.parametrize("kind", ["odd", "stop", "async stop"])
async def test_odd_exceptions_fail_their_job_and_nothing_else(app, raising, kind):
    async with Worker(app):
        outcome = await (await raising.delay(kind)).outcome(timeout=30)
        assert outcome.state == "FAILURE"
        with pytest.raises(ValueError, match="no"):
            await raising.call("value")


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize(
    "kind",
    [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, BaseException],
    ids=lambda k: k.__name__,
)
async def test_no_exception_of_a_task_ends_its_worker(app, kind, in_thread):
    if in_thread:

        @app.task
        def leaves() -> None:
            raise kind(3)
    else:

        @app.task
        async def leaves() -> None:
            raise kind(3)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with Worker(app, concurrency=1) as worker:
        outcome = await (await leaves.delay()).outcome(timeout=30)
        assert outcome.state == "FAILURE"
        assert not isinstance(outcome.error, asyncio.CancelledError)
        assert kind.__name__ in str(outcome.error)
        assert await add.options(wait=30).call(1, 2) == 3
        assert (worker.done, worker.failed) == (2, 1)


async def test_a_task_that_cancels_itself_fails_and_is_not_revoked(app):
    @app.task
    async def cancels() -> None:
        asyncio.current_task().cancel()
        await asyncio.sleep(5)

    async with Worker(app, concurrency=1):
        outcome = await (await cancels.delay()).outcome(timeout=30)
        assert outcome.state == "FAILURE"
        again = await (await cancels.delay()).outcome(timeout=30)
        assert again.state == "FAILURE"


async def test_a_job_fails_if_its_result_cannot_be_encoded(app):
    @app.task
    async def gives() -> object:
        return {"a": [1, object()]}

    async with Worker(app):
        with pytest.raises(SerializationError, match="result"):
            await gives.call()


async def test_a_job_fails_if_its_result_is_above_the_size_limit(make_app):
    async with make_app(max_payload=10_000) as app:

        @app.task
        async def gives(n: int) -> bytes:
            return b"x" * n

        async with Worker(app):
            assert len(await gives.call(9_000)) == 9_000
            with pytest.raises(PayloadTooLarge, match="max_payload"):
                await gives.call(10_001)


async def test_a_job_of_an_unknown_task_fails_with_the_name_of_the_task(app):
    @app.task
    async def known() -> None: ...

    async with Worker(app):
        result = await app.send("shop.nowhere")
        with pytest.raises(NotRegistered, match=r"shop\.nowhere.*it knows \S*\.known\. Import"):
            await result.get(timeout=30)
        for number in range(10):
            app.task(name=f"a{number}")(known.function)
        result = await app.send("shop.nowhere")
        with pytest.raises(NotRegistered, match=r"it knows a0, .*, a9 and 1 more"):
            await result.get(timeout=30)


async def test_a_job_fails_if_its_arguments_do_not_fit_the_workers_function(app, make_app):
    @app.task(name="known")
    async def known(x: int) -> int:
        return x

    async with make_app() as stranger, Worker(app):
        result = await stranger.send("known", (1, 2, 3))
        with pytest.raises(TypeError, match="known"):
            await result.get(timeout=30)
        with pytest.raises(TypeError, match="known"):
            await app.send("known", (1, 2, 3))


async def test_annotated_values_arrive_as_their_classes_in_both_directions(app):
    @app.task
    async def double(point: Point) -> Point:
        assert isinstance(point, Point)
        return Point(point.x * 2, point.y * 2)

    async with Worker(app):
        result = await double.delay(Point(1, 2))
        assert await result.get(timeout=30) == Point(2, 4)
        assert await app.AsyncResult(result.id).get(timeout=30) == Point(2, 4)


@dataclasses.dataclass
class Point:
    x: int
    y: int
