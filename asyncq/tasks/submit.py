"""Enqueues many calls at once, for `app.submit` and `task.map`, in few round trips.

Single calls go in batches of 250 (`send_many`), each workflow in one step of its own (`Plan.submit`). Runs on
the loop of the session that serves the call. Arguments are checked before anything is sent, so a call that
does not fit enqueues nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import TYPE_CHECKING, Any

from asyncq.results.server_job import ServerJob
from asyncq.results.view import handle_of
from asyncq.short_repr import brief
from asyncq.tasks.planning import Plan
from asyncq.tasks.signature import Signature
from asyncq.tasks.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq import wire
    from asyncq.client.application import App
    from asyncq.client.session import Entry, Session
    from asyncq.tasks.job_builder import Sendable

    Call = tuple[Sendable, tuple[Any, ...], dict[str, Any], bytes]
    """A task, the arguments of a call, and these arguments checked and encoded."""


async def submit(app: App, calls: Iterable[Workflow[Any]]) -> list[Any]:
    """Enqueues calls and returns their handles. Arguments and errors as `AsyncQ.submit`."""
    given = _checked(calls)
    if app.sessions.inline is not None:
        return [await call.delay() for call in given]
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
    session = app.sessions.current()
    if session.on_enqueue:
        rest = iter(await _send_together(session, single, plans))
    else:
        sent = asyncio.ensure_future(send_many(session, single))
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
                other.close()  # else Python would also warn that it was never awaited
        what = "a list of calls" if strange[0] is calls else "a call"
        raise TypeError(f"{brief(strange[0])} is not {what}: write submit([task.s(...), ...])")
    return given


BATCH = 250
"""How many calls one batch has: 1 ms of work for the client, and 1 ms for the server."""


async def send_many(session: Session, calls: Sequence[Call]) -> list[Any]:
    """Enqueues calls in batches. The next batch is made while the server works on the one before, and other
    tasks of the loop get a turn between two batches.

    Returns:
        The handles, in the order of the calls.

    Raises:
        ValueError: an id is that of another call; the other calls may have been enqueued.
        QueueFull, BrokerUnavailable: as `Task.delay`; some of the calls may have been enqueued.
    """
    if session.on_enqueue:
        return await _send_together(session, calls)
    handles: list[Any] = []
    sent: list[asyncio.Task[None]] = []
    for start in range(0, len(calls), BATCH):
        part = calls[start : start + BATCH]
        entries, some = _entries(session, part)
        handles += some
        sent.append(asyncio.create_task(_send_batch(session, part, entries)))
        await asyncio.sleep(0)
    await asyncio.gather(*sent)
    return handles


def _entries(session: Session, calls: Sequence[Call]) -> tuple[list[Entry], list[Any]]:
    """Makes and announces the jobs of calls. Returns them, and their handles."""
    random = os.urandom(16 * len(calls)).hex()
    entries: list[Entry] = []
    handles: list[Any] = []
    for number, (task, args, kwargs, body) in enumerate(calls):
        builder = task.builder
        job, message = builder.call(body, session.channel, random[32 * number : 32 * number + 32])
        waiter = session.announce(job, new=not builder.has_own_id)
        entries.append((job, message, waiter))
        known: ServerJob[Any] = ServerJob(
            job.id, task.app, task, waiter, args, kwargs, is_ignored=job.ignore_result
        )
        handles.append(handle_of(task.handle, known))
    return entries, handles


async def _send_batch(session: Session, calls: Sequence[Call], entries: list[Entry]) -> None:
    refused = await session.submit(entries)
    if refused is not None:
        raise _taken(refused, calls, entries)


def _taken(refused: str, calls: Sequence[Call], entries: list[Entry]) -> ValueError:
    pairs = zip(calls, entries, strict=True)
    return next(task.builder.taken(refused) for (task, *_), entry in pairs if entry[0].id == refused)


async def _send_together(
    session: Session, calls: Sequence[Call], plans: Sequence[tuple[Plan, list[tuple[wire.Job, bytes]]]] = ()
) -> list[Any]:
    """Enqueues calls and workflows inside of the app's middleware. Nothing is sent before all of them have
    passed it. Returns the handles of the calls.
    """
    entries, handles = _entries(session, calls)
    workflows = [(plan, messages) for plan, messages in plans if messages]
    parts = [(entries, False), *((plan.entries(session, messages), True) for plan, messages in workflows)]
    first, *others = await session.submit_all(parts)
    if first is not None:
        raise _taken(first, calls, entries)
    for (plan, _), refused in zip(workflows, others, strict=True):
        if refused is not None:
            raise plan.taken(refused)
    return handles
