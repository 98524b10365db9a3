"""The handle of one job: await it, follow it, walk from it, end it, forget it.

A handle says what can be done with a job, and leaves the doing to others: `known_job` has what is known and
asks for more, `following` iterates over events and items, `tree` walks to the jobs that came from it.

The coroutines may be awaited on any loop, and the blocking twins called on any thread without a loop; what
talks to the server runs on the loop of the session that serves the call. Properties may be read on any
thread.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from asyncq import config, sync_bridge
from asyncq.errors import IncompleteStream, ResultTimeout
from asyncq.results import handle_serialization
from asyncq.results.following import Following
from asyncq.results.known_job import checked_id
from asyncq.results.local_call import local_call
from asyncq.results.server_job import ServerJob
from asyncq.results.streams import Stream, SyncStream
from asyncq.results.tree import JobTree
from asyncq.results.view import View, job_of
from asyncq.states import State
from asyncq.sync_bridge import blocking, on_app_loop, overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from datetime import timedelta

    from asyncq.client.application import App, Returning
    from asyncq.outcome import Outcome
    from asyncq.results.events import Event
    from asyncq.results.graph import DependencyGraph
    from asyncq.results.groupresult import GroupResult
    from asyncq.results.tree import Step
    from asyncq.wire import Signal

R_co = TypeVar("R_co", covariant=True)


class AsyncResult(View[R_co]):
    """The handle of a job: `await result` is its value.

    Awaited methods talk to the server. Properties never do: they say what this process last saw. When the job
    ends, the server pushes the outcome here at once, and every handle of that job in this process shows it.

    A handle costs nothing to drop. `app.AsyncResult(id)` makes another from the id alone, in any process.

    Args:
        id: the job's id.
        app: the app; by default the only one of this process.
        task: the task, if known; it gives the value its type.

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
        checked_id(id)
        inline = None if app is None else app.sessions.inline
        if app is None or inline is None:
            super().__init__(ServerJob(id, app, task))
        else:
            super().__init__(local_call(inline, id, app, task))

    # -- waiting --

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Waits for the value: `await result` is `await result.get()`."""
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

        A push ends the wait. A timeout or a cancellation ends this wait only: the job and other waits for it
        go on, unless `revoke_on_abandon` is true. It may be called any number of times, and each call returns
        a new object. Once this process knows the outcome, the call needs no connection, and does not open an
        app that is closed.

        Args:
            timeout: in seconds; None waits for ever, 0 looks once and does not wait.
            propagate: False returns the task's exception and does not raise it.
            follow_parents: if the job never ran because a job before it failed, True raises what that one
                raised, and False a `TaskRevoked` that names it.
            callback: called as `callback(id, value)` before the value is returned.
            on_event: called with each `Event` during the wait, the final one included; see `events`. An
                exception from it ends the wait.
            disable_sync_subtasks: False allows this wait inside a task, see `allow_join_result`.
            revoke_on_abandon: True revokes the job, as `revoke(terminate=True)` does, if this wait times out
                or is cancelled (in `get_sync`: by Ctrl-C). The wait ends at once. The revocation is sent in
                the background; when the app is closed, it waits up to two seconds for it.

        Raises:
            ResultTimeout: the job did not end in time (also a builtin `TimeoutError`).
            ResultNotFound: the id is unknown, forgotten or expired, or the task's result is ignored. It is
                raised at once.
            TaskRevoked, TaskExpired, WorkerLost: the job ended, and its body did not come to its end.
            WouldDeadlock: called inside a task, where waits are not allowed.
            Exception: what the task raised, with the remote traceback as its `__cause__`.

        Example:
            ```python
            try:
                total = await result.get(timeout=10)
            except asyncq.ResultTimeout:
                await result.revoke()  # or wait again: the job goes on
            ```
        """
        job = self._job
        job.check_join("AsyncResult.get()", disable_sync_subtasks=disable_sync_subtasks)
        try:
            if on_event is not None:
                await Following(job).call_with_events(timeout, on_event)
            outcome = job.at_hand() or await job.outcome(timeout)
        except (ResultTimeout, asyncio.CancelledError) as error:
            if not revoke_on_abandon:
                raise
            revoke = partial(self.revoke, terminate=True, reason="the wait for it was abandoned")
            job.app.sessions.send_off(revoke)
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
        """Waits for the job to end and returns how it ended. A failure of the task is not raised.

        Raises:
            ResultTimeout, ResultNotFound, WouldDeadlock: as `get`.

        Example:
            ```python
            outcome = await result.outcome(timeout=10)
            print(outcome.state, outcome.value, outcome.error, outcome.worker)
            ```
        """
        job = self._job
        job.check_join("AsyncResult.outcome()")
        return job.at_hand() or await job.outcome(timeout)

    @blocking(outcome)
    def outcome_sync(self) -> None:
        """Blocking twin of `outcome`."""

    # -- following --

    def events(self, timeout: float | timedelta | None = None) -> AsyncIterator[Event]:
        """Gives what happens to the job, as it happens: `async for event in result.events()`.

        The first event is the newest state. Then come, by push, each change of the state and each report that
        the task makes with `update_state` or `progress`. The last event is the final state. If the task
        reports faster than the loop takes the events, or if the connection is lost, events in between may be
        left out, but never the newest. `STARTED` is polled, at most one second apart. What the death of a
        worker changes is polled every five seconds.

        Any number of iterations may follow one job, in any process; none of them takes events from another.

        Args:
            timeout: in seconds, for the whole iteration; None waits for ever, 0 gives the newest state only.

        Raises:
            ResultTimeout: from the loop: the job has not ended in time; it goes on.
            ResultNotFound: from the loop: the id is unknown, forgotten or expired, or the task's result is
                ignored.
            BrokerUnavailable: from the loop: the app was closed.
            WouldDeadlock: called inside a task, where waits are not allowed.

        Example:
            ```python
            async for event in result.events(timeout=60):
                print(event.state, event.info)
            ```
        """
        self._job.check_join("AsyncResult.events()")
        return Following(self._job).events(timeout)

    def events_sync(self, timeout: float | timedelta | None = None) -> Iterator[Event]:
        """Blocking twin of `events`, for code that is not async: `for event in result.events_sync()`.

        Raises what `events` raises.
        """
        sync_bridge.refuse_in_loop("events_sync()", "async for event in ....events(...)")
        self._job.check_join("AsyncResult.events()")
        return Following(self._job).events_sync(timeout)

    def stream(self, after: int | None = None) -> Stream[Any]:
        """Gives what a generator task yields: `async for item in result.stream()`.

        It gives all items, or those that follow item number `after`. Items are numbered from 1; the `offset`
        of the stream is the number of the last item that it gave. Any number of streams may read one job, at
        any time, in any process, until the result expires or is forgotten; each gets all items. The loop ends
        when the job has ended. If the job failed or was revoked, the loop raises what `get` raises, after the
        last item. For a job that is no generator, the loop waits for its end and gives nothing.

        To bound the wait, put `asyncio.timeout` around the loop.

        Args:
            after: the number of the last item that the caller has already; None for all items.

        Raises:
            ValueError: `after` is negative.
            ResultNotFound: from the loop: the id is unknown, forgotten or expired, or the task's result is
                ignored.
            BrokerUnavailable: from the loop: the app was closed.
            WouldDeadlock: called inside a task, where waits are not allowed.

        Example:
            ```python
            stream = result.stream(after=17)
            async for item in stream:
                print(stream.offset, item)  # 18 ...
            ```
        """
        self._job.check_join("AsyncResult.stream()")
        return Stream(Following(self._job).items(after or 0))

    def stream_sync(self, after: int | None = None) -> SyncStream[Any]:
        """Blocking twin of `stream`, for code that is not async: `for item in result.stream_sync()`.

        Raises what `stream` raises.
        """
        sync_bridge.refuse_in_loop("stream_sync()", "async for item in ....stream(...)")
        self._job.check_join("AsyncResult.stream()")
        return SyncStream(Following(self._job).items(after or 0))

    # -- looking --

    async def refresh(self) -> State | str:
        """Asks the server once, so that all properties are up to date: state, worker, start time, queue.
        Returns the state.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.

        Example:
            ```python
            result = app.AsyncResult(id)
            await result.refresh()
            print(result.state, result.queue, result.worker)
            ```
        """
        await self._job.refresh()
        return self.state

    @blocking(refresh)
    def refresh_sync(self) -> None:
        """Blocking twin of `refresh`."""

    async def ready(self) -> bool:
        """Looks once whether the job has ended, in whatever way. Raises what `refresh` raises.

        Example:
            ```python
            if await result.ready():
                print(await result)
            ```
        """
        return await self._job.final() is not None

    @blocking(ready)
    def ready_sync(self) -> None:
        """Blocking twin of `ready`."""

    async def successful(self) -> bool:
        """Looks once whether the job has ended with a value; False while it has not ended. Raises what
        `refresh` raises.
        """
        ended = await self._job.final()
        return ended is not None and ended.state is State.SUCCESS

    @blocking(successful)
    def successful_sync(self) -> None:
        """Blocking twin of `successful`."""

    async def failed(self) -> bool:
        """Looks once whether the job has ended with an error; False while it has not ended. Raises what
        `refresh` raises.
        """
        ended = await self._job.final()
        return ended is not None and ended.state is State.FAILURE

    @blocking(failed)
    def failed_sync(self) -> None:
        """Blocking twin of `failed`."""

    async def exists(self) -> bool:
        """Asks the server whether it knows the job: True from the moment when `delay` returns until the job
        is forgotten or its result expires.

        It asks even when the outcome is known here. Raises what `refresh` raises.
        """
        return await self._job.exists()

    @blocking(exists)
    def exists_sync(self) -> None:
        """Blocking twin of `exists`."""

    # -- walking --

    def iterdeps(self, intermediate: bool = False) -> AsyncIterator[Step]:
        """Gives this job and all that came from it, level by level, each as `(parent, result)`: `async for`.

        From a job came the jobs that it started, and the jobs that waited for it. The first pair is
        `(None, this)`. A job with several parents is given once for each of them. The iteration looks at jobs
        and does not wait for them. The body of the loop may wait for the job that it got: its children are
        looked for only when the loop goes on.

        Args:
            intermediate: True passes over what is below a job that has not ended, and does not raise.

        Raises:
            IncompleteStream: from the loop: a job has not ended, or is unknown, so its children are not
                known. Or a job started more than the 10,000 jobs that its outcome names; this is raised after
                all known jobs were given.
            BrokerUnavailable: from the loop: no answer within the operation timeout.

        Example:
            ```python
            async for parent, job in result.iterdeps(intermediate=True):
                print(parent, job.id, job.state)
            ```
        """
        return JobTree(self).steps(intermediate=intermediate)

    def iterdeps_sync(self, intermediate: bool = False) -> Iterator[Step]:
        """Blocking twin of `iterdeps`, for code that is not async: `for parent, job in ...`.

        Raises what `iterdeps` raises.
        """
        sync_bridge.refuse_in_loop("iterdeps_sync()", "async for parent, job in ....iterdeps(...)")
        return JobTree(self).steps_sync(intermediate=intermediate)

    def collect(
        self,
        intermediate: bool = False,
        *,
        timeout: float | timedelta | None = None,
        propagate: bool = True,
    ) -> AsyncIterator[tuple[AsyncResult[Any], Any]]:
        """Waits for this job and all that came from it, and gives each as `(result, value)`: `async for`.

        It goes level by level and gives each job once; see `iterdeps` for what comes from what. Each loop
        begins anew.

        Args:
            intermediate: True passes over the jobs that are not known because a job started more than 10,000,
                and does not raise. Since each job is waited for, there is nothing else to pass over.
            timeout: in seconds, from the first step to the last; None waits for ever.
            propagate: False gives a job's exception as its value.

        Raises:
            ResultTimeout: from the loop: the time is over; the jobs go on.
            IncompleteStream: from the loop, after all known jobs were given: a job started more than the
                10,000 jobs that its outcome names, and `intermediate` is False.
            ResultNotFound: from the loop: the result of one of the jobs is ignored, forgotten or expired.
            WouldDeadlock: from the loop: called inside a task, where waits are not allowed.
            Exception: from the loop: what one of the jobs raised.

        Example:
            ```python
            async for job, value in result.collect(timeout=60):
                print(job.name, value)
            ```
        """
        return JobTree(self).values(intermediate=intermediate, timeout=timeout, propagate=propagate)

    def collect_sync(
        self,
        intermediate: bool = False,
        *,
        timeout: float | timedelta | None = None,
        propagate: bool = True,
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """Blocking twin of `collect`, for code that is not async: `for job, value in ...`.

        Raises what `collect` raises.
        """
        sync_bridge.refuse_in_loop("collect_sync()", "async for job, value in ....collect(...)")
        return JobTree(self).values_sync(intermediate=intermediate, timeout=timeout, propagate=propagate)

    async def get_leaf(self, *, timeout: float | timedelta | None = None) -> Any:
        """Waits for this job and all that came from it, and returns the value of the last in the order of
        `collect`.

        Args:
            timeout: in seconds, for all of them together; None waits for ever.

        Raises:
            ResultTimeout, ResultNotFound, WouldDeadlock, Exception: as `collect`.

        Example:
            ```python
            result = await load.delay()  # which starts the next, which starts the next
            print(await result.get_leaf(timeout=60))
            ```
        """
        return await JobTree(self).last_value(timeout)

    @blocking(get_leaf)
    def get_leaf_sync(self) -> None:
        """Blocking twin of `get_leaf`."""

    async def build_graph(self, intermediate: bool = False) -> DependencyGraph:
        """Returns the graph of this job and all that came from it, and keeps it as `graph`. It looks at the
        jobs and does not wait for them.

        Args:
            intermediate: True leaves out what is below a job that has not ended, and does not raise.

        Raises:
            IncompleteStream, BrokerUnavailable: as `iterdeps`.

        Example:
            ```python
            graph = await result.build_graph(intermediate=True)
            print(graph.to_mermaid())
            ```
        """
        self._graph = await JobTree(self).graph(intermediate=intermediate)
        return self._graph

    @blocking(build_graph)
    def build_graph_sync(self) -> None:
        """Blocking twin of `build_graph`."""

    @property
    def graph(self) -> DependencyGraph:
        """The graph that `build_graph` built last.

        Raises:
            IncompleteStream: it has built none; a property does not ask the server.
        """
        graph: DependencyGraph | None = getattr(self, "_graph", None)
        if graph is None:
            raise IncompleteStream(
                f"the jobs that came from job {self.id} are not known yet: `await result.build_graph()` "
                "finds them"
            )
        return graph

    # -- ending --

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
        """Ends the job. A queued job never starts, and whoever waits for it gets `TaskRevoked`.

        In a workflow, the jobs before it end, too, as far as this handle knows them (`parent`). If a workflow
        has taken the job's place (`replace`), that workflow ends with it.

        A running job goes on, unless `terminate=True`. Then a coroutine is cancelled at once. A thread cannot
        be stopped: whoever waits for the job wakes at once, the thread comes to its own end, and its value is
        dropped. A process gets the signal: whoever waits for the job wakes when its body has ended, and its
        value is dropped. Without `terminate`, a running job is only kept from running *again* if its worker
        dies.

        A revocation is stored at the server, so it also works while no worker runs. It never changes a job
        that has ended. A second one is no error, and may send a process a stronger signal.

        Args:
            terminate: also end the job if it runs.
            signal: what a process gets. `SIGINT` raises `KeyboardInterrupt` in the body, and `SIGTERM`
                `SystemExit`, so that it can clean up; `SIGKILL` ends it at once, with the processes that it
                started.
            wait: wait until the job has ended, and return the final state: `REVOKED`, or what came first.
            timeout: of that wait, in seconds.
            reason: a text that `TaskRevoked` shows. It is not shown for a job that runs and is ended between
                two attempts.
            parents: also end the jobs that it still waits for and that this handle does not know. A handle
                that was made from an id alone knows none.

        Returns:
            With `wait`, the final state. Else the state after the call, as far as it is known.

        Raises:
            ValueError: `signal` is none of those.
            ResultNotFound: with `wait`: there is no such job.
            ResultTimeout: with `wait`: the job did not end in time.
            BrokerUnavailable: no answer within the operation timeout.

        Example:
            ```python
            state = await result.revoke(terminate=True, signal="SIGKILL", wait=True, timeout=5)
            assert state in {"REVOKED", "SUCCESS", "FAILURE"}  # the latter two if it ended just before
            ```
        """
        await self._job.revoke(
            list(map(job_of, workflow_handles(self))),
            terminate=terminate,
            signal=signal,
            wait=wait,
            timeout=timeout,
            reason=reason,
            parents=parents,
        )
        return self.state

    @blocking(revoke)
    def revoke_sync(self) -> None:
        """Blocking twin of `revoke`."""

    @on_app_loop
    async def forget(self) -> None:
        """Removes the result of the job, and those of its parents. A job that has not ended will leave no
        result; whoever waits for it already still gets the outcome.

        From then on `exists()` is False, and once the job has ended, a new wait raises `ResultNotFound`. A
        second call changes nothing. Raises what `refresh` raises.
        """
        await sync_bridge.each(job_of(handle).forget() for handle in workflow_handles(self))

    @blocking(forget)
    def forget_sync(self) -> None:
        """Blocking twin of `forget`."""

    def then(
        self,
        callback: Callable[[AsyncResult[R_co]], object],
        on_error: Callable[[AsyncResult[R_co]], object] | None = None,
    ) -> AsyncResult[R_co]:
        """Calls `callback(result)` in this thread's loop when the job has ended, or in the next turn of the
        loop if it has ended already. Returns the handle itself.

        After a failure or a revocation, `on_error` is called instead, if it is given. Both run in a copy of
        the context of this call. A coroutine that a callback returns is run. An exception from a callback
        goes to the loop's exception handler. The handle is kept alive until then.

        Raises:
            RuntimeError: there is no running event loop to call back in.

        Example:
            ```python
            result.then(lambda ended: print(ended.result), on_error=lambda ended: print(ended.traceback))
            ```
        """

        def call_back(good: bool) -> None:
            sync_bridge.call_back(callback if good or on_error is None else on_error, self)

        self._job.when_ended(call_back)
        return self

    @property
    def children(self) -> list[AsyncResult[Any]] | None:
        """The handles of the jobs that came from this one, at most the first 10,000, once it has ended; None
        before.
        """
        outcome = self._job.known()
        return None if outcome is None else [AsyncResult(id_, app=self.app) for id_ in outcome.children]

    @property
    def children_truncated(self) -> bool:
        """Whether more jobs came from this one than `children` has, once it has ended; False before."""
        outcome = self._job.known()
        return outcome is not None and outcome.children_truncated

    # -- as a value --

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """Returns the id and those of its parents as Celery does: `((id, parent's tuple or None), None)`."""
        described: tuple[tuple[str, Any], None] = handle_serialization.as_tuple(self)
        return described

    def as_list(self) -> list[str]:
        """Returns the id, then those of the jobs that it waits for."""
        return [handle.id for handle in workflow_handles(self)]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # A handle is its ids. The process that unpickles it finds its own app.
        if self.parent is None:
            return type(self), (self.id,)
        return handle_serialization.from_rows, (handle_serialization.of_handle(self),)


def workflow_handles(handle: Any) -> Iterator[AsyncResult[Any]]:
    """Gives the handles of a workflow's jobs, each once: those of `handle`, then what they came after."""
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
