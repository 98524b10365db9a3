"""Runs the `on_enqueue` methods of an app around one enqueue: of a single job, a batch, or a workflow.

Each call has a chain of its own, from the outermost middleware to the innermost. All chains run up to the
innermost `call_next`. Then the jobs are sent together, and the chains go on with the answers. If one chain
ends before that, the others are cancelled and nothing is sent. Runs on the loop of the session that enqueues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from asyncq.middleware.outgoing_call import Call

EnqueueHook = Callable[[Call, Callable[[Call], Awaitable[bool]]], Awaitable[Any]]
"""The `on_enqueue` of a middleware."""

Send = Callable[[], Awaitable[Sequence[bool | Exception]]]
"""Sends all calls. Returns for each whether it became a new job, or why it did not become a job."""


async def run(hooks: Sequence[EnqueueHook], calls: Sequence[Call], send: Send) -> None:
    """Runs the hooks around a send.

    Args:
        hooks: the first is the outermost.
        calls: what is to be sent, in the order in which `send` answers.
        send: called once, when every chain has come to its innermost `call_next`.

    Raises:
        RuntimeError: a hook returned without `call_next`, or called it twice.
        Exception: what a hook raised, or what `send` raised. A hook cannot hide what `send` raised. It can
            hide the answer to one call, which the caller of `send` knows.
    """
    if not calls:
        await send()
        return
    departure = _Departure(send, len(calls))
    if len(calls) == 1:
        await _chain(hooks, calls[0], departure.alone)
    else:
        await _run_many(hooks, calls, departure)
    if departure.error is not None:
        raise departure.error


async def _run_many(hooks: Sequence[EnqueueHook], calls: Sequence[Call], departure: _Departure) -> None:
    loop = asyncio.get_running_loop()
    chains = [
        loop.create_task(_chain(hooks, call, partial(departure.together, index)))
        for index, call in enumerate(calls)
    ]
    for chain in chains:
        chain.add_done_callback(departure.stop_waiting)
    try:
        await departure.ready
        ended = [chain for chain in chains if chain.done()]
        for chain in ended:  # in their order: the first call that was refused names the reason
            chain.result()
        await departure.depart()
        await asyncio.wait(chains)
    finally:
        for chain in chains:
            chain.cancel()  # nothing is done to those that have ended
        await asyncio.wait(chains)
        errors = [None if chain.cancelled() else chain.exception() for chain in chains]
    for error in errors:
        if error is not None:
            raise error


async def _chain(hooks: Sequence[EnqueueHook], call: Call, send: Callable[[], Awaitable[bool]]) -> None:
    """Runs one call through all hooks. Raises if the call was not sent."""
    was_sent = False

    async def innermost(given: Call) -> bool:
        nonlocal was_sent
        if given is not call:
            raise TypeError(f"call_next takes the call that on_enqueue was given, not {given!r}")
        if was_sent:
            raise RuntimeError(f"on_enqueue called call_next twice for job {call.id!r}: a call is sent once")
        was_sent = True
        return await send()

    proceed: Callable[[Call], Awaitable[bool]] = innermost
    for hook in reversed(hooks):
        proceed = _around(hook, proceed)
    await proceed(call)
    if not was_sent:
        raise RuntimeError(
            f"a middleware did not pass on job {call.id!r} of {call.task}: on_enqueue must await "
            "call_next(call), or raise an exception to refuse the call"
        )


def _around(
    hook: EnqueueHook, call_next: Callable[[Call], Awaitable[bool]]
) -> Callable[[Call], Awaitable[Any]]:
    return lambda call: hook(call, call_next)


class _Departure:
    """The moment at which all calls of an enqueue are sent.

    Args:
        send: sends them.
        count: how many calls there are.

    Attributes:
        error: what `send` raised.
        ready: done when all calls have come here, or a chain has ended before that.
    """

    def __init__(self, send: Send, count: int) -> None:
        self.error: BaseException | None = None
        self._send = send
        self._missing = count
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._answers: list[asyncio.Future[bool]] = [loop.create_future() for _ in range(count)]

    async def alone(self) -> bool:
        """Sends the only call, and returns the answer."""
        await self.depart()
        return await self._answers[0]

    async def together(self, index: int) -> bool:
        """Waits until all calls are sent, and returns the answer to one of them."""
        self._missing -= 1
        if not self._missing:
            self.stop_waiting()
        return await self._answers[index]

    def stop_waiting(self, _chain: object = None) -> None:
        """Ends the wait for the other calls."""
        if not self.ready.done():
            self.ready.set_result(None)

    async def depart(self) -> None:
        """Sends the calls, and lets their chains go on with the answers, or with the error of `send`."""
        try:
            found: Sequence[bool | BaseException] = await self._send()
        except asyncio.CancelledError as error:
            self.error = error  # the caller was cancelled; a hook must not hide that either
            raise
        except BaseException as error:  # noqa: BLE001  the chains get it, and `run` raises it
            self.error = error
            found = [error] * len(self._answers)
        for future, answer in zip(self._answers, found, strict=True):
            if future.done():  # its chain was cancelled by the hook itself
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
                future.exception()  # a chain that does not read it must not make asyncio warn
            else:
                future.set_result(answer)
