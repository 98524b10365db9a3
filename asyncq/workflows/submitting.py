"""Enqueues workflows and single calls, many at a time."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from asyncq.briefs import brief
from asyncq.sending import send_many
from asyncq.workflows.plan import Plan
from asyncq.workflows.signature import Signature
from asyncq.workflows.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncq import wire
    from asyncq.application import App
    from asyncq.sending import Call


async def submit(app: App, calls: Iterable[Workflow[Any]]) -> list[Any]:
    """Enqueues calls and returns their handles. Arguments and errors as `AsyncQ.submit`."""
    given = _checked(calls)
    single: list[Call] = []
    plans: list[tuple[Plan, list[tuple[wire.Job, bytes]]]] = []
    handles: list[Any] = [None] * len(given)
    for index, call in enumerate(given):
        if isinstance(call, Signature) and not call.task.is_linked and call.task.app is app:
            body = call.task.builder.body(call.args, call.kwargs)
            single.append((call.task, call.args, call.kwargs, body))
        else:
            plan = Plan(app)
            handles[index] = call.plan(plan, None)
            plans.append((plan, plan.messages()))
    sent = asyncio.ensure_future(send_many(app.sessions.current(), single))
    await asyncio.gather(sent, *(plan.submit(messages) for plan, messages in plans))
    rest = iter(sent.result())
    return [next(rest) if handle is None else handle for handle in handles]


def _checked(calls: Iterable[Workflow[Any]]) -> list[Workflow[Any]]:
    given: list[Any] = [] if isinstance(calls, Workflow) else list(calls)
    strange = (
        [calls] if isinstance(calls, Workflow) else [one for one in given if not isinstance(one, Workflow)]
    )
    if strange:
        for other in strange:
            if inspect.iscoroutine(other):
                other.close()  # it will not be awaited, and the error says so
        what = "a list of calls" if strange[0] is calls else "a call"
        raise TypeError(f"{brief(strange[0])} is not {what} to be made: submit([task.s(...), ...])")
    return given
