"""A job as a resource of a web site: how it is shown, waited for, followed and ended by its id.

This module knows no framework, and the modules of all frameworks use it, so that a page needs no change when
the site does. A job is shown as JSON with `id`, `state` and one of

- `value`, once it has succeeded;
- `error`, a problem document, if it failed, was revoked, or waits for its next try;
- `progress`, what it reported last, while it runs.

On any loop.
"""

from __future__ import annotations

import inspect
import logging
import re
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from anyio import to_thread

from asyncq.broker.schema.records import Flags
from asyncq.errors import BrokerUnavailable, ResultNotFound, ResultTimeout
from asyncq.integrations import problems
from asyncq.integrations.server_sent_events import END, event
from asyncq.json_values import plain
from asyncq.results.handle import AsyncResult
from asyncq.results.view import job_of
from asyncq.states import READY_STATES, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from asyncq.app import AsyncQ
    from asyncq.client.application import App
    from asyncq.results.events import Event

    Authorize = Callable[[Any, str], bool | Awaitable[bool]]
    """Says whether a client may see and end a job, by its request and the id."""
    Encode = Callable[[Any, str | None], Any]
    """Makes JSON of a value, or of an item that a generator yielded, of the task with that name."""

log: logging.Logger = logging.getLogger(__name__)

LONGEST_WAIT: Final = 60
"""Seconds that a client may have the answer held back: proxies give up on an answer after a minute."""
RETRY_AFTER: Final = 1
"""Seconds after which a client may look again at a job that has not ended."""
_REASON = "a client of the site ended it"


class Revocable(Protocol):
    """A handle of one job or of many."""

    @property
    def app(self) -> App | None:
        """The app of the jobs."""
        ...

    def revoke(self, *, terminate: bool, reason: str | None) -> Coroutine[Any, Any, Any]:
        """Ends the jobs."""
        ...


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The answer to a request that has started a job.

    Attributes:
        id: the job's id.
        state: the state of the job when the answer was made.
        url: where the job can be looked at, without the host; its events are at `{url}/events`.
    """

    id: str
    state: str
    url: str


class JobResource:
    """Shows, follows and ends the jobs of an app by their ids.

    Args:
        app: whose jobs they are.
        encode: makes JSON of values and items.
    """

    def __init__(self, app: AsyncQ, encode: Encode | None = None) -> None:
        self.app = app
        self._encode: Encode = encode or _plain

    async def find(self, id: str) -> AsyncResult[Any]:
        """Looks once at a job, and returns its handle.

        Raises:
            ResultNotFound: there is no such job, or no result of it.
            BrokerUnavailable: no answer within the operation timeout.
        """
        handle = self._handle(id)
        # Not `refresh`: a result may be forgotten while this process still knows it.
        is_there = await handle.exists()
        seen = job_of(handle).latest
        if not is_there or seen is None or Flags(seen.snapshot.flags).is_ignored:
            raise ResultNotFound(f"no result under the id {id!r}")
        return handle

    async def shown_after(self, id: str, wait: float) -> dict[str, Any]:
        """Waits so many seconds for the end of a job, and returns how it is shown then. Raises as `find`."""
        handle = await self.find(id)
        if wait and handle.state not in READY_STATES:
            with suppress(ResultTimeout):  # then it is shown as it is
                await handle.outcome(timeout=wait)
        return self.shown(handle)

    def shown(self, handle: AsyncResult[Any]) -> dict[str, Any]:
        """Returns the job as this process last saw it, as JSON."""
        return self._document(handle, handle.state, handle.info)

    async def end(self, id: str) -> None:
        """Ends a job: one that runs is ended, and so are the jobs that it waits for. Does nothing if it has
        ended.

        Raises:
            ResultNotFound: there is no such job.
            BrokerUnavailable: no answer within the operation timeout.
        """
        handle = self._handle(id)
        if not await handle.exists():
            raise ResultNotFound(f"no job under the id {id!r}")
        if handle.state not in READY_STATES:
            await handle.revoke(terminate=True, parents=True, reason=_REASON)

    # -- following --

    async def states(self, handle: AsyncResult[Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Gives the job as it is shown, now and after each change, to its end. Raises as
        `AsyncResult.events`.
        """
        changes = cast("AsyncGenerator[Event, None]", handle.events())
        async with aclosing(changes):
            async for change in changes:
                yield self._document(handle, change.state, change.info)

    async def events(self, handle: AsyncResult[Any], after: int) -> AsyncGenerator[bytes, None]:
        """Gives the states of a job as server-sent events, with numbers behind `after`."""
        number = after
        document: dict[str, Any] = {}
        try:
            async with aclosing(self.states(handle)) as states:
                async for document in states:
                    number += 1
                    yield event(document, number)
        except ResultNotFound as error:
            document = _vanished(handle, error)
        except BrokerUnavailable as error:
            log.info("the events of job %r are cut off: %s", handle.id, error)
            return  # a browser asks again
        yield event(document, END, END)

    async def items(self, handle: AsyncResult[Any], after: int) -> AsyncGenerator[bytes, None]:
        """Gives the items of a generator task behind number `after` as server-sent events. The event behind
        the last has the job.
        """
        items = handle.stream(after)
        try:
            async for item in items:
                yield event(self._encode(item, handle.name), items.offset)
        except BrokerUnavailable as error:
            log.info("the stream of job %r is cut off: %s", handle.id, error)
            return  # a browser asks again
        except Exception as error:
            outcome = job_of(handle).known()
            if outcome is None and isinstance(error, ResultNotFound):
                yield event(_vanished(handle, error), END, END)
                return
            if outcome is None or type(outcome.error) is not type(error):
                raise
            # So ended the job, which the last event says.
        finally:
            await items.aclose()
        yield event(self.shown(handle), END, END)

    # -- within --

    def _handle(self, id: str) -> AsyncResult[Any]:
        try:
            return self.app.AsyncResult(id)
        except ValueError as error:  # no job can have this id
            raise ResultNotFound(str(error)) from None

    def _document(self, handle: AsyncResult[Any], state: State | str, info: Any) -> dict[str, Any]:
        document = {"id": handle.id, "state": str(state)}
        if state == State.SUCCESS:
            return {**document, "value": self._encode(info, handle.name)}
        if isinstance(info, Exception):
            return {**document, "error": problems.problem_of(info).document()}
        return document if info is None else {**document, "progress": plain(info)}


def revoke_abandoned(handle: Revocable) -> None:
    """Revokes the jobs of a client that went away, in the background."""
    assert handle.app is not None
    revoke = partial(handle.revoke, terminate=True, reason="the client that waited for it went away")
    handle.app.sessions.send_off(revoke)


def checked_handle(result: object) -> AsyncResult[Any]:
    """Returns the handle of one job.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(result, AsyncResult):
        return result
    raise TypeError(f"accepted() takes the handle of one job, which `delay` gives, not {result!r}")


def _plain(value: Any, _task: str | None) -> Any:
    return plain(value)


def _vanished(handle: AsyncResult[Any], error: ResultNotFound) -> dict[str, Any]:
    """Returns what is shown of a job that was forgotten while a client followed it."""
    return {
        "id": handle.id,
        "state": str(State.UNKNOWN),
        "error": problems.problem_of(error).document(),
    }


async def check(authorize: Authorize, request: Any, id: str) -> None:
    """Asks `authorize` whether a client may see a job. A plain function runs in a thread.

    Raises:
        ResultNotFound: it may not.
        Exception: what `authorize` raised.
    """
    if inspect.iscoroutinefunction(authorize):
        may_see = await authorize(request, id)
    else:
        may_see = await to_thread.run_sync(authorize, request, id)
        if inspect.isawaitable(may_see):  # an object whose `__call__` is a coroutine function
            may_see = await may_see
    if not may_see:
        raise ResultNotFound(f"the client may not see job {id!r}")


# -- what a request asks for --


def wait_of(prefer: str | None) -> int:
    """Returns for how many seconds a client prefers to wait: `Prefer: wait=10`, RFC 7240. What cannot be
    understood counts as no wish, and a longer wait than a minute as a minute.

    >>> wait_of("respond-async, wait=10"), wait_of("wait=soon"), wait_of(None), wait_of("wait=9999")
    (10, 0, 0, 60)
    """
    found = re.search(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])', prefer or "", re.IGNORECASE)
    return min(int(found[1]), LONGEST_WAIT) if found else 0


def number_of(last_event_id: str | None) -> int | None:
    """Returns the number of the last event that a client has got; None if it has got all there are.

    Raises:
        ValueError: it is not the id of one of our events.

    >>> number_of("17"), number_of(None), number_of("end")
    (17, 0, None)
    """
    if not last_event_id:
        return 0
    if last_event_id == END:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", last_event_id):
        raise ValueError("Last-Event-ID must be the id of an event of this stream: a number")
    return int(last_event_id)
