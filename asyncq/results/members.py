"""The handles inside a result set or group: which of them a call is for, and waits for all of them.

A set may hold groups, which may hold groups. The *leaves* are the handles of single jobs. The *deciding*
handles are those whose ends are the end of the whole: the leaves, and for a group without members those of
what it came after.

Made for one call, on any thread; the coroutines run on the loop of the session that serves it. If all handles
are of calls that this process ran itself, they need no loop.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from asyncq import sync_bridge
from asyncq.results.completion import Completions, fetch_states, value_or_error
from asyncq.results.view import View, job_of
from asyncq.sync_bridge import INLINE, on_app_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from datetime import timedelta

    from asyncq.client.application import App
    from asyncq.sync_bridge import LoopOwner


class Holder(Protocol):
    """A result set or a group. A group has a `parent`, too: what it came after."""

    @property
    def results(self) -> Sequence[Any]:
        """The members: handles, and groups."""
        ...


class Members:
    """The members of a result set or group.

    Args:
        holder: the set or group.
        app: the app that it was given, if any.
    """

    def __init__(self, holder: Holder, app: App | None = None) -> None:
        self._holder = holder
        self._app = app

    # -- which --

    def leaves(self) -> Iterator[Any]:
        """Gives the handles of single jobs, in order, those in groups inside this one among them."""
        for member in self._holder.results:
            if isinstance(member, View):
                yield member
            else:
                yield from Members(member).leaves()

    def deciding(self) -> Iterator[Any]:
        """Gives the handles whose ends are the end of the whole. The members of a group without members would
        have waited for what it came after, and failed with it.
        """
        one: Any = self._holder
        while one is not None and not isinstance(one, View):
            is_empty = True
            for member in one.results:
                for handle in (member,) if isinstance(member, View) else Members(member).deciding():
                    is_empty = False
                    yield handle
            one = getattr(one, "parent", None) if is_empty else None
        if one is not None:
            yield one

    def befores(self) -> Iterator[Any]:
        """Gives what this group and those inside it came after: handles, and groups."""
        before = getattr(self._holder, "parent", None)
        if before is not None:
            yield before
        for member in self._holder.results:
            if not isinstance(member, View):
                yield from Members(member).befores()

    def awaited(self) -> Iterator[Any]:
        """Gives the handles that a wait is for: calls that ran in this process have ended."""
        return (handle for handle in self.deciding() if not job_of(handle).is_local)

    # -- where --

    @property
    def serving_app(self) -> App | None:
        """The app whose server is asked; None if there is nothing to ask."""
        awaited = next(self.awaited(), None)
        return None if awaited is None else self._app or job_of(awaited).app

    @property
    def _loop_owner(self) -> LoopOwner:
        app = self.serving_app
        return INLINE if app is None else app.sessions

    # -- waiting --

    @on_app_loop
    async def values(
        self,
        timeout: float | timedelta | None,
        callback: Callable[[str, Any], object] | None,
        *,
        propagate: bool,
    ) -> list[Any]:
        """Waits for all and returns their values, see `ResultSet.get`."""
        with closing(Completions(list(self.deciding()), self.serving_app, timeout)) as completions:
            in_time = await completions.until(
                lambda: completions.complete or (propagate and completions.failed)
            )
        if propagate and completions.failed:
            raise completions.first_failure()
        if not in_time:
            raise completions.too_late()
        return self._values(callback, propagate=propagate)

    def _values(self, callback: Callable[[str, Any], object] | None, *, propagate: bool) -> list[Any]:
        values: list[Any] = []
        for member in self._holder.results:
            if isinstance(member, View):
                value: Any = value_or_error(member)
                if propagate and isinstance(value, Exception):
                    raise value
            else:
                value = Members(member)._values(None, propagate=propagate)
            if callback is not None:
                callback(str(member), value)
            values.append(value)
        return values

    async def completed(self, timeout: float | timedelta | None) -> AsyncGenerator[Any, None]:
        """Gives each leaf as its job ends, see `ResultSet.as_completed`. The time begins with the first
        step.
        """
        with closing(Completions(list(self.leaves()), self.serving_app, timeout)) as completions:
            while not completions.are_all_given:
                for handle in await self._next_ended(completions):
                    yield handle

    def completed_sync(self, timeout: float | timedelta | None) -> Iterator[Any]:
        """Gives each leaf as its job ends, to code that is not async."""
        with closing(Completions(list(self.leaves()), self.serving_app, timeout)) as completions:
            while not completions.are_all_given:
                yield from sync_bridge.wait(self._loop_owner, self._next_ended(completions))

    @on_app_loop
    async def _next_ended(self, completions: Completions[Any]) -> list[Any]:
        return await completions.next_ended()

    @on_app_loop
    async def done_and_pending(
        self, timeout: float | timedelta | None, return_when: str
    ) -> tuple[set[Any], set[Any]]:
        """Waits as `asyncq.wait` does, for the leaves."""
        handles = list(self.leaves())
        with closing(Completions(handles, self.serving_app, timeout)) as completions:
            enough = {
                asyncio.ALL_COMPLETED: lambda: completions.complete,
                asyncio.FIRST_COMPLETED: lambda: bool(completions.ended) or completions.complete,
                asyncio.FIRST_EXCEPTION: lambda: completions.failed or completions.complete,
            }
            one_will_do = return_when == asyncio.FIRST_COMPLETED
            await completions.until(enough[return_when], all_of_them=not one_will_do)
        done = set(completions.ended)
        return done, set(handles) - done

    # -- looking --

    async def fetch_states(self) -> list[Any]:
        """Looks once at all whose end is not known yet, and returns the deciding handles."""
        handles = list(self.deciding())
        await fetch_states(handles, self.serving_app)
        return handles
