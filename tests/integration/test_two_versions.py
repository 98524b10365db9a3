"""A caller and a worker with two versions of the same classes, each in a process of its own."""

from __future__ import annotations

import sys

import pytest
from helpers.versions import FIRST, SECOND, First, Second, give_back, register, shop
from helpers.waiting import until_state
from helpers.worker_process import worker_process

from asyncq import DecodeError, RemoteError, Retry, Worker

IN_EXECUTORS = ("old", "login", "price", "order")

pytestmark = pytest.mark.anyio

BOTH_WAYS = [
    ("old", First.Old("a"), "New(name='a')"),
    ("weight", First.Weight(1), "Weight(grams=1)"),
    ("login", First.Login(user="a"), "Login(user='a', at=None)"),
    ("patch", First.Patch(title="t"), "Patch(title='t', text='')"),
    ("union", First.Email("a"), "Email(to='a')"),
    ("union", First.Sms("a"), "Sms(to='a')"),
    ("one", First.Email("a"), "Email(to='a')"),
    ("note", First.Note(about=First.Email("a")), "Note(about=Email(to='a'), pages=1)"),
    ("step", First.Step.UP, "<Step.HIGH: 'up'>"),
    ("box", First.Box[int](item=1), "Box[Union[int, str]](item=1)"),
]
REFUSED = [
    ("order", First.Order(1), r"^result\[1\]: .*Order: TypeError: .*'paid'"),
    ("orders", [{"k": First.Order(1)}], r"^result\[1\]\[0\]\['k'\]: .*Order: TypeError: .*'paid'"),
    ("price", First.Price(1), r"^args\[0\]\.net: a value of type int arrived, but the annotation says str"),
    ("point", First.Point(1, 2), r"^result\[1\]: .*Point: TypeError: .*'label'"),
    ("one", [First.Email("a")], r"^args\[0\]: .*list with an instance of Email in it arrived"),
    ("note", First.Note(about=First.Sms("a")), r"^args\[0\]\.about: an instance of Sms arrived"),
    ("size", First.Size(1), r"^result\[1\]: 2 items arrived, but shop\.Size has 1 fields"),
]


async def test_values_and_exceptions_pass_between_two_versions(make_app, server_url, namespace, monkeypatch):
    monkeypatch.setitem(sys.modules, "shop", shop(First))
    app = make_app()
    tasks = register(app, FIRST, First)
    with worker_process(server_url, namespace, module="helpers.second_version"):
        async with app:
            for name, value, shown in BOTH_WAYS:
                seen, back = await getattr(tasks, name).options(wait=30).call(value)
                assert (seen, repr(back), back) == (shown, repr(value), value)
            for name, value, output in REFUSED:
                with pytest.raises(DecodeError, match=output):
                    await getattr(tasks, name).options(wait=30).call(value)
            await _check_executors(app)
            await _check_exceptions(tasks)
            await _check_a_chain(tasks)


async def _check_executors(app) -> None:
    for executor in ("thread", "process"):
        tasks = {name: give_back(app, f"{name}.{executor}", FIRST[name]) for name in IN_EXECUTORS}
        for name, value, shown in BOTH_WAYS:
            if name in tasks:
                assert await tasks[name].options(wait=30).call(value) == (shown, value)
        for name, value, output in REFUSED:
            if name in tasks:
                with pytest.raises(DecodeError, match=output):
                    await tasks[name].options(wait=30).call(value)


async def _check_exceptions(tasks) -> None:
    with pytest.raises(First.Failed) as failed:
        await tasks.fail.options(wait=30).call("Failed")
    assert (str(failed.value), failed.value.code, failed.value.where) == ("no", 404, "here")
    # The caller's version of the class would give another text.
    with pytest.raises(First.Moved) as moved:
        await tasks.fail.options(wait=30).call("Moved")
    assert isinstance(moved.value, RemoteError)
    assert (str(moved.value), moved.value.args) == ("shop.Moved: moved", ("no",))


async def _check_a_chain(tasks) -> None:
    """The worker passes its instance to its own next job. The caller reads the last value, and plain data."""
    result = await (tasks.make.s(1) | tasks.any.s()).delay()
    assert await result.get(30) == ("Order(number=1, paid=False)", {"number": 1, "paid": False})


@pytest.fixture
def both(make_app):
    """Makes two apps with the tasks of the two versions. Returns the apps and their tasks."""
    old, new = make_app(), make_app()
    return old, register(old, FIRST, First), new, register(new, SECOND, Second)


async def test_a_key_means_the_same_call_in_both_versions_if_the_values_are_equal(both):
    old, before, new, after = both
    async with old, new:
        for name, first, second in (
            ("weight", First.Weight(1), Second.Weight(1)),
            ("old", First.Old("a"), Second.New("a")),
            ("box", First.Box[int](item=1), Second.Box[int | str](item=1)),
        ):
            key = {"key": f"the {name}"}
            result = await getattr(before, name).options(**key).delay(first)
            assert await getattr(after, name).options(**key).delay(second) == result
        await before.order.options(key="the order").delay(First.Order(1))
        # The class of the first call lacks a field, so nobody can know whether the calls are equal.
        with pytest.raises(ValueError, match="with other arguments"):
            await after.order.options(key="the order").delay(Second.Order(1))


async def test_an_item_that_the_reader_cannot_decode_is_named_and_hides_no_other_item(both):
    old, before, new, after = both
    async with old, Worker(new):
        stream = (await before.items.delay(5)).stream()
        assert await anext(stream) == 5
        with pytest.raises(DecodeError, match=r"^item 2: the fields received do not make a shop\.Order"):
            await anext(stream)
        assert [item async for item in stream] == [6]
    async with new, Worker(old):
        stream = (await after.items.delay(5)).stream()
        assert [item async for item in stream] == [5, Second.Order(5), 6]


async def test_jobs_whose_arguments_an_old_worker_cannot_read_are_retried_and_can_be_replayed(both):
    old, _, new, after = both
    retry = Retry(max_retries=1, backoff=0.01, jitter=False)
    async with old, new:
        async with Worker(old):
            given_up = await after.order.options(retry=retry).delay(Second.Order(1))
            with pytest.raises(DecodeError, match=r"^args\[0\]: .*'paid'"):
                await given_up.get(30)
            slow = Retry(max_retries=1, backoff=1, jitter=False)
            waits = await after.order.options(retry=slow).delay(Second.Order(2))
            await until_state(waits, "RETRY")
        [letter] = await old.control.dead.list()
        assert (letter.job_id, letter.reason, letter.retries) == (given_up.id, "retries used up", 1)
        async with Worker(new):
            replayed = await old.control.dead.replay(letter.id)
            seen = await new.AsyncResult(replayed.id).get(30)
            assert seen == ("Order(number=1, paid=False)", Second.Order(1))
            assert await waits.get(30) == ("Order(number=2, paid=False)", Second.Order(2))
