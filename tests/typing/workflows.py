"""Workflows, as the type checkers see them: run by mypy --strict and pyright, never imported.

Each `type: ignore` states an error that must be there: `warn_unused_ignores` fails if it is not.
"""

from __future__ import annotations

from typing import Any, NoReturn, assert_type

import asyncq
from asyncq import (
    AsyncQ,
    AsyncResult,
    Chain,
    EagerResult,
    Group,
    GroupResult,
    Signature,
    Task,
    Workflow,
    chain,
    chord,
    group,
)

app = AsyncQ("redis://localhost:6379/0")


@app.task
async def add(x: int, y: int = 0) -> int:
    """A coroutine task."""
    return x + y


@app.task
def shout(text: object) -> str:
    """A plain task."""
    return str(text).upper()


async def signatures() -> None:
    """A call as data keeps the type of its value, and may be a part of it."""
    assert_type(add.s(1), Signature[int])
    assert_type(add.si(1, y=2), Signature[int])
    assert_type(add.s(1).set(queue="q").options(countdown=1).clone((1,)), Signature[int])
    assert_type(add.s(1).link(shout.s()).link_error(shout.s()), Signature[int])
    assert_type(await add.s(2).delay(4), AsyncResult[int])
    assert_type(await add.s(2).apply_async((4,), queue="q"), AsyncResult[int])
    assert_type(await add.s(2).call(4), int)
    assert_type(add.s(2).apply((4,)), EagerResult[int])
    assert_type(add.s(2).call_sync(4), int)
    assert_type(add.s(2).delay_sync(4), AsyncResult[int])
    assert_type(add.starmap([(1, 2)]), Signature[list[int]])
    assert_type(shout.xmap(["a"]), Signature[list[str]])
    assert_type(add.chunks([(1, 2)], 2), Group[list[int]])


@app.task
async def alarm(job: str, error: Exception, traceback: str, recipient: str, *, loud: bool = False) -> None:
    """An error callback with arguments of its own."""


@app.task
async def pair(number: int, text: str) -> str:
    """A task without defaults."""
    return text * number


async def parts() -> None:
    """`s` takes all arguments, or those behind what comes in front: a value, or the three of `link_error`."""
    assert_type(pair.s(1, "a"), Signature[str])
    assert_type(pair.s("a"), Signature[str])
    assert_type(pair.s(text="a"), Signature[str])
    assert_type(pair.s(1, text="a"), Signature[str])
    assert_type(pair.s(), Signature[str])
    assert_type(add.s(1) | pair.s("a"), Chain[str])
    assert_type(pair.options(queue="q").s("a"), Signature[str])
    assert_type(add.s(1).link_error(alarm.s("ada", loud=True)), Signature[int])
    assert_type(alarm.s(recipient="ada"), Signature[None])
    unchecked: Task[..., Any] = app.tasks["pair"]
    assert_type(unchecked.s(1, 2, 3), Signature[Any])
    # One that lacks a keyword argument which has no default is made by hand.
    assert_type(Signature(pair, (), {"number": 1}), Signature[str])


async def wrong_parts() -> None:
    """What `s` refuses: arguments that fit nowhere."""
    pair.s(1)  # type: ignore[call-overload]
    pair.s("a", 1)  # type: ignore[call-overload]
    pair.s(1, "a", 2)  # type: ignore[call-overload]
    pair.s(1, number=2)  # type: ignore[call-overload]
    pair.s("a", loud=True)  # type: ignore[call-overload]
    pair.options(queue="q").s(1)  # type: ignore[call-overload]
    alarm.s(5)  # type: ignore[call-overload]
    alarm.s("ada", loud="yes")  # type: ignore[call-overload]
    shout.s("a", "b")  # type: ignore[call-overload]
    add.s("1") | add.s(2)  # type: ignore[call-overload]


async def chains() -> None:
    """A chain is typed by its last step."""
    a, b = add.s(1), shout.s()
    assert_type(a | b, Chain[str])
    assert_type(a | b | a, Chain[int])
    assert_type(a | (b | a), Chain[int])
    assert_type(chain(a), Chain[int])
    assert_type(chain(a, b), Chain[str])
    assert_type(chain(a, b, a), Chain[int])
    assert_type(chain(a, b, a, b), Chain[str])
    assert_type(chain(b, a, b, b, a), Chain[int])
    assert_type(chain(b, a, group(a), b, b, a), Chain[int])
    assert_type(chain(b, a, b, a, b, a, b, a, b, a, b, a), Chain[int])
    assert_type(chain(b, a, b, a, b, a, b, group(a)), Group[int])
    assert_type(chain(*[a, a]), Any)
    assert_type(chain(a, *[a, a], b), Chain[str])
    assert_type(chain([a, b]), Any)
    assert_type(await (a | b).delay(1), AsyncResult[str])
    assert_type(await (a | b).call(), str)
    assert_type((a | b).call_sync(), str)
    assert_type((a | b).apply(), EagerResult[str])


async def groups() -> None:
    """A group is a list of values, a chord is typed by its body."""
    a, b = add.s(1), shout.s()
    assert_type(group(a, a), Group[int])
    assert_type(group([a, a]), Group[int])
    assert_type(group(a | b for _ in range(3)), Group[str])
    assert_type(group(group(a), group(a)), Group[list[int], Any])
    nested: GroupResult[list[int]] = await group(group(a)).delay()
    assert_type(await nested, list[list[int]])
    assert_type((await group(a).delay())[0], AsyncResult[int])
    assert_type(a | group(b, b), Group[str])
    assert_type(group(a) | group(b), Group[str])
    assert_type(chain(a, group(b)), Group[str])
    assert_type(group(a, a) | b, Chain[str])
    assert_type(a | group(b) | a, Chain[int])
    assert_type(chord([a, a], b), Chain[str])
    assert_type(chord(group(a), b), Chain[str])
    assert_type(chord([a])(b), Chain[str])
    assert_type(chord([a], group(b)), Group[str])
    assert_type(await group(a).delay(), GroupResult[int])
    assert_type(await group(a).apply_async(), GroupResult[int])
    assert_type(await group(a).call(), list[int])
    assert_type(group(a).delay_sync(), GroupResult[int])
    assert_type(group(a).apply(), GroupResult[int])
    mixed: list[Workflow[Any]] = [a, b, a | b, group(a)]
    assert_type(group(mixed), Group[Any, Any])
    await group(a, group(b)).set(queue="q").delay()  # members of different kinds
    assert_type(mixed[0].delay_sync(), Any)
    assert_type(await group(a, b).call() == [1], bool)
    assert_type((await (await (a | b).delay()).get()), str)


async def exceptions_as_values() -> None:
    """The handles of a workflow, too, may give exceptions."""
    assert_type(await (await (add.s(1) | shout.s()).delay()).get(propagate=False), str | Exception)
    assert_type(await (await group(add.s(1)).delay()).get(propagate=False), list[int | Exception])
    assert_type(group(add.s(1)).delay_sync().join_sync(propagate=False), list[int | Exception])


async def options() -> None:
    """Callbacks are options of a call."""
    assert_type(await add.options(link=shout.s(), link_error=[shout.s()]).delay(1), AsyncResult[int])
    assert_type(await app.submit([add.s(1), add.s(1) | add.s(2)]), asyncq.ResultSet[int])
    await (await app.submit([add.s(1), group(add.s(1))])).get(timeout=1)  # of different kinds


@app.task
async def becomes(x: int) -> int:
    """A task that ends in another: checkers know that the call does not return."""
    return x or await asyncq.current().replace(add.s(x) | add.s(1))


def never(x: int) -> NoReturn:
    """The blocking twin does not return either."""
    asyncq.current().replace_sync(add.s(x))


async def mistakes() -> None:
    """What the checkers must refuse."""
    add.si("1")  # type: ignore[arg-type]
    add.si()  # type: ignore[call-arg]
    group(add)  # type: ignore[call-overload]
    chord([add.s(1)], 5)  # type: ignore[call-overload]
    chain(add.s(1), 5)  # type: ignore[call-overload]
    _ = add.s(1) | 5  # type: ignore[operator]
    await add.options(link=5).delay(1)  # type: ignore[arg-type]
    text: str = await (add.s(1) | add.s(2)).call()  # type: ignore[assignment]
    assert text
