"""A call that this process ran itself, without a server: what stands behind an `EagerResult`.

It has ended before anybody can ask, so nothing here waits: coroutines end at once, on any thread, with or
without an event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asyncq import wire
from asyncq.errors import ResultNotFound
from asyncq.outcome import Outcome
from asyncq.results.events import last_event
from asyncq.results.known_job import KnownJob
from asyncq.results.streams import KeptItems
from asyncq.serializers import PLAIN_VALUE
from asyncq.states import State
from asyncq.sync_bridge import INLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from asyncq.client.application import App, Runnable
    from asyncq.client.session import Session
    from asyncq.client.sessions import InlineCalls
    from asyncq.results.events import Event
    from asyncq.sync_bridge import LoopOwner

R_co = TypeVar("R_co", covariant=True)


class LocalCall(KnownJob[R_co]):
    """A call that has ended in this process.

    Args:
        outcome: how it ended.
        app: its app; None for the only one of this process, if it is asked for.
        task: its task, if known.
        items: what it yielded, if it is that of a generator.
    """

    __slots__ = ("_items", "_outcome")

    is_local = True

    def __init__(
        self,
        outcome: Outcome[R_co],
        app: App | None,
        task: Runnable | None = None,
        items: Sequence[bytes] = (),
    ) -> None:
        super().__init__(outcome.id, app, task)
        self._outcome: Outcome[R_co] | None = outcome
        self._items = items

    @property
    def loop_owner(self) -> LoopOwner:
        """Runs coroutines where they are: none of them waits."""
        return INLINE

    def known(self) -> Outcome[R_co] | None:
        """Returns how it ended; None once it is forgotten."""
        return self._outcome

    def at_hand(self) -> Outcome[R_co] | None:
        """See `KnownJob.at_hand`."""
        return None if self.is_ignored else self._outcome

    def is_resolved(self) -> bool:
        """Whether it has ended: it has."""
        return True

    @property
    def state(self) -> State:
        """`SUCCESS`, `FAILURE` or `REVOKED`; `UNKNOWN` once it is forgotten."""
        return State.UNKNOWN if self._outcome is None else self._outcome.state

    # -- waiting --

    def check_join(self, what: str, *, disable_sync_subtasks: bool = True) -> None:
        """Lets every call pass, for nothing waits."""

    async def outcome(self, timeout: float | timedelta | None) -> Outcome[R_co]:  # noqa: ARG002  nothing waits
        """Returns how it ended.

        Raises:
            ResultNotFound: it was forgotten, or its result is ignored.
        """
        return self._not_forgotten()

    def _not_forgotten(self) -> Outcome[R_co]:
        outcome = self.at_hand()
        if outcome is None:
            why = "it was forgotten" if self._outcome is None else "its task ignores results"
            raise ResultNotFound(f"no result under the id {self.id!r}: {why}")
        return outcome

    def when_ended(self, callback: Callable[[bool], object]) -> None:
        """Calls back in the next turn of this thread's loop."""
        asyncio.get_running_loop().call_soon(callback, self.state is State.SUCCESS)

    def follower(self, limit: float | None) -> _OneEvent:  # noqa: ARG002  nothing waits
        """See `KnownJob.follower`."""
        return _OneEvent(self._not_forgotten)

    def reader(self, after: int) -> KeptItems:
        """See `KnownJob.reader`."""
        return KeptItems(self._items, after, lambda: self._not_forgotten().unwrap())

    # -- looking and ending --

    async def refresh(self) -> None:
        """Does nothing: there is nowhere to look."""

    async def exists(self) -> bool:
        """Whether it has not been forgotten."""
        return self._outcome is not None

    async def revoke(self, jobs: Sequence[KnownJob[Any]], **_: object) -> None:
        """Changes nothing, for it has ended."""

    async def forget(self) -> None:
        """Drops the outcome."""
        self._outcome = None
        if self._app is not None and self._app.sessions.inline is not None:
            self._app.sessions.inline.forget(self.id)


def local_call(inline: InlineCalls, id: str, app: App, task: Runnable | None) -> LocalCall[Any]:
    """Returns the call behind a handle that is made from an id, where calls run inline."""
    ended = inline.outcome(id)
    if ended is None:
        call: LocalCall[Any] = LocalCall(GivenOutcome(id, None, State.SUCCESS, None, None), app, task)
        call._outcome = None  # unknown, or forgotten: there is no way to tell
        return call
    decoded = wire.decode_ended(*ended)
    task = task or app.find_task(decoded.name or "")
    returns = PLAIN_VALUE if task is None else task.returns
    return LocalCall(Outcome(id, decoded, returns), app, task, inline.items(id))


class _OneEvent:
    """Gives the last event, the only one that there is."""

    session: Session | None = None

    def __init__(self, outcome: Callable[[], Outcome[Any]]) -> None:
        self._outcome = outcome
        self._is_closed = False

    async def next(self) -> Event | None:
        """Returns the event, and then None."""
        event = last_event(self._outcome())
        if self._is_closed:
            return None
        self._is_closed = True
        return event

    def close(self) -> None:
        """Does nothing: nothing is open."""


_LETTERS = {State.SUCCESS: wire.SUCCEEDED, State.FAILURE: wire.FAILED, State.REVOKED: wire.REVOKED}


class GivenOutcome(Outcome[R_co]):
    """An outcome made of Python objects, which have not been encoded.

    Args:
        id: of the call.
        value: what it returned, or what it raised.
        state: `SUCCESS`, `FAILURE` or `REVOKED`.
        traceback: where it failed, as text.
        name: the task's name.
    """

    __slots__ = ("_text", "_value")

    def __init__(self, id: str, value: Any, state: State, traceback: str | None, name: str | None) -> None:
        super().__init__(id, wire.Ended(_LETTERS[state], name=name or "", attempts=1), PLAIN_VALUE)
        self._value = value
        self._text = traceback

    def unwrap(self) -> R_co:
        """Returns the value, or raises the exception: the objects themselves."""
        error = self.error
        if error is not None:
            raise error
        return cast("R_co", self._value)

    @property
    def value(self) -> R_co | None:
        """The value itself; None if there is none."""
        return self._value if self.state is State.SUCCESS else None

    @property
    def error(self) -> Exception | None:
        """The exception itself; None after success."""
        if self.state is State.SUCCESS or isinstance(self._value, Exception):
            return None if self.state is State.SUCCESS else cast("Exception", self._value)
        return super().error

    @property
    def traceback(self) -> str | None:
        """Where it failed, as it was given."""
        return self._text
