"""A job raises the same exception as a call of its function, on the loop, in a thread and in a process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from helpers import exception_bodies
from helpers.exceptions import differences, tree

from asyncq import RemoteError, Retry, Worker, allow_join_result, chain, current
from asyncq.failures import Failure

pytestmark = pytest.mark.anyio


async def _row_on_the_loop(index: int) -> None:
    exception_bodies.raise_row(index)


def register(app, executor):
    """Registers two tasks: one raises an exception of the table, the other one raises a group."""
    if executor == "loop":
        return app.task(name="row")(_row_on_the_loop), app.task(name="group")(exception_bodies.raise_group)
    task = app.task(name="row", executor=executor) if executor == "process" else app.task(name="row")
    row = task(exception_bodies.raise_row)
    task = app.task(name="group", executor=executor) if executor == "process" else app.task(name="group")
    return row, task(exception_bodies.raise_group_in_a_function)


@pytest.mark.parametrize("executor", ["loop", "thread", pytest.param("process", marks=pytest.mark.trial)])
async def test_each_exception_of_the_table_arrives_as_a_direct_call_raises_it(app, executor):
    from helpers.exception_table import TABLE  # late, because it imports fourteen libraries

    raise_row, _ = register(app, executor)
    found = {}
    async with Worker(app):
        results = [await raise_row.delay(index) for index in range(len(TABLE))]
        for row, result in zip(TABLE, results, strict=True):
            arrived = (await result.outcome(timeout=60)).error
            assert isinstance(arrived, Exception)
            if row.caught_as is None:
                found[row.name] = differences(row.make(), arrived)
            else:
                found[row.name] = [] if isinstance(arrived, RemoteError) else ["it is no RemoteError"]
    assert {name: problems for name, problems in found.items() if problems} == {}


async def raised_by(call) -> BaseException:
    try:
        await call
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("executor", ["loop", "thread", "process"])
async def test_an_exception_group_arrives_with_all_its_members(app, executor):
    _, raise_group = register(app, executor)
    async with Worker(app):
        for name, body in exception_bodies.GROUPS.items():
            direct = await raised_by(asyncio.create_task(body()))
            arrived = await raised_by(raise_group.options(wait=60).call(name))
            assert tree(arrived) == tree(direct), name


async def test_a_group_member_that_is_also_the_context_of_its_group_is_matched(app):
    _, raise_group = register(app, "loop")
    matched = []
    async with Worker(app):
        try:
            await raise_group.options(wait=30).call("body_of_a_task_group")
        except* ValueError as group:
            matched += group.exceptions
    assert [str(member) for member in matched] == ["invalid literal for int() with base 10: 'not a number'"]


class NotForHere(LookupError):
    def __init__(self, article: str, *, left: int) -> None:
        super().__init__(f"only {left} of {article}")
        self.left = left


async def test_a_failure_that_another_job_raises_again_keeps_its_type_and_attributes(app):
    @app.task
    async def sells(is_local: bool) -> None:
        class Local(NotForHere):
            pass

        raise (Local if is_local else NotForHere)("lamp", left=2)

    @app.task
    async def orders(is_local: bool) -> None:
        with allow_join_result():
            await sells.call(is_local)

    async with Worker(app, concurrency=2):
        with pytest.raises(NotForHere) as caught:
            await orders.options(wait=30).call(False)
        assert (type(caught.value), str(caught.value), caught.value.left) == (NotForHere, "only 2 of lamp", 2)
        with pytest.raises(NotForHere) as caught:
            await orders.options(wait=30).call(True)
    error = caught.value
    assert isinstance(error, RemoteError)
    assert error.type_name.endswith("Local")
    assert str(error) == f"{error.type_name}: only 2 of lamp"
    assert (error.left, error.args) == (2, ("only 2 of lamp",))
    assert 'raise (Local if is_local else NotForHere)("lamp", left=2)' in error.traceback


async def test_a_retry_policy_matches_a_failure_by_its_nearest_known_class(app):
    @app.task(retry=Retry(max_retries=1, on=(NotForHere,), backoff=0.05))
    async def orders() -> int:
        if current().attempt > 1:
            return current().attempt
        raise Failure(
            module="nowhere",
            qualname="Gone",
            message="m",
            bases=((NotForHere.__module__, NotForHere.__qualname__),),
        ).rebuild()

    async with Worker(app):
        assert await orders.options(wait=30).call() == 2


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_exception_without_settable_attributes_arrives_and_is_retried(app, is_async):
    runs = []

    async def on_the_loop() -> None:
        runs.append(1)
        raise Frozen(1)

    def in_a_thread() -> None:
        runs.append(1)
        raise Frozen(1)

    body = on_the_loop if is_async else in_a_thread
    task = app.task(name="body", retry=Retry(max_retries=1, on=(Frozen,), backoff=0.01))(body)

    @app.task
    async def after(value: None) -> None:
        raise AssertionError("its parent has failed")

    async with Worker(app):
        with pytest.raises(Frozen) as caught:
            await task.options(wait=30).call()
        assert (len(runs), caught.value.code) == (2, 1)
        result = await chain(task.s(), after.s()).delay()
        with pytest.raises(Frozen) as caught:
            await result.get(timeout=30)
    assert "never ran" in caught.value.__notes__[-1]
