"""The app: the registry of tasks, and the open connection to the server that everything goes through."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import sys
import threading
import warnings
import weakref
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from asyncq import config, failures, groupresult, results, resultset
from asyncq.broker import posture
from asyncq.broker.broker import Broker, token
from asyncq.broker.connection import ServerError, Unfit, parse
from asyncq.broker.shards import Shards
from asyncq.context import current_job
from asyncq.control import Control
from asyncq.errors import AsyncQError, BrokerNotConfigured, BrokerUnavailable
from asyncq.limits import Limits
from asyncq.portal import LoopThread, carried, refuse_in_loop, synced
from asyncq.registry import Registry
from asyncq.scope import Scope, current_scope, scope_for
from asyncq.states import State
from asyncq.tasks import (
    AsyncGeneratorTask,
    CoroutineTask,
    FunctionTask,
    GeneratorTask,
    NamedTask,
    Options,
    Task,
)
from asyncq.workflows import Plan, Signature, Workflow
from asyncq.workflows.workflow import arguments_of

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType

    from asyncq import wire
    from asyncq.broker.embedded import EmbeddedServer
    from asyncq.broker.intake import Met
    from asyncq.broker.listener import Listener, Waiter
    from asyncq.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H")
Y = TypeVar("Y")

log: logging.Logger = logging.getLogger(__name__)


BATCH = 250
"""Calls in one batch of `map`: 1 ms of work for the client, and 1 ms for the server."""
ERRANDS = 2.0
"""Seconds that closing waits for what was sent off in the background."""


class AsyncQ:
    """An application: its tasks, its settings and its connection.

    Opened by `async with app:` (or `with app:` in blocking code), by a web framework through `app.lifespan`,
    or by the first call that needs it. While it is open on one event loop, calls from other loops and threads
    are carried there. It may be closed and opened again, also on another loop, and is closed in a child after
    `fork`.

    Args:
        url: the server: `redis://`, `rediss://`, `unix://`, `valkey://`; `embedded://` for the Valkey of this
            project, which is also what no URL means; `memory://` for a private throw-away one. Default:
            `ASYNCQ_URL`, then pyproject.toml, then embedded.
        namespace: prefix of every key; apps that share a server keep apart by it.
        default_queue: the queue of tasks that name none.
        result_ttl: how long an outcome is kept after the job ended, in seconds or as a timedelta.
        lease: a worker silent for this many seconds is taken for dead, and its jobs run elsewhere.
        settings: the other options of `asyncq.config.Settings`, by name.

    Raises:
        ValueError: an unknown option or a value that does not fit; the message says where it came from.

    Example:
        ```python
        app = AsyncQ()

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y
        ```
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        default_queue: str | None = None,
        result_ttl: float | timedelta | None = None,
        lease: float | timedelta | None = None,
        **settings: Any,
    ) -> None:
        self._anchor = _caller_file()
        explicit = {
            "url": url,
            "namespace": namespace,
            "default_queue": default_queue,
            "result_ttl": result_ttl,
            "lease": lease,
            **settings,
        }
        folder = Path(self._anchor).resolve().parent if self._anchor else None
        self.settings: config.Settings = config.load(explicit, anchor=folder)
        self.tasks: dict[str, Task[..., Any]] = Registry(self)
        self._limited: dict[str, Limits] = {}  # by the names that jobs have, `<name>*` among them
        self.control: Control = Control(self)
        self.GroupResult: groupresult.GroupResults = groupresult.GroupResults(self)
        self._shards = Shards(self.settings.namespace, self.settings.shards)
        self._reset()
        _apps.add(self)

    def reconfigure(self, **settings: Any) -> None:
        """Puts settings over those that the app has, as the command line's flags do. Only while it is closed.

        Raises:
            RuntimeError: the app is open.
            ValueError: an unknown option or a value that does not fit.
        """
        if self._broker is not None or self._opening is not None:
            raise RuntimeError(f"{self!r} is open: its settings can be changed before it is opened, not now")
        self.settings = config.replace(self.settings, settings)
        self._shards = Shards(self.settings.namespace, self.settings.shards)
        self._reset()
        for task in self.tasks.values():
            task._defaults = task._defaults.of(self, task._options)

    def _reset(self) -> None:
        """The state of a closed app."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broker: Broker | None = None
        self._opening: asyncio.Task[None] | None = None
        self._wanted_by = 0
        self._server: EmbeddedServer | None = None
        self._thread: LoopThread | None = None
        self._users = 0
        self._channel = self._shards[0].replies + token()
        self._kept: set[asyncio.Future[Any]] = set()
        self._errands: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        from asyncq.broker.url import mask

        settings = self.settings
        return f"<AsyncQ {mask(settings.url)} namespace={settings.namespace!r} tasks={len(self.tasks)}>"

    # -- tasks --

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...  # type: ignore[overload-overlap]

    @overload
    def task(self, function: Callable[P, AsyncIterator[Y]], /) -> AsyncGeneratorTask[P, Y]: ...  # type: ignore[overload-overlap]

    @overload
    def task(self, function: Callable[P, Iterator[Y]], /) -> GeneratorTask[P, Y]: ...  # type: ignore[overload-overlap]

    @overload
    def task(self, function: Callable[P, R], /) -> FunctionTask[P, R]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        expires: float | timedelta | None = None,
        result_ttl: float | timedelta | None = None,
        ignore_result: bool = False,
        track_started: bool = True,
        timeout: float | timedelta | None = None,
        soft_timeout: float | timedelta | None = None,
        retry: Retry | None = None,
        executor: Literal["thread", "process"] | None = None,
        rate_limit: float | str | None = None,
        concurrency: int | None = None,
    ) -> _Decorator: ...

    def task(  # type: ignore[misc]  # its result is a decorator or a task, which the overloads tell apart
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        expires: float | timedelta | None = None,
        result_ttl: float | timedelta | None = None,
        ignore_result: bool = False,
        track_started: bool = True,
        timeout: float | timedelta | None = None,
        soft_timeout: float | timedelta | None = None,
        retry: Retry | None = None,
        executor: Literal["thread", "process"] | None = None,
        rate_limit: float | str | None = None,
        concurrency: int | None = None,
    ) -> Any:
        """Registers a function as a task: `@app.task` or `@app.task(...)`.

        A coroutine function runs on a worker's event loop, a plain function in a thread of the worker, or
        with `executor="process"` in a process of its own, which can be killed. What a generator
        function yields is read with `result.stream()`.

        Args:
            function: the function; given by the decorator syntax.
            name: what workers know it by (default: `module.function`).
            queue: where its jobs go (default: the app's default queue).
            priority: which of a queue's waiting jobs are taken first: those with the larger number, from -9
                to 9.
            expires: seconds after which a call that was not started never is.
            result_ttl: how long its outcomes are kept, in seconds (default: the app's).
            ignore_result: keep no results.
            track_started: False lets a running job show as `PENDING` until it ends or says something of
                itself; the outcome has its worker and start time all the same. Said by who enqueues the job.
            timeout: how long one attempt may take, in seconds.
            soft_timeout: seconds after which `SoftTimeLimitExceeded` is raised inside it; not in a thread.
            retry: when to try again after a failure (default: never).
            executor: of a plain function: `thread` (the default) or `process`.
            rate_limit: how many of its jobs may start, evenly spaced, over all workers together: a number a
                second, or "100/s", "100/m", "100/h", "100/d". One that waits for its turn is `PENDING`, and
                holds no slot of a worker.
            concurrency: how many of its jobs may run at once, in all workers together.

        Raises:
            TypeError: not a function, a kind of function that cannot be a task, or a coroutine function with
                an executor.
            ValueError: the name is taken by another function, or an option makes no sense.
        """
        options = Options(
            queue=queue,
            priority=priority or None,
            expires=expires,
            result_ttl=result_ttl,
            ignore_result=ignore_result or None,
            track_started=None if track_started else False,
            timeout=timeout,
            soft_timeout=soft_timeout,
            retry=retry,
            executor=executor,
        )

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            is_function = callable(function) and hasattr(function, "__qualname__")
            if not is_function or isinstance(function, (type, Task)):
                raise TypeError(f"@app.task goes on a function, not on {function!r}")
            if not isinstance(name, str | None):
                raise TypeError(f"name={name!r}: give a text, which workers know the task by")
            known_as = name or _name(function)
            limits = Limits.of(known_as, rate_limit, concurrency)
            task = self._register(function, known_as, options)
            self._limit(task, limits)
            return task

        return register if function is None else register(function)

    def _register(self, function: Callable[..., Any], name: str, options: Options) -> Task[..., Any]:
        _check_executor(function, name, options)
        kind = _kind(function)
        known = self.tasks.get(name)
        if known is not None and known.function.__code__ is not getattr(function, "__code__", None):
            here = inspect.getsourcefile(known.function)
            raise ValueError(
                f"a task named {name!r} is registered already, from {here}; give one of them a name="
            )
        task: Task[..., Any] = kind(self, function, name, options)
        self.tasks[name] = task
        return task

    def _limit(self, task: Task[..., Any], limits: Limits | None) -> None:
        """What workers see of the limits of a task. A job that makes several calls of it counts as one."""
        for name in (task.name, f"{task.name}*"):
            self._limited.pop(name, None)
            if limits is not None:
                self._limited[name] = limits

    def queues(self) -> list[str]:
        """The default queue and those that tasks name, in order of registration: what a worker serves unless
        told otherwise.
        """
        named = (task._defaults.queue for task in self.tasks.values())
        return list(dict.fromkeys([self.settings.default_queue, *named]))

    def AsyncResult(self, id: str) -> results.AsyncResult[Any]:
        """The handle of a job by its id, made anywhere. `UNKNOWN` until it looks."""
        return results.AsyncResult(id, app=self)

    def ResultSet(self, handles: Iterable[results.AsyncResult[R]]) -> resultset.ResultSet[R]:
        """Several handles as one."""
        return resultset.ResultSet(handles, app=self)

    def scope(self) -> Scope:
        """A block whose jobs do not outlive it: `async with app.scope():`, or `with app.scope():` in blocking
        code.

        At its end, also when it raises or is cancelled, the jobs enqueued inside that have not ended are
        revoked with `terminate=True`, in one go; see `Scope`. A cancellation is not held up: then they are
        revoked in the background, and closing the app waits up to two seconds for that.

        Raises:
            BrokerUnavailable: at the end of a block that did not raise itself: no answer within the operation
                timeout.

        Example:
            ```python
            async with app.scope() as scope:
                fast, slow = await lookup.delay("cache"), await lookup.delay("archive")
                done, _ = await asyncq.wait([fast, slow], return_when=asyncio.FIRST_COMPLETED)
            # the other is revoked
            ```
        """
        return Scope(self)

    async def send(
        self,
        /,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> results.AsyncResult[Any]:
        """Enqueues a call of a task by its name, which need not be importable here. Options as in
        `Task.options`.

        Raises:
            TypeError: something else than a name, or arguments that are not in a tuple.
            SerializationError, PayloadTooLarge, QueueFull, BrokerUnavailable: as `Task.delay`.
        """
        if not isinstance(name, str):
            raise TypeError(f"send({name!r}) takes the name of a task; a task itself has `delay`")
        task = self._named(name)
        if options:
            task = task.options(**options)
        return await task._send(*arguments_of(f"send({name!r}, ", args, kwargs))

    @synced(send)
    def send_sync(self) -> None:
        """Blocking twin of `send`."""

    def _named(self, name: str) -> Task[..., Any]:
        return self._known(name) or NamedTask(self, name, Options())

    def _known(self, name: str) -> Task[..., Any] | None:
        """The task of a name, also one that is derived from another or comes with asyncq."""
        try:
            return self.tasks[name]
        except KeyError:
            return None

    @carried
    async def submit(self, calls: Iterable[Workflow[R, H]]) -> resultset.ResultSet[R, H]:
        """Enqueues many calls, of any tasks, and returns their handles in the same order, once the server has
        accepted all of them.

        Single calls go 250 at a time, a round trip for each queue among them. A workflow among them is
        accepted as a whole, in a round trip of its own. All are on their way at the same time, so they may
        start in any order. Cancelled, it leaves open which were enqueued.

        Args:
            calls: signatures, chains and groups, complete: nothing is put in front of their arguments.

        Raises:
            TypeError: `calls` is not made of workflows, or arguments do not fit. Nothing was enqueued.
            SerializationError, PayloadTooLarge: an argument cannot travel. Nothing was enqueued.
            ValueError: a workflow of more than 10,000 jobs, or of tasks of another app: nothing was enqueued;
                or a `task_id` or `key` is that of another call: the others may have been.
            QueueFull, BrokerUnavailable: as `Task.delay`; some of the calls may have been enqueued.

        Example:
            ```python
            results = await app.submit([add.s(1, 2), shout.s("a"), add.s(1, 1) | double.s()])
            assert await results.get(timeout=10) == [3, "A", 4]
            ```
        """
        given: list[Any] = [] if isinstance(calls, Workflow) else list(calls)
        strange = (
            [calls] if isinstance(calls, Workflow) else [x for x in given if not isinstance(x, Workflow)]
        )
        if strange:
            for other in strange:
                if inspect.iscoroutine(other):
                    other.close()  # it will not be awaited, and the error says so
            what = "a list of calls" if strange[0] is calls else "a call"
            raise TypeError(f"{strange[0]!r} is not {what} to be made: submit([task.s(...), ...])")
        plain: list[Any] = []
        plans: list[tuple[Plan, list[tuple[wire.Job, bytes]]]] = []
        handles: list[Any] = [None] * len(given)
        for place, call in enumerate(given):
            if isinstance(call, Signature) and not call.task._linked and call.task.app is self:
                plain.append((call.task, call.args, call.kwargs, call.task._body(call.args, call.kwargs)))
            else:
                plan = Plan(self)
                handles[place] = call._plan(plan, None)
                plans.append((plan, plan.messages()))
        sent = asyncio.ensure_future(self._enqueue_calls(plain))
        await asyncio.gather(sent, *(self._submit(plan, messages) for plan, messages in plans))
        rest = iter(sent.result())
        members: list[Any] = [next(rest) if handle is None else handle for handle in handles]
        return resultset.ResultSet(members, app=self)

    @synced(submit)
    def submit_sync(self) -> None:
        """Blocking twin of `submit`."""

    # -- open and close --

    async def open(self) -> None:
        """Connects and subscribes. Opening an open app counts one more user of it, and `close` one less.

        Raises:
            BrokerUnavailable: the server cannot be reached.
            BrokerNotConfigured: there is no server to reach, and none can be started here; or, with `strict`,
                the server may lose jobs.
        """
        await self.bring(self._count(1))

    @synced(open)
    def open_sync(self) -> None:
        """Blocking twin of `open`; `with app:` opens and closes."""

    async def close(self) -> None:
        """Lets go of the app; the last to do so closes its connections. Who still waits gets
        `BrokerUnavailable`. Closed is closed.
        """
        if self._broker is not None:
            await self.bring(self._count(-1))

    def close_sync(self) -> None:
        """Blocking twin of `close`. The last to let go also ends the background thread, if one was started.

        Raises:
            SyncInAsyncContext: on a thread whose event loop runs: `await app.close()`.

        Example:
            ```python
            app.open_sync()  # at the start of a program that has no block for `with app:`
            ...
            app.close_sync()
            ```
        """
        refuse_in_loop("close_sync()", "await ....close()")
        if self._broker is not None:
            self.carry(self.close()).result()
        thread = self._thread
        if self._broker is None and thread is not None:
            with self._lock:
                self._thread = self._loop = None
            thread.stop()

    async def _count(self, users: int) -> None:
        self._users += users
        if self._users <= 0:
            await self._close_here()

    async def __aenter__(self) -> AsyncQ:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> AsyncQ:
        refuse_in_loop("with app:", "async with app:")
        self.carry(self.open()).result()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close_sync()

    @asynccontextmanager
    async def lifespan(self, _site: object = None) -> AsyncIterator[None]:
        """Keeps the app open for the life of a web application.

        The same method for both: `FastAPI(lifespan=app.lifespan)` (any Starlette), and for aiohttp
        `site.cleanup_ctx.append(app.lifespan)`.
        """
        async with self:
            yield

    async def _open_here(self) -> None:
        loop = asyncio.get_running_loop()
        url, server = await self._resolve()
        revive = None
        if server is not None and self.settings.url.startswith("embedded://"):
            revive = partial(_revive, server.directory)
        broker = Broker(parse(url, revive), self.settings, self._channel)
        try:
            await broker.open()
            if server is None:  # those of our own are as they are meant to be
                await posture.check(broker)
        except BaseException as error:
            await broker.close()
            if server is not None:
                server.release()
            if isinstance(error, Unfit):
                raise BrokerNotConfigured(str(error)) from error
            if isinstance(error, ServerError):
                raise BrokerUnavailable(f"{broker.address.safe_url} refuses: {error}") from error
            raise
        self._server = server
        self._broker = broker
        assert self._loop is loop

    async def _resolve(self) -> tuple[str, EmbeddedServer | None]:
        """The URL of the server itself; an embedded one is started or joined."""
        url = self.settings.url
        if not url.startswith(("memory://", "embedded://")):
            return url, None
        from asyncq.broker import embedded

        if url.startswith("memory://"):
            server = await asyncio.to_thread(embedded.private)
        else:
            directory = embedded.resolve(url, anchor_file=self._anchor)
            server = await asyncio.to_thread(embedded.acquire, directory)
            _warn_once(embedded.refuse_or_warn(os.environ, directory, server.version))
        return server.url, server

    async def _close_here(self) -> None:
        await self._run_errands()
        broker, server = self._broker, self._server
        self._broker = self._server = self._opening = None
        self._users = 0
        if broker is not None:
            await broker.close()
        if server is not None:
            await asyncio.to_thread(server.release)
        self._channel = self._shards[0].replies + token()
        with self._lock:
            if self._thread is None:
                self._loop = None

    def _send_off(self, errand: Coroutine[Any, Any, object]) -> asyncio.Task[AsyncQError | None]:
        """Runs a coroutine in the background, on the app's loop, where the app is open. Closing waits a
        little for it. The task's result is the error, if there was one.
        """
        task = asyncio.create_task(_logged(errand))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    def _at_home(self, call: Callable[[], None]) -> None:
        """Calls on the app's loop, from any loop: at once if it is this one. Not if the app is closed."""
        if self.is_here():
            call()
        elif self._broker is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(call)

    async def _run_errands(self) -> None:
        if not self._errands:
            return
        _, late = await asyncio.wait(self._errands, timeout=ERRANDS)
        for errand in late:
            errand.cancel()
        if late:
            log.warning("%d revocations were not answered within %g s and given up", len(late), ERRANDS)
            await asyncio.wait(late)

    # -- one loop for all --

    @property
    def _carrier(self) -> AsyncQ:
        return self

    def is_same(self, other: AsyncQ) -> bool:
        """Whether both look at the same jobs: the same namespace of the same server."""
        mine, others = self.settings, other.settings
        return self is other or (mine.url, mine.namespace) == (others.url, others.namespace)

    def is_here(self) -> bool:
        """Whether the app is open on the loop that runs on this thread."""
        return self._broker is not None and asyncio._get_running_loop() is self._loop

    async def bring(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine on the app's loop, from any loop; opens the app on this one if it is closed."""
        here = asyncio.get_running_loop()
        try:
            home = self._settle(here)
            if home is here:
                await self._opened()
        except BaseException:
            coroutine.close()
            raise
        if home is here:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.bring(coroutine), home))

    def carry(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Starts a coroutine on the app's loop, from a thread that runs none; starts a loop in the background
        if there is none. It opens the app itself if it needs to: not every coroutine does.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self._settle(None))

    def _settle(self, here: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
        """The app's loop. The first who asks decides: its own, or for blocking code a loop in a background
        thread.
        """
        with self._lock:
            loop = self._loop
            if loop is not None and loop.is_closed():
                # `asyncio.run` ended without closing the app. Its connections went with it.
                warnings.warn(
                    f"{self!r} was left open when its event loop closed; use `async with app:`",
                    ResourceWarning,
                    stacklevel=4,
                )
                self._abandon()
                loop = None
            if loop is None:
                if here is None:
                    self._thread = LoopThread()
                    here = self._thread.loop
                loop = self._loop = here
            return loop

    def _abandon(self) -> None:
        server, self._server = self._server, None
        self._broker = self._opening = self._loop = None
        self._users = 0
        if server is not None:
            server.release()

    async def _opened(self) -> None:
        """Waits until the app is open on this loop; the first who needs it opens it, the others wait for
        that.
        """
        while self._broker is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open_here())
                self._wanted_by = 0
            self._wanted_by += 1
            opening = self._opening
            try:
                await asyncio.shield(opening)
            except BaseException as error:
                self._wanted_by -= 1
                if isinstance(error, asyncio.CancelledError) and not self._wanted_by:
                    # It would be opened for nobody, and nobody would close it.
                    opening.cancel()
                    await asyncio.wait([opening])
                    await self._close_here()
                with self._lock:
                    if (
                        self._broker is None
                        and self._thread is None
                        and (self._opening is None or self._opening.done())
                    ):
                        self._loop = None
                raise

    def _broker_here(self) -> Broker:
        assert self._broker is not None, "reached without `carried`"
        return self._broker

    def _listener(self) -> Listener:
        return self._broker_here().listener

    def _announce(self, job: wire.Job, *, new: bool = False) -> Waiter:
        """The waiter of a job about to be enqueued."""
        waiter = self._broker_here().listener.announce(job.id, ignored=job.ignore_result, new=new)
        if current_scope.get() is not None and (scope := scope_for(self)) is not None:
            scope._called(waiter)
        if waiter.accepted:
            return waiter  # of a job that is there: this call may turn out to be another, and is refused
        waiter.queue = job.queue
        if job.expires is not None:
            waiter.expires = job.expires
        if job.wait is not None and not job.parents:
            waiter.state = State.SCHEDULED
        return waiter

    async def _enqueue(self, job: wire.Job, message: bytes, handle: results.AsyncResult[Any]) -> None:
        broker = self._broker_here()
        answer = await broker.intake.enqueue(job, message)
        if answer is True:
            assert handle._waiter is not None  # announced a moment ago
            broker.listener.accepted(handle._waiter)
        elif not self._met(handle, answer):
            raise ValueError(_taken(handle))

    def _met(self, handle: results.AsyncResult[Any], answer: Met) -> bool:
        """A call whose id was there before: whether it is an equal call with the same key."""
        if (scope := scope_for(self)) is not None:
            scope._not_ours(handle.id)
        self._listener().met(handle._own_waiter(), answer)
        return answer is not False

    async def _enqueue_calls(
        self, calls: Sequence[tuple[Task[..., Any], tuple[Any, ...], dict[str, Any], bytes]]
    ) -> list[Any]:
        """Enqueues calls whose arguments are encoded, and therefore known to be good, in batches: while the
        server works on one, the next is made, and between two the loop turns.
        """
        handles: list[Any] = []
        sent: list[asyncio.Task[None]] = []
        for start in range(0, len(calls), BATCH):
            part = calls[start : start + BATCH]
            random = os.urandom(16 * len(part)).hex()
            batch = [
                task._announced(args, kwargs, body, random[32 * n : 32 * n + 32])
                for n, (task, args, kwargs, body) in enumerate(part)
            ]
            handles += [handle for _, _, handle in batch]
            sent.append(asyncio.create_task(self._enqueue_batch(batch)))
            await asyncio.sleep(0)
        await asyncio.gather(*sent)
        return handles

    async def _enqueue_batch(self, jobs: Sequence[tuple[wire.Job, bytes, results.AsyncResult[Any]]]) -> None:
        broker = self._broker_here()
        others = await broker.intake.enqueue_many([(job, message) for job, message, _ in jobs])
        answers = {id(job): answer for job, answer in others}
        listener = broker.listener
        for job, _, handle in jobs:
            if id(job) not in answers:
                listener.accepted(handle._own_waiter())
        refused = [
            handle
            for job, _, handle in jobs
            if (answer := answers.get(id(job), True)) is not True and not self._met(handle, answer)
        ]
        if refused:
            raise ValueError(_taken(refused[0]))

    async def _submit(self, plan: Plan, messages: list[tuple[wire.Job, bytes]]) -> None:
        """Enqueues the jobs of a plan in one step; their handles hear of the outcomes from now on."""
        broker = self._broker_here()
        current = current_job.get()
        for planned in plan.jobs:
            planned.handle._waiter = self._announce(planned.job)
            if current is not None and not planned.job.parents:
                current.children.append(planned.job.id)
        if len(messages) == 1 and not plan.jobs[0].job.parents:
            await self._enqueue(*messages[0], plan.jobs[0].handle)
            return
        if messages:
            try:
                await broker.intake.submit(messages)
            except ValueError:
                # An id is another job's, which is not for the scope around this call to end.
                if (scope := scope_for(self)) is not None:
                    for planned in plan.jobs:
                        scope._not_ours(planned.job.id)
                raise
        for planned in plan.jobs:
            broker.listener.accepted(planned.handle._own_waiter())

    def _keep(self, future: asyncio.Future[Any]) -> None:
        """Keeps a task from being collected before it has run."""
        self._kept.add(future)
        future.add_done_callback(self._kept.discard)


class _Decorator:
    """What `@app.task(...)` with options is: typed like `@app.task`. Exists for type checkers only."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, function: Callable[P, AsyncIterator[Y]], /) -> AsyncGeneratorTask[P, Y]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, function: Callable[P, Iterator[Y]], /) -> GeneratorTask[P, Y]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionTask[P, R]: ...

    def __call__(self, function: Callable[..., Any], /) -> Any:
        raise NotImplementedError


# -- the apps of this process
# ------------------------------------------------------------------------------------------------------------

_apps: weakref.WeakSet[AsyncQ] = weakref.WeakSet()


def the_only_app() -> AsyncQ:
    """The app of a process that has exactly one.

    Raises:
        RuntimeError: there is none, or more than one; the message lists the ways out.
    """
    apps = list(_apps)
    if len(apps) == 1:
        return apps[0]
    found = (
        "there is no AsyncQ app in this process"
        if not apps
        else f"there are {len(apps)} AsyncQ apps in this process"
    )
    raise RuntimeError(
        f"{found}, so a handle made from an id alone does not know which to ask. Use app.AsyncResult(id), "
        "task.AsyncResult(id) or AsyncResult(id, app=app); or import the module that makes the app before"
    )


def _caller_file() -> str | None:
    """The file of the code that makes the app: the embedded server of a project is found from there, whatever
    the working directory.
    """
    frame: Any = sys._getframe(2)
    name: str | None = frame.f_globals.get("__file__")
    return name


def _check_executor(function: Callable[..., Any], name: str, options: Options) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        if options.executor is not None:
            raise TypeError(
                f"{name} is an async function, which runs on the worker's event loop: leave "
                f"executor={options.executor!r} out, or make it a plain function (`def`)"
            )
    elif options.executor not in {None, "thread", "process"}:
        raise ValueError(f'{name}: executor={options.executor!r}: use "thread" or "process"')
    elif options.executor == "process" and inspect.isgeneratorfunction(function):
        raise ValueError(f"{name} is a generator function, which runs in a thread: leave executor= out")
    elif options.soft_timeout is not None and options.executor != "process":
        raise ValueError(
            f'{name}: soft_timeout= needs a coroutine function, or a plain one with executor="process"; '
            "nothing can be raised inside a thread"
        )


def _kind(function: Callable[..., Any]) -> type[Task[..., Any]]:
    """What kind of task a function makes."""
    if inspect.isasyncgenfunction(function):
        return AsyncGeneratorTask
    if inspect.isgeneratorfunction(function):
        return GeneratorTask
    return CoroutineTask if inspect.iscoroutinefunction(function) else FunctionTask


def _name(function: Callable[..., Any]) -> str:
    """`module.function`. What a script calls `__main__`, a worker that imports it knows by its file."""
    module = function.__module__
    if module in {"__main__", failures.MAIN_AGAIN}:
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else module
    return f"{module}.{function.__qualname__}"


def _revive(directory: Path) -> None:
    """Starts the project's server again after it died; the app's own hold on it stands."""
    from asyncq.broker import embedded

    embedded.acquire(directory).release()


def _taken(handle: results.AsyncResult[Any]) -> str:
    id_, task = handle.id, handle._task
    key = None if task is None else task._options.key
    if task is not None and key is not None:
        return (
            f"key {key!r} of {task.name} stands for a call with other arguments, and nothing was enqueued; "
            "use another key for another call, or forget that result when it has ended: "
            f"await app.AsyncResult({id_!r}).forget()"
        )
    return (
        f"a job with task_id {id_!r} exists already and is another call; use another id, or "
        f"app.AsyncResult({id_!r}) for that job"
    )


async def _logged(errand: Coroutine[Any, Any, object]) -> AsyncQError | None:
    """It may be that nobody is there any more to hear of an error."""
    try:
        await errand
    except AsyncQError as error:
        log.warning("a job that nobody waits for any more could not be revoked: %s", error)
        return error
    return None


_warned: set[str] = set()


def _warn_once(text: str | None) -> None:
    if text and text not in _warned:
        _warned.add(text)
        log.warning("%s", text)


_graveyard: list[Any] = []


def _after_fork_in_child() -> None:
    """The child has no loop thread, and shares the parent's sockets and epoll descriptor: it must touch none
    of them.

    The parent's objects are kept alive for ever, for their finalizers would take the sockets out of the epoll
    set that parent and child share, and the parent would hear no more.
    """
    import ctypes

    for app in list(_apps):
        remains = (app._loop, app._broker, app._thread, app._opening, app._server)
        _graveyard.append(remains)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(remains))
        app._reset()


def _at_exit() -> None:
    """An app that a script left open is closed, so that an embedded server ends; one whose loop is gone is
    only warned of.
    """
    for app in list(_apps):
        loop, broker = app._loop, app._broker
        if broker is None or loop is None:
            continue
        if app._thread is not None:
            try:
                app.carry(app._close_here()).result(timeout=3)
            except (TimeoutError, RuntimeError) as error:
                log.debug("an app could not be closed at exit: %r", error)
        else:
            warnings.warn(f"{app!r} was left open; use `async with app:`", ResourceWarning, stacklevel=1)
            app._abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
