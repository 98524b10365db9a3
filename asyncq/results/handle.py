"""The handle of one job: await it, look at it, end it, forget it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from contextlib import aclosing, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from asyncq import config, failures, sync_bridge, wire
from asyncq.broker.schema.records import Flags
from asyncq.client.deadlock import Wait, check_join
from asyncq.context import current_job
from asyncq.errors import AsyncQError, IncompleteStream, ResultNotFound, ResultTimeout
from asyncq.outcome import Outcome
from asyncq.results import handle_serialization
from asyncq.results.events import EventFollower
from asyncq.results.graph import DependencyGraph
from asyncq.results.streams import Reader, Source, Stream, SyncStream
from asyncq.results.tree import TreeTraversal
from asyncq.results.view import View
from asyncq.short_repr import brief
from asyncq.states import State
from asyncq.sync_bridge import blocking, on_app_loop, overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
    from datetime import timedelta

    from asyncq.broker.waiters import Waiter
    from asyncq.client.application import App, Returning
    from asyncq.context import Context
    from asyncq.results.events import Event
    from asyncq.results.groupresult import GroupResult
    from asyncq.results.streams import Readable
    from asyncq.wire import Signal

Step = tuple["AsyncResult[Any] | None", "AsyncResult[Any]"]
"""A job, and the one through which the traversal reached it."""

LAST_FETCH_TIMEOUT = 0.1
"""Seconds that a wait gives the server at its end to answer with the job's status."""

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

log: logging.Logger = logging.getLogger(__name__)


class AsyncResult(View[R_co]):
    """The handle of a job: `await result` is its value.

    Awaited methods talk to the server; properties never do, they say what this process last saw. An outcome
    is pushed here the moment the job ends, and updates every live handle of that job in the process.

    A handle costs nothing to drop, and may be rebuilt from the id alone, in any process:
    `app.AsyncResult(id)`.

    Args:
        id: the job's id.
        app: the app; by default the only one of this process.
        task: the task, if known: gives the value its type.

    Example:
        ```python
        result = await add.delay(4, 4)
        print(result.state)  # PENDING
        print(await result.get(timeout=10))  # 8
        ```
    """

    __slots__ = ("_graph",)
    parent: AsyncResult[Any] | GroupResult[Any, Any] | None

    @overload
    def __init__(self: AsyncResult[Any], id: str, app: App | None = None) -> None: ...

    @overload
    def __init__(self, id: str, app: App | None = None, *, task: Returning[R_co] | None) -> None: ...

    def __init__(self, id: str, app: App | None = None, *, task: Returning[R_co] | None = None) -> None:
        super().__init__(id, app, task=task)

    # -- waiting --

    def __await__(self) -> Generator[Any, Any, R_co]:
        """`await result` is `await result.get()`."""
        return self.get().__await__()

    @overload
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: Literal[True] = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co: ...

    @overload
    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co | Exception: ...

    async def get(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co | Exception:
        """Waits for the job to end and returns its value.

        Woken by push. Cancelling or timing out ends this wait only: the job and other waits for it go on,
        unless `revoke_on_abandon` says otherwise. May be called any number of times, each gives a fresh
        value. Once the outcome is known here it needs no connection, and does not open an app that is closed.

        Args:
            timeout: seconds; None waits for ever, 0 looks once and does not wait.
            propagate: False returns the task's exception instead of raising it.
            follow_parents: of a job that never ran because one before it failed, raise what that one raised;
                False raises a `TaskRevoked` that names it.
            callback: called as `callback(id, value)` before the value is returned.
            on_event: called with each `Event` while this waits, the final one included; see `events`. What it
                raises ends the wait.
            disable_sync_subtasks: False allows this wait inside a task, see `allow_join_result`.
            revoke_on_abandon: if this wait times out or is cancelled (in `get_sync`, by Ctrl-C), revoke the
                job as `revoke(terminate=True)` does. The wait ends at once; the revocation is sent in the
                background, and closing the app waits up to two seconds for it.

        Raises:
            ResultTimeout: the job did not end in time (also a builtin `TimeoutError`).
            ResultNotFound: unknown, forgotten or expired id, or the task's result is ignored. At once.
            TaskRevoked, TaskExpired, WorkerLost: the job ended without its body coming to an end.
            WouldDeadlock: called inside a task, without leave.
            Exception: whatever the task raised, with the remote traceback as its `__cause__`.
        """
        check_join("AsyncResult.get()", (self,), disable_sync_subtasks=disable_sync_subtasks)
        try:
            if on_event is not None:
                await self._follow(timeout, on_event)
            outcome = self.known() or await self._outcome(timeout)
        except (ResultTimeout, asyncio.CancelledError) as error:
            if not revoke_on_abandon:
                raise
            self._abandon()
            if isinstance(error, asyncio.CancelledError) or timeout is None:
                raise
            limit = config.shown(config.seconds(timeout))
            raise ResultTimeout(f"job {self.id} did not end within {limit}, and is being revoked") from None
        if not follow_parents and outcome.member is not None:
            outcome = outcome.unfollowed()
        value = outcome.unwrap() if propagate or outcome.error is None else outcome.error
        if callback is not None:
            callback(self.id, value)
        return value

    @overload
    def get_sync(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: Literal[True] = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co: ...

    @overload
    def get_sync(
        self,
        timeout: float | timedelta | None = None,
        *,
        propagate: bool,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        disable_sync_subtasks: bool = True,
        revoke_on_abandon: bool = False,
    ) -> R_co | Exception: ...

    @overloaded
    @blocking(get)
    def get_sync(self) -> None:
        """Blocking twin of `get`."""

    wait = get
    wait_sync = get_sync

    async def outcome(self, timeout: float | timedelta | None = None) -> Outcome[R_co]:
        """Waits for the job to end and says how, as a value: never raises for the task's own failure.

        Raises:
            ResultTimeout, ResultNotFound, WouldDeadlock: as `get`.
        """
        check_join("AsyncResult.outcome()", (self,))
        return self.known() or await self._outcome(timeout)

    @blocking(outcome)
    def outcome_sync(self) -> None:
        """Blocking twin of `outcome`."""

    def _abandon(self) -> None:
        """Nobody waits any more for a job that is worth nothing else: sees to its end."""
        self.app.sessions.send_off(
            partial(self.revoke, terminate=True, reason="the wait for it was abandoned")
        )

    @on_app_loop
    async def _outcome(self, timeout: float | timedelta | None) -> Outcome[R_co]:
        limit = None if timeout is None else config.seconds(timeout)
        if self.ignored:
            raise ResultNotFound(f"job {self.id} was enqueued with ignore_result=True: there is no result")
        waiter = self.waiter()
        job = current_job.get()
        if limit == 0:
            await self._fetch_status(waiter, timeout=0.2)  # short also when the server hangs
        elif job is None:
            await self.app.sessions.current().listener.wait(waiter, limit)
        elif waiter.ended is None:
            await self._wait_in_job(job, waiter, limit)
        if limit and waiter.ended is None and not waiter.gone:
            await self._fetch_at_the_end(waiter)
        if waiter.ended is None:
            raise self._no_outcome(waiter, limit)
        return Outcome(self.id, waiter.ended, self.codec(waiter.ended))

    async def _fetch_at_the_end(self, waiter: Waiter) -> None:
        """Fetches the job's status once when a wait times out: what this process knows of it is as old as the
        beginning of the wait. Without an answer in `LAST_FETCH_TIMEOUT` the wait ends all the same.
        """
        try:
            async with asyncio.timeout(LAST_FETCH_TIMEOUT):
                await self._fetch_status(waiter, LAST_FETCH_TIMEOUT)
        except (TimeoutError, AsyncQError) as error:
            log.debug("the state of job %r could not be fetched (%r)", self.id, error)

    async def _wait_in_job(self, job: Context, waiter: Waiter, limit: float | None) -> None:
        end = None if limit is None else time.monotonic() + limit
        async with Wait(job, self.app, [self], limit):
            left = None if end is None else max(0.0, end - time.monotonic())
            await self.app.sessions.current().listener.wait(waiter, left)

    # -- following --

    def events(self, timeout: float | timedelta | None = None) -> AsyncIterator[Event]:
        """Gives what happens to the job, as it happens: `async for event in result.events()`.

        The newest state comes first, whatever came before it; then each change and what the task says of
        itself with `update_state` and `progress`, by push; last the final state. When the task says more than
        is taken, or the connection is lost, some in between may be left out, but never the newest. That it
        was started is looked for with pauses of up to a second, and what a dying worker does to it every
        five.

        Any number may follow, in any process; each iteration is one of its own.

        Args:
            timeout: seconds for the whole iteration; None waits for ever, 0 gives the newest state only.

        Raises:
            ResultTimeout: from the loop: the job has not ended in time; it goes on.
            ResultNotFound: from the loop: unknown, forgotten or expired id, or the task's result is ignored.
            BrokerUnavailable: from the loop: the app was closed.
            WouldDeadlock: called inside a task, without leave.

        Example:
            ```python
            async for event in result.events(timeout=60):
                print(event.state, event.info)
            ```
        """
        check_join("AsyncResult.events()", (self,))
        return self._events(timeout)

    async def _events(self, timeout: float | timedelta | None) -> AsyncGenerator[Event, None]:
        with closing(EventFollower(self, None if timeout is None else config.seconds(timeout))) as follower:
            while (event := await self._next(follower)) is not None:
                yield event

    def events_sync(self, timeout: float | timedelta | None = None) -> Iterator[Event]:
        """Blocking twin of `events`, for code that is not async: `for event in result.events_sync()`.

        Raises as it.
        """
        sync_bridge.refuse_in_loop("events_sync()", "async for event in ....events(...)")
        check_join("AsyncResult.events()", (self,))
        return self._events_sync(timeout)

    def _events_sync(self, timeout: float | timedelta | None) -> Iterator[Event]:
        with closing(EventFollower(self, None if timeout is None else config.seconds(timeout))) as follower:
            while (event := sync_bridge.wait(self.loop_owner, self._next(follower))) is not None:
                yield event

    def stream(self, after: int | None = None) -> Stream[Any]:
        """Gives what a generator task yields: `async for item in result.stream()`.

        From the first item, or those behind number `after`: items are numbered from 1, and the stream's
        `offset` is the number of the last one that it gave. Any number may read, at any time, in any process,
        until the result expires or is forgotten; each stream reads on its own. The job's end ends the loop;
        if it failed or was revoked, the loop raises what `get` raises, after the last item. Of a job that is
        no generator it gives nothing, and waits for its end.

        To bound the wait, put `asyncio.timeout` around it.

        Args:
            after: the number of the last item that is not wanted any more; None for all.

        Raises:
            ValueError: a negative number.
            ResultNotFound: from the loop: unknown, forgotten or expired id, or the task's result is ignored.
            BrokerUnavailable: from the loop: the app was closed.
            WouldDeadlock: called inside a task, without leave.

        Example:
            ```python
            stream = result.stream(after=17)
            async for item in stream:
                print(stream.offset, item)  # 18 ...
            ```
        """
        check_join("AsyncResult.stream()", (self,))
        return Stream(self._source(after or 0))

    def stream_sync(self, after: int | None = None) -> SyncStream[Any]:
        """Blocking twin of `stream`, for code that is not async: `for item in result.stream_sync()`.

        Raises as it.
        """
        sync_bridge.refuse_in_loop("stream_sync()", "async for item in ....stream(...)")
        check_join("AsyncResult.stream()", (self,))
        return SyncStream(self._source(after or 0))

    def _source(self, after: int) -> Source:
        if after < 0:
            raise ValueError(f"after={brief(after)}: items are numbered from 1; 0 or None means all items")
        reader = self._reader(after)
        return Source(reader, partial(self._filled, reader), self._item, self.loop_owner)

    def _reader(self, after: int) -> Readable:
        return Reader(self, after)

    def _item(self, data: bytes) -> Any:
        return self.item_codec().loads(data)

    @on_app_loop
    async def _next(self, follower: EventFollower) -> Event | None:
        return await self._stepped(follower, follower.next)

    @on_app_loop
    async def _filled(self, reader: Readable) -> bool:
        return await self._stepped(reader, reader.fill)

    async def _stepped(
        self, iterator: EventFollower | Readable, step: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        session = iterator.session
        if session is None or session.is_on_app_loop():
            return await self._with_slot_released(step)
        # It was begun where another session served it, and its subscription is there.
        return await session.run_on_app_loop(self._with_slot_released(step))

    async def _with_slot_released(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        job = current_job.get()
        if job is None:
            return await step()
        # What comes next may come from a job that waits for this one, so a cycle is no deadlock yet.
        async with Wait(job, self.app, [self], None, all_of_them=False):
            return await step()

    async def _follow(self, timeout: float | timedelta | None, on_event: Callable[[Event], object]) -> None:
        async with aclosing(self._events(timeout)) as events:
            async for event in events:
                on_event(event)

    def _no_outcome(self, waiter: Waiter, timeout: float | None) -> ResultNotFound | ResultTimeout:
        if waiter.gone or waiter.flags.is_ignored:
            return ResultNotFound(
                f"no result under the id {self.id!r}: unknown, forgotten, expired (result_ttl), or its task "
                "ignores results"
            )
        return ResultTimeout(
            f"job {self.id} did not end within {config.shown(timeout)} (it goes on; state: {waiter.state})"
        )

    # -- looking --

    @on_app_loop
    async def refresh(self) -> State | str:
        """Looks once and brings all properties up to date: state, worker, start time, queue. Returns the
        state.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        waiter = self.waiter()
        if waiter.ended is None or waiter.gone:
            await self._fetch_status(waiter)
        return self.state

    @blocking(refresh)
    def refresh_sync(self) -> None:
        """Blocking twin of `refresh`."""

    async def ready(self) -> bool:
        """Whether the job has ended, in whatever way. Looks once. Raises as `refresh`."""
        return (await self._final()) is not None

    @blocking(ready)
    def ready_sync(self) -> None:
        """Blocking twin of `ready`."""

    async def successful(self) -> bool:
        """Whether the job has ended with a value; False while it has not ended. Looks once. Raises as
        `refresh`.
        """
        ended = await self._final()
        return ended is not None and ended.state is State.SUCCESS

    @blocking(successful)
    def successful_sync(self) -> None:
        """Blocking twin of `successful`."""

    async def failed(self) -> bool:
        """Whether the job has ended with an error; False while it has not ended. Looks once. Raises as
        `refresh`.
        """
        ended = await self._final()
        return ended is not None and ended.state is State.FAILURE

    @blocking(failed)
    def failed_sync(self) -> None:
        """Blocking twin of `failed`."""

    @on_app_loop
    async def exists(self) -> bool:
        """Whether the server knows the job: true from the moment `delay` returned until it is forgotten or
        its result expires.

        Always asks the server. Raises as `refresh`.
        """
        answer = await self._fetch_status(self.waiter())
        return answer is not None and not (
            isinstance(answer, wire.JobSnapshot) and Flags(answer.flags).is_forgotten
        )

    @blocking(exists)
    def exists_sync(self) -> None:
        """Blocking twin of `exists`."""

    async def _final(self) -> Outcome[R_co] | None:
        if self.known() is None:
            await self.refresh()
        return self.known()

    async def _fetch_status(
        self, waiter: Waiter, timeout: float | None = None
    ) -> wire.Ended | wire.JobSnapshot | None:
        app = self.app
        broker = app.sessions.current().broker
        if app.settings.result_extended and self.args is None:
            answer, call = await asyncio.gather(
                broker.state(self.id, timeout), broker.message(self.id, timeout)
            )
            waiter.call = call or waiter.call
        else:
            answer = await broker.state(self.id, timeout)
        app.sessions.current().listener.take_status(waiter, answer)
        return answer

    # -- walking --

    def iterdeps(self, intermediate: bool = False) -> AsyncIterator[Step]:
        """Gives this job and all that came from it, level by level, each as `(parent, result)`: `async for`.

        What came from a job are those that it started, and those that waited for it. It begins with
        `(None, this)`. A job with several parents is given once for each. This looks, and does not wait: the
        body of the loop may, for a job's children are looked for when the loop goes on.

        Args:
            intermediate: pass over what is below a job that has not ended, instead of raising.

        Raises:
            IncompleteStream: from the loop: a job has not ended, or is unknown, so its children are not
                known; or, after all that are known were given, one started more than the 10,000 jobs that
                its outcome names.
            BrokerUnavailable: from the loop: no answer within the operation timeout.

        Example:
            ```python
            async for parent, job in result.iterdeps(intermediate=True):
                print(parent, job.id, job.state)
            ```
        """
        return self._iterdeps(TreeTraversal(self, intermediate=intermediate))

    async def _iterdeps(self, traversal: TreeTraversal[AsyncResult[Any]]) -> AsyncGenerator[Step, None]:
        while (step := await traversal.node._step(traversal)) is not None:
            yield step

    def iterdeps_sync(self, intermediate: bool = False) -> Iterator[Step]:
        """Blocking twin of `iterdeps`, for code that is not async: `for parent, job in ...`. Raises as it."""
        sync_bridge.refuse_in_loop("iterdeps_sync()", "async for parent, job in ....iterdeps(...)")
        return self._iterdeps_sync(TreeTraversal(self, intermediate=intermediate))

    def _iterdeps_sync(self, traversal: TreeTraversal[AsyncResult[Any]]) -> Iterator[Step]:
        while (
            step := sync_bridge.wait(traversal.node.loop_owner, traversal.node._step(traversal))
        ) is not None:
            yield step

    @on_app_loop
    async def _step(self, traversal: TreeTraversal[AsyncResult[Any]]) -> Step | None:
        return await traversal.step()

    def collect(
        self,
        intermediate: bool = False,
        *,
        timeout: float | timedelta | None = None,
        propagate: bool = True,
    ) -> AsyncIterator[tuple[AsyncResult[Any], Any]]:
        """Waits for this job and all that came from it, and gives each as `(result, value)`: `async for`.

        Level by level, each job once; see `iterdeps` for what comes from what. A new loop begins anew.

        Args:
            intermediate: pass over what is not known of a job that started more than 10,000, instead of
                raising. Since each job is waited for, there is nothing else to pass over.
            timeout: seconds from the first step to the last; None waits for ever.
            propagate: False gives a job's exception as its value.

        Raises:
            ResultTimeout: from the loop: the time is over; what was given stands, and the jobs go on.
            IncompleteStream: from the loop, after all that are known were given: a job started more than the
                10,000 jobs that its outcome names, and `intermediate` was not asked for.
            ResultNotFound: from the loop: the result of one of the jobs is ignored, forgotten or expired.
            WouldDeadlock: from the loop: called inside a task, without leave.
            Exception: from the loop: what one of the jobs raised.

        Example:
            ```python
            async for job, value in result.collect(timeout=60):
                print(job.name, value)
            ```
        """
        return self._collect(intermediate, timeout, propagate=propagate)

    async def _collect(
        self, intermediate: bool, timeout: float | timedelta | None, *, propagate: bool
    ) -> AsyncGenerator[tuple[AsyncResult[Any], Any], None]:
        given: set[AsyncResult[Any]] = set()
        end = _end(timeout)
        async for _, node in self.iterdeps(intermediate):
            if node not in given:
                given.add(node)
                yield node, await node.get(_left(end), propagate=propagate)

    def collect_sync(
        self,
        intermediate: bool = False,
        *,
        timeout: float | timedelta | None = None,
        propagate: bool = True,
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """Blocking twin of `collect`, for code that is not async: `for job, value in ...`. Raises as it."""
        sync_bridge.refuse_in_loop("collect_sync()", "async for job, value in ....collect(...)")
        return self._collect_sync(intermediate, timeout, propagate=propagate)

    def _collect_sync(
        self, intermediate: bool, timeout: float | timedelta | None, *, propagate: bool
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        given: set[AsyncResult[Any]] = set()
        end = _end(timeout)
        for _, node in self.iterdeps_sync(intermediate):
            if node not in given:
                given.add(node)
                yield node, node.get_sync(_left(end), propagate=propagate)

    async def get_leaf(self, *, timeout: float | timedelta | None = None) -> Any:
        """Waits for this job and all that came from it, and returns the value of the last, as `collect` gives
        them.

        Args:
            timeout: seconds for all of them together; None waits for ever.

        Raises:
            ResultTimeout, ResultNotFound, WouldDeadlock, Exception: as `collect`.

        Example:
            ```python
            result = await load.delay()  # which starts the next, which starts the next
            print(await result.get_leaf(timeout=60))
            ```
        """
        value: Any = None
        async for _, value in self.collect(timeout=timeout):  # noqa: B007  the last one counts
            pass
        return value

    @blocking(get_leaf)
    def get_leaf_sync(self) -> None:
        """Blocking twin of `get_leaf`."""

    async def build_graph(self, intermediate: bool = False) -> DependencyGraph:
        """The graph of this job and all that came from it; `graph` has it from then on. Looks, and does not
        wait.

        Args:
            intermediate: leave out what is below a job that has not ended, instead of raising.

        Raises:
            IncompleteStream, BrokerUnavailable: as `iterdeps`.

        Example:
            ```python
            graph = await result.build_graph(intermediate=True)
            print(graph.to_mermaid())
            ```
        """
        graph = DependencyGraph(self)
        async for parent, node in self.iterdeps(intermediate):
            if parent is not None:
                graph.connect(parent, node)
        self._graph = graph
        return graph

    @blocking(build_graph)
    def build_graph_sync(self) -> None:
        """Blocking twin of `build_graph`."""

    @property
    def graph(self) -> DependencyGraph:
        """The graph that `build_graph` has built last.

        Raises:
            IncompleteStream: it has not built one: a property does not ask the server.
        """
        graph: DependencyGraph | None = getattr(self, "_graph", None)
        if graph is None:
            raise IncompleteStream(
                f"the jobs that came from job {self.id} are not known yet: `await result.build_graph()` "
                "finds them"
            )
        return graph

    # -- ending --

    @on_app_loop
    async def revoke(
        self,
        *,
        terminate: bool = False,
        signal: Signal = "SIGTERM",
        wait: bool = False,
        timeout: float | timedelta | None = None,
        reason: str | None = None,
        parents: bool = False,
    ) -> State | str:
        """Ends the job: a queued one never starts, and whoever waits for it gets `TaskRevoked`. Of a
        workflow, all jobs before it are ended, too, as far as this handle knows them (`parent`). If a
        workflow has taken the job's place (`replace`), that is ended with it.

        A running one goes on unless `terminate=True`: then a coroutine is cancelled at once. A thread cannot
        be: its waiters wake at once, it ends by itself, and what it returns is dropped. A process gets the
        signal; its waiters wake when its body has ended, and what that returns is dropped. Without
        `terminate`, a running job is only kept from running *again* should its worker die. Durable: works
        with no worker online. An ended job is never changed; a second revoke is no error, and may send a
        process a stronger signal.

        Args:
            terminate: also end it if it runs.
            signal: what a process gets: `SIGINT` raises `KeyboardInterrupt` in the body and `SIGTERM`
                `SystemExit`, so that it can clean up; `SIGKILL` ends it at once, with the processes that it
                started.
            wait: wait until it has ended, and return the final state: `REVOKED`, or what came first.
            timeout: of that wait, in seconds.
            reason: text that `TaskRevoked` shows. One that runs and is ended between two attempts shows none.
            parents: also end the jobs that it still waits for and that this handle does not know: one made
                from an id alone knows none.

        Returns:
            With `wait`, the final state. Else the state after the call, as far as it is known.

        Raises:
            ValueError: another signal.
            ResultNotFound: with `wait`, if there is no such job.
            ResultTimeout: with `wait`, if it did not end in time.
            BrokerUnavailable: no answer within the operation timeout.

        Example:
            ```python
            state = await result.revoke(terminate=True, signal="SIGKILL", wait=True, timeout=5)
            assert state in {"REVOKED", "SUCCESS", "FAILURE"}  # the latter two if it ended just before
            ```
        """
        if signal not in wire.SIGNAL_OF:
            raise ValueError(f"signal={brief(signal)}: use one of {', '.join(wire.SIGNAL_OF)}")
        app = self.app
        waiter = self.waiter()
        if wait:
            check_join("AsyncResult.revoke(wait=True)", (self,))
        letter = wire.SIGNAL_OF[signal] if terminate else wire.NOT_AGAIN
        broker = app.sessions.current().broker
        # Before those that it waits for, so that it is revoked and does not end with one of them.
        answer, *_ = await asyncio.gather(
            *(
                broker.revoke(
                    handle.id,
                    signal=letter,
                    outcome=handle._revoked(reason),
                    reason=reason or "",
                    parents=parents,
                )
                for handle in line(self)
            )
        )
        if wait and answer != "unknown":
            await self._outcome(timeout)
        elif waiter.ended is None:
            await self._fetch_status(waiter)
        if wait and answer == "unknown":
            raise ResultNotFound(f"no job under the id {self.id!r} to revoke")
        return self.state

    def _revoked(self, reason: str | None) -> bytes:
        """The outcome of a job that is revoked before it has begun."""
        text = (reason or "").encode("utf-8", "replace")
        now = int(time.time() * 1000)
        ended = wire.Ended(wire.REVOKED, text, finished=now, name=self.name or "", queue=self.queue or "")
        return wire.encode_bad_end(ended, partial(failures.short, reason or ""))

    @blocking(revoke)
    def revoke_sync(self) -> None:
        """Blocking twin of `revoke`."""

    @on_app_loop
    async def forget(self) -> None:
        """Removes the result, and the parents' results; a job that has not ended leaves none when it does
        (who waits still gets it).

        From then on `exists()` is False; once it has ended, a new wait raises `ResultNotFound`. Twice is
        once. Raises as `refresh`.
        """
        await asyncio.gather(*(handle._forget() for handle in line(self)))

    async def _forget(self) -> None:
        waiter = self.waiter()
        broker = self.app.sessions.current().broker
        answer = await broker.forget(self.id)
        if answer != "flagged":
            app_listener = self.app.sessions.current().listener
            app_listener.forgotten(waiter)

    @blocking(forget)
    def forget_sync(self) -> None:
        """Blocking twin of `forget`."""

    def then(
        self,
        callback: Callable[[AsyncResult[R_co]], object],
        on_error: Callable[[AsyncResult[R_co]], object] | None = None,
    ) -> AsyncResult[R_co]:
        """Calls `callback(result)` in this thread's loop when the job has ended, or soon if it has, in a copy
        of the context of this call. Returns the handle itself.

        With `on_error`, that one is called instead after a failure or a revocation. A coroutine that a
        callback returns is run; what a callback raises goes to the loop's exception handler. The handle is
        kept alive until then.

        Raises:
            RuntimeError: there is no running event loop to call back in.
        """
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def ended() -> None:
            good = self.state is State.SUCCESS
            sync_bridge.call_back(callback if good or on_error is None else on_error, self)

        def post() -> None:
            # Whoever is notified of the outcome has a context of its own; the callback has that of `then`.
            try:
                loop.call_soon_threadsafe(ended, context=context)
            except RuntimeError:
                log.debug("the loop of a callback for job %r was closed before the job ended", self.id)

        async def register() -> None:
            self.app.sessions.current().listener.when_ended(self.waiter(), post)

        sessions = self.app.sessions
        if sessions.is_on_app_loop():
            sessions.current().listener.when_ended(self.waiter(), post)
        else:
            sync_bridge.keep(loop.create_task(sessions.run_on_app_loop(register())))
        return self

    @property
    def children(self) -> list[AsyncResult[Any]] | None:
        """Handles of the jobs that this one started, the first 10,000 at most, once it has ended; None
        before.
        """
        outcome = self.known()
        return None if outcome is None else [AsyncResult(id_, app=self._app) for id_ in outcome.children]

    @property
    def children_truncated(self) -> bool:
        """Whether the job started more jobs than `children` has, once it has ended; False before."""
        outcome = self.known()
        return outcome is not None and outcome.children_truncated

    # -- as a value --

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """The id and those of its parents, as Celery writes them: `((id, parent's tuple or None), None)`."""
        described: tuple[tuple[str, Any], None] = handle_serialization.as_tuple(self)
        return described

    def as_list(self) -> list[str]:
        """The id, then those of the jobs that it waits for."""
        return [handle.id for handle in line(self)]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # The ids say it all; the app is found where it is unpickled.
        if self.parent is None:
            return type(self), (self.id,)
        return handle_serialization.from_rows, (handle_serialization.of_handle(self),)


def _end(timeout: float | timedelta | None) -> float | None:
    return None if timeout is None else time.monotonic() + config.seconds(timeout)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def line(handle: Any) -> Iterator[AsyncResult[Any]]:
    """The handles of a workflow's jobs, each once: that or those of `handle`, then what they came after."""
    seen: set[str] = set()
    todo = [handle]
    while todo:
        one = todo.pop()
        if not isinstance(one, AsyncResult):
            todo += [getattr(one, "parent", None), *reversed(one.results)] if one is not None else ()
        elif one.id not in seen:
            seen.add(one.id)
            yield one
            todo.append(one.parent)


handle_serialization.register(handle_serialization.HANDLE, AsyncResult)
