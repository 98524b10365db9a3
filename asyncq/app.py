"""The app: `AsyncQ` registers tasks, holds the settings and owns the sessions, which are its connections.

Registration (`@app.task`) touches no server and runs on any thread. An awaited method may be called on any
loop: `Sessions` decides which loop and which open session serve the call. A blocking twin (`send_sync`) makes
the same call from a thread.

Only the packages above import this module: the worker and the command line. All others (`tasks`, `results`,
`client`, ...) know an app by the protocol in `client.application`.
"""

from __future__ import annotations

import inspect
import logging
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from asyncq import config
from asyncq.client.sessions import Sessions
from asyncq.dependencies.injection import Injection, refuse_annotated
from asyncq.dependencies.overrides import Overrides
from asyncq.execution.callables import Kind, kind_of
from asyncq.limits import Limits
from asyncq.middleware import middleware as middlewares
from asyncq.middleware.outcome_hooks import OutcomeHooks
from asyncq.results import groupresult, handle, resultset
from asyncq.results.scope import Scope
from asyncq.schedules.declarations import Declarations
from asyncq.serializers import Policy
from asyncq.serializers.codecs import check_unions
from asyncq.serializers.hints import check_hints
from asyncq.short_repr import brief
from asyncq.states import State
from asyncq.sync_bridge import blocking, on_app_loop, refuse_in_loop
from asyncq.system.main_module import task_module
from asyncq.tasks import submit
from asyncq.tasks.options import Options
from asyncq.tasks.origins import Origin, local_of
from asyncq.tasks.registry import Registry
from asyncq.tasks.task import (
    AsyncGeneratorTask,
    CoroutineTask,
    FunctionTask,
    GeneratorTask,
    NamedTask,
    Task,
)
from asyncq.tasks.workflow import arguments_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType

    from asyncq.client.application import App
    from asyncq.control.control import Control
    from asyncq.execution.retry import Retry
    from asyncq.middleware.middleware import Middleware
    from asyncq.middleware.outcome_hooks import OutcomeHook
    from asyncq.middleware.run_chain import RunHook
    from asyncq.schedules.schedules import Schedules
    from asyncq.tasks.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H")
K = TypeVar("K", bound="OutcomeHook")
Y = TypeVar("Y")

log: logging.Logger = logging.getLogger(__name__)

WorkerLifespan = Callable[["AsyncQ"], AbstractAsyncContextManager[Any]]
"""The lifespan of an app: opens and closes what its workers need."""


class AsyncQ:
    """An application: its tasks, its settings and its connection.

    A block (`async with app:`, `app.lifespan` in a web framework, a `Worker`) has a session of its own on its
    event loop while it is open; several may be open on different loops and threads at once. A call on a loop
    with an open block uses that session. A call on a loop without one, and every blocking call, runs on the
    app's background loop, which the first such call starts and `close` or the end of the process ends. Inside
    a job, calls use the worker's session. After `fork`, the child has no session and opens its own.

    Args:
        url: the server: `redis://`, `rediss://`, `unix://`, `valkey://`; `embedded://` for the Valkey of this
            project, which is also what no URL means; `memory://` for a private throw-away one. Default:
            `ASYNCQ_URL`, then pyproject.toml, then embedded.
        namespace: prefix of every key; apps that share a server keep apart by it.
        default_queue: the queue of tasks that name none.
        result_ttl: how long an outcome is kept after the job ended, in seconds or as a timedelta.
        lease: a worker silent for this many seconds is taken for dead, and its jobs run elsewhere.
        types: dataclasses, models, NamedTuples and enums whose instances may stand where no annotation names
            a class: in `Any`, in a field of a model, in a parameter without annotation.
        lifespan: a function that gets the app and returns an async context manager. Each worker enters it
            once, before its first job, and leaves it after its last one and after the outcome hooks. What it
            yields is `asyncq.current().state` in the jobs. If it raises, the worker ends with that error.
            Clients do not enter it, and neither do the processes of tasks with `executor="process"`.
        settings: the other settings, by name.

    Attributes:
        settings: the values of all settings.
        tasks: the registered tasks by name. It may be read, and is changed by `@app.task` only.
        control: what an operator does with a running system.
        schedules: adds, lists, changes and removes schedules.
        GroupResult: makes groups of this app, and finds saved ones.

    Raises:
        TypeError: something in `types` is no class, or `lifespan` is no function that returns a context
            manager.
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
        types: Iterable[type] = (),
        lifespan: WorkerLifespan | None = None,
        **settings: Any,
    ) -> None:
        self.made_in: str | None = _caller_file()
        explicit = {
            "url": url,
            "namespace": namespace,
            "default_queue": default_queue,
            "result_ttl": result_ttl,
            "lease": lease,
            **settings,
        }
        self.given: dict[str, Any] = {name: value for name, value in explicit.items() if value is not None}
        self.settings: config.Settings = config.load(explicit, project_root=self.folder)
        if "secrets" in self.given:
            self.given["secrets"] = self.settings.secrets  # which nothing shows
        self.policy: Policy = Policy(types, trust_models=self.settings.trust_models)
        self.tasks: dict[str, Task[..., Any]] = Registry(self)
        self._origins: dict[str, Origin] = {}  # of the registered tasks, by name
        self.limits: dict[str, Limits] = {}  # by the names in jobs, also `<name>*`; only tasks with limits
        self.off_loop: dict[str, str] = {}  # by the same names: the executor, if it is not the loop
        self.declarations: Declarations = Declarations()  # the schedules of this process, for its workers
        self.GroupResult: groupresult.GroupResults = groupresult.GroupResults(self)
        self.sessions: Sessions = Sessions(self)
        self.worker_lifespan: WorkerLifespan | None = _checked_lifespan(lifespan)
        self.run_hooks: list[RunHook] = []
        self.outcome_hooks: OutcomeHooks = OutcomeHooks()
        self.overrides: Overrides = Overrides()
        _apps.add(self)
        for middleware in _of_every_app:
            self.add_middleware(middleware)

    @property
    def folder(self) -> Path | None:
        """The folder of the code that has made the app; None if nobody knows."""
        return Path(self.made_in).resolve().parent if self.made_in else None

    @cached_property
    def control(self) -> Control:
        """What an operator does with a running system: shows queues, workers and jobs, and changes them."""
        # Imported when it is first used: workers and web sites that never do save 0.4 MB.
        from asyncq.control.control import Control

        return Control(self)

    @cached_property
    def schedules(self) -> Schedules:
        """Adds, lists, changes and removes schedules."""
        # As `control`.
        from asyncq.schedules.schedules import Schedules

        return Schedules(self)

    def reconfigure(self, **settings: Any) -> None:
        """Changes settings of the app, as the flags of the command line do. The app must be closed.

        Raises:
            RuntimeError: the app is open.
            ValueError: an unknown option or a value that does not fit.

        Example:
            ```python
            app.reconfigure(url="redis://localhost:6379/1", concurrency=10)
            ```
        """
        if self.sessions.is_any_open:
            raise RuntimeError(f"{self!r} is open: its settings can be changed before it is opened, not now")
        self.settings = config.replace(self.settings, settings)
        self.policy.trust_models = self.settings.trust_models
        self.sessions.reconfigure()
        for task in self.tasks.values():
            task.builder.resolve()

    def __repr__(self) -> str:
        from asyncq.broker.transport.url import mask

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
        every: float | timedelta | None = None,
        cron: str | None = None,
        tz: str | None = None,
        catch_up: Literal["latest", "all", "none"] = "latest",
        overlap: bool = False,
        jitter: float | timedelta = 0,
        start: datetime | None = None,
        until: datetime | None = None,
        max_runs: int | None = None,
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
        every: float | timedelta | None = None,
        cron: str | None = None,
        tz: str | None = None,
        catch_up: Literal["latest", "all", "none"] = "latest",
        overlap: bool = False,
        jitter: float | timedelta = 0,
        start: datetime | None = None,
        until: datetime | None = None,
        max_runs: int | None = None,
    ) -> Any:
        """Registers a function as a task: `@app.task` or `@app.task(...)`.

        A coroutine function runs on a worker's event loop, a plain function in a thread of the worker, or
        with `executor="process"` in a process of its own, which can be killed. Callers read the items of a
        generator function with `result.stream()`.

        Args:
            function: the function; given by the decorator syntax.
            name: the name by which workers know the task (default: `module.function`).
            queue: the queue that the job goes to (default: the app's `default_queue`).
            priority: an integer from -9 to 9: of the jobs that wait in a queue, workers take those with the
                larger number first.
            expires: until when the job may start, in seconds from the call; for a call, also an aware
                datetime. A job that has not started by then never starts, and `get` raises `TaskExpired`.
            result_ttl: how long the outcome is kept after the end, in seconds or as a timedelta; at least a
                minute (default: the app's `result_ttl`).
            ignore_result: keep no result; `get` raises `ResultNotFound` at once.
            track_started: if False, a running job shows as `PENDING` until it ends or reports its progress;
                its outcome still has the worker and the start time. The sender's version of the task decides.
            timeout: how long one attempt may take, in seconds from the beginning of its body. Then a
                coroutine is cancelled and a process is killed; a thread runs to its end, and its result is
                ignored.
            soft_timeout: seconds after which `SoftTimeLimitExceeded` is raised inside an attempt, which may
                clean up and return; not in a thread.
            retry: when to try again after a failure, see `Retry` (default: never).
            executor: where a plain function runs: `thread` (the default) or `process`.
            rate_limit: how many jobs of the task may start, evenly spaced, in all workers together: a number
                per second, or "100/s", "100/m", "100/h", "100/d". A job that waits for its turn is `PENDING`,
                and holds no slot of a worker.
            concurrency: how many jobs of the task may run at once, in all workers together.
            every: makes a schedule that calls the task without arguments every so many seconds: whole
                seconds, at least 1. The schedule has the name of the task, and exists while a worker declares
                it.
            cron: the same at the times of a cron text: five fields (minute, hour, day of the month, month,
                day of the week), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. It needs the extra
                `cron`.
            tz: the time zone in which the cron text is read, such as `Europe/Paris` (default: UTC).
            catch_up: which ticks of the schedule run after a time without a worker: the latest of those that
                were missed, all in order (at most the latest 1,000), or none.
            overlap: whether the schedule makes a job while the job of the tick before has not ended. If not,
                the tick is left out and counted.
            jitter: each job of the schedule is made up to so many seconds after its tick.
            start: an aware datetime before which the schedule does not tick; `every` counts from it.
            until: an aware datetime after which the schedule does not tick.
            max_runs: how many jobs the schedule makes.

        Raises:
            TypeError: not a function, a callable without a name of its own and no `name`, a coroutine
                function with an executor, an annotation that uses what is imported under
                `if TYPE_CHECKING:` only, or a schedule of a task with required arguments.
            ImportError: a cron text without the extra `cron`.
            ValueError: the name is taken by another function, or an option makes no sense. A function that a
                reloaded module or a cell of a notebook defines again replaces its earlier definition.

        Example:
            ```python
            @app.task(queue="mail", timeout=30, retry=Retry(max_retries=5, on=(OSError,)))
            async def send(to: str, text: str) -> None:
                await smtp.send(to, text)
            ```
        """
        # Must stay the first statement: each parameter is an option, and no second list can miss one.
        given = dict(locals())
        del given["self"], given["function"]
        options = Options(**given)

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            if isinstance(function, staticmethod):
                function = function.__func__
            if not callable(function) or isinstance(function, (type, Task)):
                raise TypeError(f"@app.task decorates a function, not {brief(function)}")
            if name is None and not hasattr(function, "__qualname__"):
                raise TypeError(
                    f"@app.task decorates a function, and {brief(function)} has no name by which workers "
                    "could know it: use app.task(name=...)"
                )
            known_as = name or _name(function)
            limits = Limits.of(known_as, rate_limit, concurrency)
            task = self._register(function, known_as, options)
            self._limit(task, limits)
            return task

        return register if function is None else register(function)

    def _register(self, function: Callable[..., Any], name: str, options: Options) -> Task[..., Any]:
        kind = kind_of(function)
        _check_executor(kind, name, options)
        origin, known = Origin.of(function), self._origins.get(name)
        if known is not None and not origin.may_replace(known):
            raise origin.conflict(name, known)
        injection = Injection.of(function)
        face = function if injection is None else injection.face
        hints = check_hints(face, local_of(function))
        check_unions(face, hints, self.policy)
        _check_injection(injection, hints, name, options)
        task: Task[..., Any] = _CLASSES[kind](self, function, name, options, injection)
        self.declarations.put(task.builder, self.declarations.check(task.builder, options))
        self.tasks[name] = task
        self._origins[name] = origin
        return task

    def _limit(self, task: Task[..., Any], limits: Limits | None) -> None:
        """Stores the limits and the executor of a task by the names of its jobs, where workers look them up.

        The batch task `<name>*` has the same limits: a job that makes several calls counts as one job.
        """
        for name in (task.name, f"{task.name}*"):
            self.limits.pop(name, None)
            self.off_loop.pop(name, None)
            if limits is not None:
                self.limits[name] = limits
            if task.executor != "loop":
                self.off_loop[name] = task.executor

    def queues(self) -> list[str]:
        """Returns the queues that a worker serves by default: the default queue, then those of tasks."""
        named = (task.builder.resolved.queue for task in self.tasks.values())
        return list(dict.fromkeys([self.settings.default_queue, *named]))

    def AsyncResult(self, id: str) -> handle.AsyncResult[Any]:
        """Returns the handle of a job by its id, whichever process enqueued the job. The handle's state is
        `UNKNOWN` until it asks the server.

        Example:
            ```python
            result = app.AsyncResult(id)
            if await result.exists():
                print(await result.get(timeout=10))
            ```
        """
        return handle.AsyncResult(id, app=self)

    def ResultSet(self, handles: Iterable[handle.AsyncResult[R]]) -> resultset.ResultSet[R]:
        """Makes one object of several handles."""
        return resultset.ResultSet(handles, app=self)

    def scope(self) -> Scope:
        """Returns a block whose jobs do not outlive it: `async with app.scope():`, or `with app.scope():` in
        blocking code.

        The end of the block revokes, with `terminate=True` and all together, the jobs that were enqueued
        inside it and have not ended. That holds also when the block raises or is cancelled; see `Scope`. A
        cancelled block does not wait: its jobs are revoked in the background, and closing the app waits up to
        two seconds for that.

        Raises:
            BrokerUnavailable: at the end of a block that did not raise itself: the server did not answer
                within the operation timeout.

        Example:
            ```python
            async with app.scope() as scope:
                fast, slow = await lookup.delay("cache"), await lookup.delay("archive")
                done, _ = await asyncq.wait([fast, slow], return_when=asyncio.FIRST_COMPLETED)
            # the other is revoked
            ```
        """
        return Scope(self)

    @on_app_loop
    async def send(
        self,
        /,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> handle.AsyncResult[Any]:
        """Enqueues a call of a task by the task's name. This process need not be able to import the task. The
        options are those of `Task.options`.

        Raises:
            TypeError: `name` is not a text, or the arguments are not in a tuple.
            SerializationError, PayloadTooLarge, QueueFull, BrokerUnavailable: as `Task.delay`.

        Example:
            ```python
            result = await app.send("shop.tasks.resize", ("cat.png", 200), queue="images")
            ```
        """
        if not isinstance(name, str):
            raise TypeError(
                f"send() takes the name of a task, not {name!r}; to call a task itself, use its `delay`"
            )
        task = self.task_named(name)
        if options:
            task = task.options(**options)
        positional, named = arguments_of(f"send({name!r}, ", args, kwargs)
        return await task.delay(*positional, **named)

    @blocking(send)
    def send_sync(self) -> None:
        """Blocking twin of `send`."""

    def task_named(self, name: str) -> Task[..., Any]:
        """Returns the task of a name. A task that is not registered here can be sent, but not run."""
        return self.find_task(name) or NamedTask(self, name, Options())

    def find_task(self, name: str) -> Task[..., Any] | None:
        """Returns the task of a name, or None, also batch tasks (`<name>*`) and the barrier task. For
        asyncq's own modules.
        """
        try:
            return self.tasks[name]
        except KeyError:
            return None

    @on_app_loop
    async def submit(self, calls: Iterable[Workflow[R, H]]) -> resultset.ResultSet[R, H]:
        """Enqueues many calls, of any tasks, and returns their handles in the same order, once the server has
        accepted all of them.

        Single calls go in batches of 250, with one round trip for each queue of a batch. The server accepts
        each workflow as a whole, in a round trip of its own. All are sent at the same time, so the jobs may
        start in any order. If `submit` is cancelled, any of the calls may have been enqueued.

        Args:
            calls: signatures, chains and groups that have all their arguments.

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
        return resultset.ResultSet(await submit.submit(self, calls), app=self)

    @blocking(submit)
    def submit_sync(self) -> None:
        """Blocking twin of `submit`."""

    # -- around jobs --

    def add_middleware(self, middleware: Middleware) -> None:
        """Registers a middleware, which runs around each enqueue of this app and around each attempt of its
        jobs. The first that is added is the outermost.

        Add it where the app is made: then clients, workers and their child processes all have it. It also
        works while the app is open, for the calls and attempts that begin later.

        Raises:
            TypeError: it is no instance of a class that derives from `Middleware`, or it has neither
                `on_enqueue` nor `on_run`, or one of them is not a coroutine function.

        Example:
            ```python
            class Timing(asyncq.Middleware):
                async def on_run(self, job, call_next):
                    began = time.perf_counter()
                    try:
                        return await call_next(job)
                    finally:
                        print(job.name, time.perf_counter() - began)

            app.add_middleware(Timing())
            ```
        """
        middlewares.check(middleware)
        self._insert(middleware, len(self.sessions.on_enqueue), len(self.run_hooks))

    def _insert(self, middleware: Middleware, enqueue_place: int, run_place: int) -> None:
        middleware.on_add(self)
        if middlewares.has_own(middleware, "on_enqueue"):
            self.sessions.on_enqueue.insert(enqueue_place, middleware.on_enqueue)
        if middlewares.has_own(middleware, "on_run"):
            self.run_hooks.insert(run_place, middleware.on_run)

    def on_success(self, hook: K) -> K:
        """Registers a hook that a worker calls when a job of this app has succeeded and its value is stored.

        Hooks run on the worker's loop, beside the jobs, once for each outcome that counted. What they raise
        is logged, and changes nothing. A hook has 60 seconds. While a thousand hooks of a worker run, it
        reads no more jobs. A worker that stops waits for them within its grace. Register them where the app
        is made: only workers call them.

        Raises:
            TypeError: it is not a coroutine function.

        Example:
            ```python
            @app.on_success
            async def note(event: asyncq.JobEvent) -> None:
                print(event.task, event.value, event.duration)
            ```
        """
        return self.outcome_hooks.add(State.SUCCESS, hook)

    def on_failure(self, hook: K) -> K:
        """Registers a hook for jobs that have failed for good, see `on_success`. The worker that finds that
        other workers died with a job calls it, too, with a `WorkerLost`.

        Raises:
            TypeError: it is not a coroutine function.
        """
        return self.outcome_hooks.add(State.FAILURE, hook)

    def on_retry(self, hook: K) -> K:
        """Registers a hook for attempts that have failed and are followed by another, see `on_success`.

        Raises:
            TypeError: it is not a coroutine function.
        """
        return self.outcome_hooks.add(State.RETRY, hook)

    def on_revoked(self, hook: K) -> K:
        """Registers a hook for jobs that were revoked after they had begun, see `on_success`. A job that was
        revoked, purged or has expired in its queue has no worker that could call it.

        Raises:
            TypeError: it is not a coroutine function.
        """
        return self.outcome_hooks.add(State.REVOKED, hook)

    def override(
        self, instead: Mapping[Callable[..., Any], Callable[..., Any]]
    ) -> AbstractContextManager[None]:
        """Returns a block in which other functions make the instances of dependencies, for tests. It holds
        for all jobs of this app that begin in this process meanwhile, and for `task.apply()`. A function on
        which no task depends, that is registered by then, is a `UserWarning`.

        Args:
            instead: by the function of a dependency, the function that stands for it. It is of any kind that
                `Depends` takes, and may have dependencies itself.

        Raises:
            TypeError: something in it cannot be called.
            ValueError: a function would depend on itself.

        Example:
            ```python
            with app.override({get_pool: lambda: FakePool()}):
                assert rename.apply((7, "Ada")).get_sync() is None
            ```
        """
        injections = [task.builder.injection for task in self.tasks.values()]
        return self.overrides.block(instead, [one for one in injections if one is not None])

    # -- open and close --

    async def open(self) -> None:
        """Opens a session on this loop, as `async with app:` does, until `close` is called on this loop.

        Raises:
            BrokerUnavailable: the server cannot be reached.
            BrokerNotConfigured: there is no server to reach, and none can be started here; or, with `strict`,
                the server may lose jobs.

        Example:
            ```python
            await app.open()  # where no block fits, such as in the hooks of a framework
            try:
                await serve()
            finally:
                await app.close()
            ```
        """
        await self.sessions.enter(is_call=True)

    def open_sync(self) -> None:
        """Opens the background session, which blocking calls use, until `close_sync`. Raises what `open`
        raises. Each call needs its own call of `close_sync`.

        Raises:
            SyncInAsyncContext: on a thread whose event loop runs: `await app.open()`.
        """
        refuse_in_loop("open_sync()", "await ....open()")
        self.sessions.enter_background()

    async def close(self) -> None:
        """Undoes one call of `open` on this loop. Without such a call, it closes the background session,
        which serves calls outside of blocks. Open blocks are not affected: each ends by itself.

        Waits that still use the closed session raise `BrokerUnavailable`. Where nothing is open, `close` does
        nothing. The app may be opened and used again.
        """
        if not await self.sessions.undo_open():
            await self.sessions.close_background()

    def close_sync(self) -> None:
        """Undoes one call of `open_sync`. The last such call, and a call without an `open_sync` before it,
        closes the background session and ends its thread.

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
        self.sessions.leave_background()

    async def __aenter__(self) -> AsyncQ:
        await self.sessions.enter()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.sessions.leave()

    def __enter__(self) -> AsyncQ:
        refuse_in_loop("with app:", "async with app:")
        self.sessions.enter_background()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close_sync()

    @asynccontextmanager
    async def lifespan(self, _site: object = None) -> AsyncIterator[None]:
        """Keeps a session open on this loop for the life of a web application.

        Use `FastAPI(lifespan=app.lifespan)` (likewise in any Starlette application), and for aiohttp
        `site.cleanup_ctx.append(app.lifespan)`.

        Example:
            ```python
            site = FastAPI(lifespan=app.lifespan)
            ```
        """
        async with self:
            yield

    # -- where calls are served, see `sessions` --

    @property
    def _loop_owner(self) -> Sessions:
        """Where the calls of this object run."""
        return self.sessions

    def is_same(self, other: App) -> bool:
        """Returns whether both apps see the same jobs: the same namespace of the same server. For asyncq's
        own modules.
        """
        mine, others = self.settings, other.settings
        return self is other or (mine.url, mine.namespace) == (others.url, others.namespace)


_apps: weakref.WeakSet[AsyncQ] = weakref.WeakSet()
_of_every_app: list[Middleware] = []


def add_to_every_app(middleware: Middleware) -> None:
    """Registers a middleware with every app of this process: those that exist, where it becomes the
    outermost, and those that are made later. It is for libraries that are set up once for a process; an app
    of your own has `AsyncQ.add_middleware`. A second call registers it a second time.

    Raises:
        TypeError: as `AsyncQ.add_middleware`.

    Example:
        ```python
        add_to_every_app(Timing())
        ```
    """
    middlewares.check(middleware)
    _of_every_app.append(middleware)
    for app in list(_apps):
        app._insert(middleware, 0, 0)


class _Decorator:
    """The type of `@app.task(...)` with options: it has the overloads of `@app.task`. For type checkers."""

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


def _caller_file() -> str | None:
    """Returns the file of the code that makes the app. The embedded server of a project is found from there,
    whatever the working directory is.
    """
    # Frame 2 is the caller of `AsyncQ.__init__`. `inspect.stack()` would read the sources of all callers.
    frame: Any = sys._getframe(2)
    name: str | None = frame.f_globals.get("__file__")
    return name


def _checked_lifespan(lifespan: WorkerLifespan | None) -> WorkerLifespan | None:
    if inspect.isasyncgenfunction(lifespan) or inspect.isgeneratorfunction(lifespan):
        raise TypeError(
            f"lifespan={lifespan.__name__}: decorate it with @contextlib.asynccontextmanager, and make it "
            "an async function that yields once"
        )
    if lifespan is not None and not callable(lifespan):
        raise TypeError(
            f"lifespan={brief(lifespan)}: give a function that takes the app and returns an async context "
            "manager, and do not call it"
        )
    return lifespan


def _check_injection(
    injection: Injection | None, hints: Mapping[str, Any], name: str, options: Options
) -> None:
    refuse_annotated(name, hints)
    if injection is None:
        return
    if options.executor == "process":
        names = ", ".join(injection.parameters)
        raise ValueError(
            f'{name} has executor="process", and a process gets no dependencies ({names}): make them inside '
            "of the function, or leave executor= out"
        )
    injection.check(name)


def _check_executor(kind: Kind, name: str, options: Options) -> None:
    if kind.is_async:
        if options.executor is not None:
            raise TypeError(
                f"{name} is an async function, which runs on the worker's event loop: leave "
                f"executor={options.executor!r} out, or make it a plain function (`def`)"
            )
    elif options.executor not in {None, "thread", "process"}:
        raise ValueError(f'{name}: executor={options.executor!r}: use "thread" or "process"')
    elif options.executor == "process" and kind.is_generator:
        raise ValueError(f"{name} is a generator function, which runs in a thread: leave executor= out")
    elif options.soft_timeout is not None and options.executor != "process":
        raise ValueError(
            f'{name}: soft_timeout= needs a coroutine function, or a plain one with executor="process"; '
            "nothing can be raised inside a thread"
        )


_CLASSES: dict[Kind, type[Task[..., Any]]] = {
    Kind(is_async=True, is_generator=True): AsyncGeneratorTask,
    Kind(is_async=False, is_generator=True): GeneratorTask,
    Kind(is_async=True, is_generator=False): CoroutineTask,
    Kind(is_async=False, is_generator=False): FunctionTask,
}


def _name(function: Callable[..., Any]) -> str:
    """Returns `module.function`. The module of a script is named after its file and not `__main__`, for that
    is the name under which a worker imports it.
    """
    return f"{task_module(function.__module__)}.{function.__qualname__}"
