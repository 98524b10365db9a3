"""A caller and a worker with two versions of the same classes, each in a process of its own."""

from __future__ import annotations

import sys

import pytest
from helpers.versions import FIRST, First, register, shop
from helpers.worker_process import worker_process

from asyncq import DecodeError, RemoteError

pytestmark = pytest.mark.anyio

BOTH_WAYS = [
    ("old", First.Old("a"), "New(name='a')"),
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


async def test_values_and_exceptions_between_two_versions(make_app, server_url, namespace, monkeypatch):
    monkeypatch.setitem(sys.modules, "shop", shop(First))
    app = make_app()
    tasks = register(app, FIRST, First)
    with worker_process(server_url, namespace, module="helpers.versions"):
        async with app:
            for name, value, shown in BOTH_WAYS:
                seen, back = await getattr(tasks, name).options(wait=30).call(value)
                assert (seen, repr(back), back) == (shown, repr(value), value)
            for name, value, said in REFUSED:
                with pytest.raises(DecodeError, match=said):
                    await getattr(tasks, name).options(wait=30).call(value)
            await _check_exceptions(tasks)
            await _check_a_chain(tasks)


async def _check_exceptions(tasks) -> None:
    with pytest.raises(First.Failed) as failed:
        await tasks.fail.options(wait=30).call("Failed")
    assert (str(failed.value), failed.value.code, failed.value.where) == ("no", 404, "here")
    # The text would be another one here.
    with pytest.raises(First.Moved) as moved:
        await tasks.fail.options(wait=30).call("Moved")
    assert isinstance(moved.value, RemoteError)
    assert (str(moved.value), moved.value.args) == ("shop.Moved: moved", ("no",))


async def _check_a_chain(tasks) -> None:
    """The worker hands its instance on to itself; the caller reads the last value, and as plain data."""
    result = await (tasks.make.s(1) | tasks.any.s()).delay()
    assert await result.get(30) == ("Order(number=1, paid=False)", {"number": 1, "paid": False})
