"""Following one job: its events, and the items that it yields, on any loop or thread.

An iteration begins at whatever session serves its first step, and its subscription is there: later steps run
on the loop of that session, wherever the caller is. Inside a task, each step gives the slot back while it
waits.
"""

from __future__ import annotations

from contextlib import aclosing, closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq import config, sync_bridge
from asyncq.client.deadlock import Wait
from asyncq.context import current_job
from asyncq.results.streams import Source
from asyncq.short_repr import brief
from asyncq.sync_bridge import on_app_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
    from datetime import timedelta

    from asyncq.results.events import Event, EventSource
    from asyncq.results.known_job import KnownJob
    from asyncq.results.streams import Readable
    from asyncq.sync_bridge import LoopOwner

T = TypeVar("T")


class Following:
    """Follows one job. Made when somebody asks, for most jobs are never followed."""

    def __init__(self, job: KnownJob[Any]) -> None:
        self._job = job

    async def events(self, timeout: float | timedelta | None) -> AsyncGenerator[Event, None]:
        """Gives the events of the job, see `AsyncResult.events`. The time begins with the first step."""
        with closing(self._source(timeout)) as source:
            while (event := await self._step(source, source.next)) is not None:
                yield event

    def events_sync(self, timeout: float | timedelta | None) -> Iterator[Event]:
        """Gives the events of the job to code that is not async."""
        with closing(self._source(timeout)) as source:
            while (event := sync_bridge.wait(self._loop_owner, self._step(source, source.next))) is not None:
                yield event

    async def call_with_events(
        self, timeout: float | timedelta | None, on_event: Callable[[Event], object]
    ) -> None:
        """Calls `on_event` with each event, until the job has ended. What it raises ends that."""
        async with aclosing(self.events(timeout)) as events:
            async for event in events:
                on_event(event)

    def items(self, after: int) -> Source:
        """Gives a stream what it takes its items from.

        Raises:
            ValueError: a negative number.
        """
        if after < 0:
            raise ValueError(f"after={brief(after)}: items are numbered from 1; 0 or None means all items")
        reader = self._job.reader(after)
        return Source(reader, partial(self._step, reader, reader.fill), self._decode, self._loop_owner)

    def _decode(self, data: bytes) -> Any:
        # Asked for each item: a task may be registered, or its name be learnt, while the stream is read.
        return self._job.item_codec().loads(data)

    def _source(self, timeout: float | timedelta | None) -> EventSource:
        return self._job.follower(None if timeout is None else config.seconds(timeout))

    # -- one step --

    @property
    def _loop_owner(self) -> LoopOwner:
        return self._job.loop_owner

    @on_app_loop
    async def _step(self, source: EventSource | Readable, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        session = source.session
        if session is None or session.is_on_app_loop():
            return await self._with_slot_released(step)
        return await session.run_on_app_loop(self._with_slot_released(step))

    async def _with_slot_released(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        job = current_job.get()
        if job is None or self._job.is_local:
            return await step()
        # What comes next may come from a job that waits for this one, so a cycle is no deadlock yet.
        async with Wait(job, self._job.app, [self._job], None, all_of_them=False):
            return await step()
