"""Tasks: a function that can be called here, or sent to a worker with the same arguments and awaited.

A job begins here: `Task.delay` has `JobBuilder` make it, and sends it by `Session.submit`. Awaited methods
may be called on any loop, their twins `..._sync` on any thread without a running loop.
`options` returns a copy of the task, and leaves the task as it is.

`_OfFunction` makes `inspect.signature(task.delay)` show the parameters of the function. The classes at the
end are the kinds of tasks: coroutine, plain function, generators, and a task that is known by name only.
"""

from __future__ import annotations

import copy
import functools
import types
import typing
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, overload

from typing_extensions import TypeVar

from asyncq import config, wire
from asyncq.client.deadlock import check_join
from asyncq.execution import callables
from asyncq.results import eager_run
from asyncq.results.eager import eager_result
from asyncq.results.handle import AsyncResult
from asyncq.results.resultset import ResultSet
from asyncq.results.server_job import ServerJob
from asyncq.results.streamresult import StreamResult
from asyncq.results.view import handle_of
from asyncq.serializers import PLAIN_VALUE, ArgumentCodec, ValueCodec
from asyncq.serializers.hints import hints_of
from asyncq.sync_bridge import blocking, on_app_loop, overloaded, refuse_in_loop
from asyncq.tasks.group import Group
from asyncq.tasks.job_builder import JobBuilder
from asyncq.tasks.signature import Signature
from asyncq.tasks.submit import send_many, submit
from asyncq.tasks.workflow import Workflow, are_several, arguments_of, as_tuple, shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from asyncq.client.application import App
    from asyncq.client.sessions import InlineCalls
    from asyncq.dependencies.injection import Injection
    from asyncq.execution.retry import Retry
    from asyncq.results.eager import EagerResult
    from asyncq.sync_bridge import LoopOwner
    from asyncq.tasks.options import Options
    from asyncq.tasks.parameter_kinds import (
        Lacks1,
        Lacks2,
        Lacks3,
        Lacks4,
        Takes0,
        Takes1,
        Takes2,
        Takes3,
        Takes4,
        TakesMore,
    )

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
Y = TypeVar("Y")
H_co = TypeVar("H_co", bound=AsyncResult[Any], default=AsyncResult[R], covariant=True)


class _Introspection:
    """What Python's tools read of the methods of a task.

    Attributes:
        by_method: the attributes of each method. It is filled at first use, for a program registers many
            tasks when it starts. Copies of the task share it.
        last: the method that was accessed last.
    """

    __slots__ = ("by_method", "last")

    def __init__(self, by_method: dict[str, dict[str, Any]]) -> None:
        self.by_method = by_method
        self.last: str = ""


class Task(Generic[P, R, H_co]):
    """A registered function. `Task[P, R]` carries its parameters and result type to `delay`, `call` and
    `AsyncResult[R]`. The type of the handle is a third parameter, which need not be given.

    Made by `@app.task`, not by hand. Calling it runs the function here and now, with no queue.

    Attributes:
        app: the app with which it is registered.
        name: the name by which workers know it: `module.function`, unless another was given.
        function: the function itself.
        is_composed: whether its body is more than one call; for asyncq's own modules.
        is_coroutine: whether it is a coroutine function, or an async generator function.
        executor: where a worker runs it: `loop`, `thread` or `process`.
        is_generator: whether its jobs are streams of what it yields.
        is_linked: whether something follows its jobs, see `link`; for asyncq's own modules.
        builder: makes its jobs; for asyncq's own modules.
        handle: the class of its handles.

    Example:
        ```python
        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        result = await add.delay(4, 4)  # in a worker
        total = await add.call(4, 4)  # in a worker, and awaited
        total = await add(4, 4)  # here
        ```
    """

    is_coroutine = False
    is_generator = False
    items: ValueCodec = PLAIN_VALUE
    handle: type[Any] = AsyncResult  # the class for `H_co`

    def __init__(
        self,
        app: App,
        function: Callable[P, Any],
        name: str,
        options: Options,
        injection: Injection | None = None,
    ) -> None:
        self.app = app
        self.name = name
        self.function = function
        self.is_composed: bool = self.is_generator or injection is not None
        self.builder: JobBuilder = JobBuilder(app, name, function, options, injection)
        self.arguments: ArgumentCodec = self.builder.arguments
        self.returns: ValueCodec = ValueCodec.of_result(self.face, app.policy)
        self.is_linked: bool = False
        self._batch_task: Task[..., Any] | None = None
        self.executor: str = "loop" if self.is_coroutine else options.executor or "thread"
        self.retry: Retry | None = options.retry
        self.timeout: float | None = None if options.timeout is None else config.seconds(options.timeout)
        self.soft_timeout: float | None = (
            None if options.soft_timeout is None else config.seconds(options.soft_timeout)
        )
        self.has_time_limit: bool = self.timeout is not None or self.soft_timeout is not None
        for attribute in ("__module__", "__qualname__", "__doc__", "__name__"):
            object.__setattr__(self, attribute, getattr(function, attribute, None))
        self.__wrapped__ = function
        self._introspection: _Introspection = _Introspection({})

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name in _OF_FUNCTION:  # partials that `_OfFunction` stored here are bound to the original
            other.__dict__.pop(name, None)
        other._introspection = _Introspection(self._introspection.by_method)
        return other

    def __repr__(self) -> str:
        return f"<Task {self.name}{self.builder.signature}>"

    @property
    def injection(self) -> Injection | None:
        """The dependencies of the function; None if it has none. For asyncq's own modules."""
        return self.builder.injection

    @property
    def face(self) -> Callable[..., Any]:
        """The function as callers see it, without the parameters that the worker fills. It is not called. For
        asyncq's own modules.
        """
        injection = self.builder.injection
        return self.function if injection is None else injection.face

    @property
    def _loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self.app.sessions

    def _introspected(self) -> dict[str, dict[str, Any]]:
        """Returns, for each method by name, the attributes that Python's tools read. The parameters are those
        of the function, and the result is that of the method.
        """
        function = self.face
        # As values of type Any: a type checker would take `handle[value]` for a type.
        generic: Any = self.handle
        signature: Any = Signature
        try:
            value = hints_of(function).get("return", Any)
            if self.is_generator:
                value = next(iter(typing.get_args(value)), Any)
            handle = generic[value]
        except TypeError:  # the annotation has a name that is defined nowhere, or it is no type
            value, handle = Any, generic[Any]
        called = types.NoneType if self.is_generator else value
        part = signature[None, handle] if self.is_generator else signature[value]
        results = {"delay": handle, "call": called, "s": part}
        results |= {"delay_sync": handle, "call_sync": called, "si": part}
        return {
            name: {
                "__signature__": self.builder.signature.replace(return_annotation=result),
                "__annotations__": {**getattr(function, "__annotations__", {}), "return": result},
                "__module__": self.__module__,
                "__wrapped__": function,  # its globals are where the annotations are looked up
            }
            for name, result in results.items()
        }

    # -- sending --

    async def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> H_co:
        """Enqueues a call and returns its handle, once the server has accepted the job.

        If `delay` is cancelled, the job may have been accepted or not.

        Raises:
            TypeError: the arguments do not fit the function.
            ValueError: the `key` or `task_id` is that of another call. Nothing was written.
            SerializationError: an argument cannot travel; the message names it. Nothing was written.
            PayloadTooLarge: the arguments take more than `max_payload`. Nothing was written.
            QueueFull: the queue holds `max_length` jobs, or the server is out of memory. Nothing was written.
            BrokerUnavailable: the server could not be reached; with a `key`, sending it again
                is safe.
            NotReplicated: with the setting `replicas`, too few replicas had the job within
                `operation_timeout`. The job exists.

        Example:
            ```python
            result = await add.delay(4, 4)
            assert await result.get(timeout=10) == 8
            ```
        """
        return await self._send(args, kwargs)

    @blocking(delay)
    def delay_sync(self) -> None:
        """Blocking twin of `delay`."""

    async def call(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Enqueues a call, waits for it and returns its value: `await (await task.delay(...)).get()`.

        Bound the wait with `task.options(wait=2.0).call(...)`; the job itself goes on after a timeout.

        Raises:
            WouldDeadlock: inside a task; nothing was enqueued.
            ResultTimeout: `wait` is over.
            Exception: whatever `delay` and `AsyncResult.get` raise, the task's own exception among it.

        Example:
            ```python
            total = await add.options(wait=2.0).call(4, 4)
            ```
        """
        own = self.builder.options.task_id
        check_join(f"{self.name}.call()", () if own is None else (self.AsyncResult(own),))
        result = await self._send(args, kwargs)
        wait = self.builder.options.wait
        value: R = await result.get(None if wait is None else config.seconds(wait))
        return value

    @blocking(call)
    def call_sync(self) -> None:
        """Blocking twin of `call`."""

    @on_app_loop
    async def apply_async(
        self, /, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> H_co:
        """Celery's spelling of `task.options(**options).delay(*args, **kwargs)`. Raises what `delay`
        raises.

        Example:
            ```python
            result = await add.apply_async((4, 4), queue="urgent", countdown=10)
            ```
        """
        task = self.options(**options) if options else self
        return await task._send(*arguments_of(f"{self.name}.apply_async(", args, kwargs))

    @blocking(apply_async)
    def apply_async_sync(self) -> None:
        """Blocking twin of `apply_async`."""

    @overload
    async def map(self: Takes0, calls: Iterable[tuple[()]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Takes1[A], calls: Iterable[tuple[A]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Takes2[A, B], calls: Iterable[tuple[A, B]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Takes3[A, B, C], calls: Iterable[tuple[A, B, C]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Takes4[A, B, C, D], calls: Iterable[tuple[A, B, C, D]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self, calls: Iterable[list[Any]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Lacks1[A], calls: Iterable[Sequence[A]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Lacks2[A, B], calls: Iterable[Sequence[A | B]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: Lacks3[A, B, C], calls: Iterable[Sequence[A | B | C]]) -> ResultSet[R, H_co]: ...

    @overload
    async def map(
        self: Lacks4[A, B, C, D], calls: Iterable[Sequence[A | B | C | D]]
    ) -> ResultSet[R, H_co]: ...

    @overload
    async def map(self: TakesMore, calls: Iterable[Sequence[Any]]) -> ResultSet[R, H_co]: ...

    @overloaded
    @on_app_loop
    async def map(self, calls: Iterable[Sequence[Any]]) -> ResultSet[R, H_co]:
        """Enqueues one call for each sequence of arguments, a few hundred in each round trip.

        Type checkers compare tuples with the function's parameters, up to four of them. They cannot see the
        length of a list and accept any list. They also accept anything for a function with more positional
        parameters.

        Raises:
            ValueError: the task has a `key`, which stands for one call only.
            TypeError, SerializationError, PayloadTooLarge: for any of the calls; then none was enqueued.
            QueueFull, BrokerUnavailable: as `delay`; some of the calls may have been enqueued.

        Example:
            ```python
            results = await add.map([(1, 2), (3, 4)])
            assert await results.get(timeout=10) == [3, 7]
            ```
        """
        key = self.builder.options.key
        if key is not None:
            raise ValueError(
                f"map() of {self.name} makes many calls, but key={key!r} is for one call: use "
                "app.submit([task.options(key=...).s(...), ...])"
            )
        given = [_positional(self, args, "map()") for args in calls]
        if self.is_linked or self.app.sessions.inline is not None:
            linked = await submit(self.app, [Signature(self, args, {}) for args in given])
            return ResultSet(linked, app=self.app)
        session = self.app.sessions.current()
        encode = self.builder.body
        handles: list[Any] = await send_many(session, [(self, args, {}, encode(args, {})) for args in given])
        return ResultSet(handles, app=self.app)

    @overload
    def map_sync(self: Takes0, calls: Iterable[tuple[()]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Takes1[A], calls: Iterable[tuple[A]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Takes2[A, B], calls: Iterable[tuple[A, B]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Takes3[A, B, C], calls: Iterable[tuple[A, B, C]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Takes4[A, B, C, D], calls: Iterable[tuple[A, B, C, D]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self, calls: Iterable[list[Any]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Lacks1[A], calls: Iterable[Sequence[A]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Lacks2[A, B], calls: Iterable[Sequence[A | B]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: Lacks3[A, B, C], calls: Iterable[Sequence[A | B | C]]) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(
        self: Lacks4[A, B, C, D], calls: Iterable[Sequence[A | B | C | D]]
    ) -> ResultSet[R, H_co]: ...

    @overload
    def map_sync(self: TakesMore, calls: Iterable[Sequence[Any]]) -> ResultSet[R, H_co]: ...

    @overloaded
    @blocking(map)
    def map_sync(self) -> None:
        """Blocking twin of `map`."""

    def apply(
        self,
        /,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool = False,
        **options: Any,
    ) -> EagerResult[R]:
        """Runs the call here and now, without a queue or a server, and returns how it ended.

        Arguments, result and failure are encoded and decoded as on their way to a worker and back, and
        `asyncq.current()` is the job. So a call that works here works there. Retries are made without their
        pauses. A coroutine function runs on an event loop of its own; a plain function runs on this thread,
        without time limits. The items of a generator task are kept, and `stream()` of the result gives them.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            throw: raise what the task raises, instead of keeping it in the result.
            options: as `Task.options`; when to start (`countdown`, `eta`) and where (`queue`,
                `priority`) change nothing.

        Raises:
            TypeError, SerializationError, PayloadTooLarge: as `delay`.
            SyncInAsyncContext: a coroutine function, on a thread whose event loop runs: `await add(4, 4)`.

        Example:
            ```python
            result = add.apply(args=(4, 4))
            assert result.get_sync() == 8
            ```
        """
        positional, named = arguments_of(f"{self.name}.apply(", args, kwargs)
        if self.is_coroutine:
            refuse_in_loop(f"{self.name}.apply()", lambda: f"await {_call(self.function, positional, named)}")
        task = self.options(**options) if options else self
        if task.is_linked:
            linked: EagerResult[R] = Signature(task, positional, named).apply(throw=throw)
            return linked
        builder = task.builder
        job, message = builder.call(builder.body(positional, named), "")
        result = eager_run.run(task, wire.decode_job(job.id, job.queue, message), positional, named)
        if throw:
            result.unwrap()
        return result

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        task_id: str | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        ignore_result: bool | None = None,
        result_ttl: float | timedelta | None = None,
        expires: float | timedelta | datetime | None = None,
        wait: float | timedelta | None = None,
        countdown: float | timedelta | None = None,
        eta: float | timedelta | datetime | None = None,
        deadline: float | timedelta | datetime | None = None,
        timeout: float | timedelta | None = None,
        retry: Retry | None = None,
        link: Workflow[Any] | Sequence[Workflow[Any]] | None = None,
        link_error: Workflow[Any] | Sequence[Workflow[Any]] | None = None,
    ) -> Self:
        """Returns the same task with other options for its calls. The task itself is not changed. An option
        that is not given here stays as the task has it.

        Args:
            queue: the queue that the job goes to (default: the app's `default_queue`).
            priority: an integer from -9 to 9: of the jobs that wait in a queue, workers take those with the
                larger number first.
            task_id: the id of the job, chosen by the caller: 1 to 200 of `A-Z a-z 0-9 _ . : -`, unique among
                the results that still exist.
            key: any text of 1 to 512 characters. All calls of this task with the same key and equal arguments
                are one job: while it is live, they get its handle; later they get its stored outcome, also a
                failure, until that is forgotten or `result_ttl` is over. A call with the same key and other
                arguments raises `ValueError`. Other options of a later call change nothing. Not together with
                `task_id`.
            headers: plain data that travels with the job; the task reads it from `asyncq.current().headers`.
            ignore_result: keep no result; `get` raises `ResultNotFound` at once.
            result_ttl: how long the outcome is kept after the end, in seconds or as a timedelta; at least a
                minute (default: the app's `result_ttl`).
            expires: until when the job may start, in seconds from the call; for a call, also an aware
                datetime. A job that has not started by then never starts, and `get` raises `TaskExpired`.
            wait: how long `call` waits, in seconds (default: for ever).
            countdown: seconds until the job may start.
            eta: when the job may start: an aware datetime, or seconds from now. Not together with
                `countdown`.
            deadline: when the job, and every job that it starts, must have ended: an aware datetime, or
                seconds from now. After that, a waiting job does not start, and a running job is cancelled.
            timeout: how long one attempt may take, in seconds from the beginning of its body. Then a
                coroutine is cancelled and a process is killed; a thread runs to its end, and its result is
                ignored.
            retry: when to try again after a failure, see `Retry` (default: never).
            link: what runs after the job has succeeded, one workflow or a list of workflows: the job's value
                is their first argument.
            link_error: what runs after the job has failed, one signature or a list of signatures: they get
                the job's id, the exception and the traceback (a text) before their own arguments.

        Raises:
            ValueError: a value does not fit; the message says what would fit.
            TypeError: a value is of the wrong type; the message says what would fit.

        Example:
            ```python
            result = await add.options(queue="urgent", expires=30).delay(1, 2)
            ```
        """
        # Must stay the first statement: each parameter is an option, and no second list can miss one.
        given = dict(locals())
        del given["self"]
        return self.with_options(self.builder.options.with_call(given))

    def with_options(self, options: Options) -> Self:
        """Returns the task with these options for its calls, in place of those it had. For asyncq's own
        modules.
        """
        other = copy.copy(self)
        other.builder = self.builder.with_options(options)
        other.is_linked = bool(options.link or options.link_error)
        return other

    def resolve(self) -> None:
        """Resolves the annotations of the function now, and not at the first call. For asyncq's own modules.

        Raises:
            TypeError: an annotation uses a name that is defined nowhere, or a union whose members a reader
                cannot tell apart.
        """
        for codec in (self.arguments, self.returns, self.items):
            codec.resolve()

    def use_codecs(self, arguments: ArgumentCodec, returns: ValueCodec) -> None:
        """Gives the task other codecs than those of its function. For asyncq's own modules."""
        self.builder.arguments = self.arguments = arguments
        self.returns = returns

    # -- calls as data --

    @overload
    def s(self, /) -> Signature[R, H_co]: ...

    @overload
    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[R, H_co]: ...

    @overload
    def s(
        self: Task[Concatenate[Any, Q], R, H_co], /, *args: Q.args, **kwargs: Q.kwargs
    ) -> Signature[R, H_co]: ...

    @overload
    def s(
        self: Task[Concatenate[Any, Any, Q], R, H_co], /, *args: Q.args, **kwargs: Q.kwargs
    ) -> Signature[R, H_co]: ...

    @overload
    def s(
        self: Task[Concatenate[Any, Any, Any, Q], R, H_co], /, *args: Q.args, **kwargs: Q.kwargs
    ) -> Signature[R, H_co]: ...

    def s(self, /, *args: Any, **kwargs: Any) -> Signature[R, H_co]:
        """Returns a signature: a call for later, as data, to be sent alone or in a workflow.

        The first arguments may be missing: the arguments with which the signature is sent, or the value of
        the step before it, go in front. Type checkers accept all arguments, all but the first one, two or
        three, or none. To leave out others, write `Signature(task, args, kwargs)`, which they do not check.

        Raises:
            TypeError: the arguments do not fit the function, whatever comes in front of them.

        Example:
            ```python
            assert await add.s(2).call(4) == 6
            assert await (add.s(2, 2) | add.s(4)).call() == 8
            ```
        """
        self.builder.check_part(args, kwargs)
        return Signature(self, args, kwargs)

    def si(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[R, H_co]:
        """Returns an immutable signature: a complete call for later. In a workflow it waits for the step
        before it and ignores the value of that step.

        Raises:
            TypeError: the arguments do not fit the function.

        Example:
            ```python
            assert await (add.s(2, 2) | add.si(1, 1)).call() == 2
            ```
        """
        self.builder.check(args, kwargs)
        return Signature(self, args, kwargs, immutable=True)

    def starmap(self, calls: Iterable[Sequence[Any]]) -> Signature[list[R]]:
        """Returns a signature of one job that makes all calls. Its value is the list of their values.

        This is for many calls that are too short to be jobs of their own. The job makes them one after the
        other. It is a job of the batch task `<name>*`: every worker that knows this task knows that one, too.
        Time limits and retries are for all calls together.

        Args:
            calls: the positional arguments of each call.

        Raises:
            TypeError: the arguments of a call do not fit the function, or it is a generator function.

        Example:
            ```python
            assert await add.starmap([(1, 2), (3, 4)]).call() == [3, 7]
            ```
        """
        given = [_positional(self, args, "starmap()") for args in calls]
        for args in given:
            self.builder.check(args, {})
        batch_task: Task[..., Any] = self.batch_task().with_options(self.builder.options)
        return Signature(batch_task, (given,), {}, immutable=True)

    def xmap(self, values: Iterable[Any]) -> Signature[list[R]]:
        """Returns the same as `starmap`, for calls with one argument each. Celery calls this `map`; here,
        `map` makes each call a job of its own.

        Example:
            ```python
            assert await double.xmap([1, 2, 3]).call() == [2, 4, 6]
            ```
        """
        return self.starmap((value,) for value in values)

    def chunks(self, calls: Iterable[Sequence[Any]], n: int) -> Group[list[R]]:
        """Returns a group of jobs that make `n` calls each, as `starmap` does.

        Raises:
            TypeError: the arguments of a call do not fit the function.
            ValueError: `n` is less than 1.

        Example:
            ```python
            assert await add.chunks([(1, 1), (2, 2), (3, 3)], 2).call() == [[2, 4], [6]]
            ```
        """
        if n < 1:
            raise ValueError(f"n={n!r}: a chunk has one call or more")
        given = [_positional(self, args, "chunks()") for args in calls]
        return Group(tuple(self.starmap(given[at : at + n]) for at in range(0, len(given), n)))

    def batch_task(self) -> Task[..., Any]:
        """Returns the batch task `name*`, which makes several calls of this task in one job. For asyncq's own
        modules.

        Raises:
            TypeError: this is a generator task.
        """
        if self.is_generator:
            raise TypeError(
                f"{self.name} is a generator task: each of its calls is a stream; use map([(...), ...])"
            )
        if self._batch_task is None:
            kind: Any = CoroutineTask if self.is_coroutine else FunctionTask
            function = _one_by_one(self.function, self.is_coroutine, self.injection)
            name, options = f"{self.name}*", self.builder.options
            # All calls of the job share the instances, which `function` puts in their places.
            injection = None if self.injection is None else self.injection.by_name(function)
            batch_task: Task[..., Any] = kind(self.app, function, name, options, injection)
            batch_task.use_codecs(self.arguments.of_calls(), self.returns.of_list())
            self._batch_task = batch_task
        return self._batch_task

    def AsyncResult(self, id: str) -> H_co:
        """Returns the typed handle of a job of this task by its id, whichever process enqueued the job.

        Example:
            ```python
            total = await add.AsyncResult(id).get(timeout=10)  # an int, also for type checkers
            ```
        """
        handle: H_co = self.handle(id, app=self.app, task=self)
        return handle

    # -- sending one call --

    async def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> H_co:
        if self.is_linked:
            linked: H_co = await Signature(self, args, kwargs).delay()
            return linked
        # Not by `on_app_loop`, which asks for the running loop, too: see `Sessions.here`.
        sessions = self.app.sessions
        session = sessions.here()
        if session is None:
            if sessions.inline is not None:
                ran: H_co = await self._run_inline(sessions.inline, args, kwargs)
                return ran
            return await sessions.run_on_app_loop(self._send_there(args, kwargs))
        builder = self.builder
        body = builder.body(args, kwargs)
        job, message = builder.call(body, session.channel)
        waiter, answer = session.send(job, message, new=not builder.has_own_id)
        # The handle is made while the server works.
        known: ServerJob[R] = ServerJob(
            job.id, self.app, self, waiter, args, kwargs, is_ignored=job.ignore_result
        )
        handle: H_co = handle_of(self.handle, known)
        refused = await answer
        if refused is not None:
            raise builder.taken(refused)
        return handle

    async def _run_inline(self, inline: InlineCalls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call where it is made, and returns its handle: an `EagerResult`."""
        builder = self.builder
        job, message = builder.call(builder.body(args, kwargs), "")
        refused = await inline.run([(job, message)])
        ended = inline.outcome(job.id)
        if refused is not None or ended is None:
            raise builder.taken(job.id)
        return eager_result(self, job, wire.decode_ended(*ended), inline.items(job.id), args, kwargs)

    async def _send_there(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> H_co:
        """Sends a call on the app's loop. Raises `BrokerUnavailable` if the app was closed meanwhile."""
        self.app.sessions.current()
        return await self._send(args, kwargs)


class _OfFunction:
    """A descriptor for a method that takes the arguments of the task's function. It gives the method the
    signature of that function, so that `inspect.signature` and `typing.get_type_hints` show the parameters of
    the function for `add.delay`.

    A bound method always has the signature that its class declares. So the descriptor returns a `partial`
    with a signature of its own, and stores it among the task's attributes, where Python finds it first: later
    accesses are no slower than those to a bound method.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.name = method.__name__
        self.__doc__ = method.__doc__

    def __get__(self, task: Task[..., Any] | None, owner: type[Any]) -> Any:
        if task is None:
            return self.method
        bound = functools.partial(self.method, task)
        known = task._introspection
        if not known.by_method:
            known.by_method.update(task._introspected())
        bound.__dict__.update(known.by_method[self.name])
        for name in ("__name__", "__qualname__", "__doc__"):
            setattr(bound, name, getattr(self.method, name))
        if known.last == self.name:
            # Not at the first access: a copy that `options` makes is mostly used once, and a task that refers
            # to itself stays in memory until the garbage collector runs.
            task.__dict__[self.name] = bound
        known.last = self.name
        return bound


_OF_FUNCTION = frozenset({"delay", "delay_sync", "call", "call_sync", "s", "si"})

# Here and not by decorators: `blocking(delay)` needs the plain function, and type checkers need the method.
for _name in _OF_FUNCTION:
    setattr(Task, _name, _OfFunction(getattr(Task, _name)))


class CoroutineTask(Task[P, R]):
    """A task made of a coroutine function: awaiting the call runs it here, on this loop."""

    is_coroutine = True

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Runs the function itself, here and now."""
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine


class FunctionTask(Task[P, R]):
    """A task made of a plain function: calling it runs it here; a worker runs it in a thread or a process."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function itself, here and now."""
        value: R = self.function(*args, **kwargs)
        return value


def _positional(task: Task[..., Any], args: Any, verb: str) -> tuple[Any, ...]:
    """Returns the positional arguments of a call as a tuple. None gives an empty one, as in Celery.

    Raises:
        TypeError: `args` is one argument and not several: a text would be split into letters, and a mapping
            would lose its values.
    """
    if args is not None and not are_several(args):
        one = as_tuple((args,))
        raise TypeError(
            f"{task.name}.{verb}: the arguments of a call go in a tuple: write {one} for {one[1:-2]}"
        )
    return tuple(args or ())


def _one_by_one(
    function: Callable[..., Any], is_coroutine: bool, injection: Injection | None
) -> Callable[..., Any]:
    """Returns a function that makes several calls of another one. The instances of dependencies, if the other
    has some, are named arguments of it.
    """

    def one(args: Any, given: dict[str, Any]) -> Any:
        if injection is None:
            return function(*args)
        positional, named = injection.placed(args, {}, given)
        return function(*positional, **named)

    if is_coroutine:

        async def each(calls: list[Any], **given: Any) -> list[Any]:
            return [await callables.awaited(one(args, given)) for args in calls]

        return each

    def all_of(calls: list[Any], **given: Any) -> Any:
        values: list[Any] = []
        for args in calls:
            value = one(args, given)
            if callables.is_unfinished(value):
                return goes_on(values, value, calls[len(values) + 1 :], given)
            values.append(value)
        return values

    async def goes_on(values: list[Any], value: Any, calls: list[Any], given: dict[str, Any]) -> list[Any]:
        values.append(await callables.finished(value))
        return values + [await callables.finished(one(args, given)) for args in calls]

    return all_of


class StreamTask(Task[P, None, StreamResult[Y]], Generic[P, Y]):
    """A task made of a generator function: a worker runs it to its end, and holders of its handle, a
    `StreamResult`, read the items. Its value is None.

    A generator that runs again, because its worker died or by its `retry` policy, yields from the beginning,
    and readers see each item number once. So it should yield the same items again.

    Attributes:
        items: the codec of what it yields; for asyncq's own modules.

    Example:
        ```python
        result = await numbers.delay(10)
        async for number in result.stream():
            print(number)
        ```
    """

    is_generator = True
    handle = StreamResult

    def __init__(
        self,
        app: App,
        function: Callable[P, Any],
        name: str,
        options: Options,
        injection: Injection | None = None,
    ) -> None:
        super().__init__(app, function, name, options, injection)
        self.returns = PLAIN_VALUE
        self.items: ValueCodec = ValueCodec.of_items(self.face, app.policy)


class AsyncGeneratorTask(StreamTask[P, Y]):
    """A task made of an async generator function: a worker runs it on its event loop."""

    is_coroutine = True

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Y, None]:
        """Returns the generator of the function itself, to be run here and now."""
        generator: AsyncGenerator[Y, None] = self.function(*args, **kwargs)
        return generator


class GeneratorTask(StreamTask[P, Y]):
    """A task made of a plain generator function: a worker runs it in a thread."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Generator[Y, None, None]:
        """Returns the generator of the function itself, to be run here and now."""
        generator: Generator[Y, None, None] = self.function(*args, **kwargs)
        return generator


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    name = getattr(function, "__name__", "task")  # a partial has none
    return f"{name}({shown(args, kwargs)})"


class NamedTask(Task[..., Any]):
    """A task known by name only, for `app.send`: it has no function and no types, and checks no arguments."""

    _of_all: dict[str, dict[str, Any]] = {}  # noqa: RUF012  shared on purpose

    def __init__(self, app: App, name: str, options: Options) -> None:
        super().__init__(app, _anything, name, options)
        # Shared: `send` makes a new NamedTask for each call.
        self._introspection = _Introspection(NamedTask._of_all)


def _anything(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(
        "this process knows only the task's name; a worker that knows its function can run it"
    )
