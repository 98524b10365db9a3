"""`Workflow`: the base of signatures, chains and groups. Here they are joined, copied, sent, and run eagerly.

`first | second` joins, `clone` and `options` copy, `delay` and `call` send the workflow in one step, and
`apply` runs it here and now. Each of these makes a `Plan` by the subclass's `plan`. Awaited methods may be
called on any loop. A workflow without tasks (an empty group) has no app, and needs no server.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast

from typing_extensions import TypeVar

from asyncq import config
from asyncq.client.deadlock import check_join
from asyncq.results.eager import EagerResult
from asyncq.short_repr import brief, joined
from asyncq.sync_bridge import INLINE, blocking, on_app_loop, refuse_in_loop
from asyncq.tasks.options import Options
from asyncq.tasks.planning import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from typing import Self

    from asyncq import wire
    from asyncq.client.application import App
    from asyncq.results.handle import AsyncResult
    from asyncq.sync_bridge import LoopOwner
    from asyncq.tasks.planning import Handle

SHOWN = 6
"""How many parts of a workflow `repr` shows."""

W = TypeVar("W")
W_co = TypeVar("W_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
Handle_co = TypeVar("Handle_co", default=Any, covariant=True)
Applied_co = TypeVar("Applied_co", default=Any, covariant=True)
Single_co = TypeVar("Single_co", bound="AsyncResult[Any]", default="AsyncResult[R_co]", covariant=True)


class NextStep(Protocol[W_co]):
    """A step that may come after another one. Its type parameter is the type of the two together: a chain, or
    a group that waits for the steps before it.
    """

    def _following(self, first: Workflow[Any]) -> W_co: ...


class Workflow(ABC, Generic[R_co, Handle_co, Applied_co]):
    """One or more calls, not made yet, with a value of type `R`: a `Signature`, `Chain` or `Group`.

    The other type parameters are the handle that `delay` returns, and the one that `apply` returns.

    `first | second` makes the second wait for the first and take its value as first argument. Joining copies
    the parts, so later changes of a part do not reach the whole.

    Example:
        ```python
        workflow = group(add.s(1, 1), add.s(2, 2)) | total.s()
        assert await workflow.call() == 6
        ```
    """

    __slots__ = ()

    # -- joining --

    def __or__(self, other: NextStep[W]) -> W:
        given: Any = other
        return cast("W", given._following(self) if isinstance(given, Workflow) else NotImplemented)

    @abstractmethod
    def _following(self, first: Workflow[Any]) -> Workflow[R_co]:
        """Returns this workflow as one that begins when another has ended."""

    @abstractmethod
    def _steps(self) -> tuple[Workflow[Any], ...]:
        """Returns copies of the steps that run one after the other. None of them is a chain that could be
        joined with its neighbours.
        """

    # -- varying --

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        """Returns a copy, with more arguments for its first call or calls, and other options.

        Args:
            args: positional arguments, which go before those it has.
            kwargs: keyword arguments, which replace those of the same name.
            options: as `set`.

        Raises:
            TypeError: the arguments do not fit, or there is no call to take them.

        Example:
            ```python
            assert await add.s(2).clone((1,), queue="urgent").call() == 3
            ```
        """
        other = self._with(*arguments_of("clone(", args, kwargs))
        return other.set(**options) if options else other

    def options(self, **options: Any) -> Self:
        """Returns a copy with other options; this one stays as it is. Options and errors as `set`.

        Example:
            ```python
            urgent = add.s(1, 2).options(queue="urgent")
            ```
        """
        return self.clone().set(**options)

    @abstractmethod
    def set(self, **options: Any) -> Self:
        """Gives it other options, see `Task.options`, and returns it.

        If it has more than one call, `countdown` and `eta` go to the first ones; `task_id`, `wait`,
        `ignore_result`, `link` and `link_error` go to the last ones; all others go to every call.

        Raises:
            ValueError: a value does not fit; the message says what would fit.
            TypeError: an unknown option.
        """

    @abstractmethod
    def link(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow when this workflow has ended well: its value is the callback's first
        argument. The handle of this workflow does not wait for the callback. Returns this workflow itself.

        Example:
            ```python
            await add.s(1, 2).link(note.s()).delay()
            ```
        """

    @abstractmethod
    def link_error(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow when this workflow has failed, and returns this workflow itself.

        The callback gets three arguments before its own: the id of the failed job (`str`), the exception, and
        the traceback (`str`). An immutable callback gets none of them. For a group, the callback is called
        for each member that fails.

        Raises:
            TypeError: the callback is not a signature.

        Example:
            ```python
            await add.s(1, 2).link_error(report.s()).delay()  # report(id, error, traceback)
            ```
        """

    @abstractmethod
    def _with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """Returns a copy with more arguments in front."""

    @property
    @abstractmethod
    def _takes_more(self) -> bool:
        """Whether a call at its beginning takes more arguments in front."""

    # -- sending --

    @property
    @abstractmethod
    def app(self) -> App | None:
        """The app of its tasks; None where there are none."""

    @property
    def _loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self.app.sessions if self.app is not None else INLINE

    @property
    @abstractmethod
    def _wait(self) -> float | timedelta | None:
        """How long `call` waits; None is for ever."""

    @abstractmethod
    def plan(self, plan: Plan, source: Handle | None) -> Any:
        """Adds its jobs to a plan and returns the handle of its value. They wait for the source. For asyncq's
        own modules.
        """

    @on_app_loop
    async def delay(self, /, *args: Any, **kwargs: Any) -> Handle_co:
        """Enqueues all calls in one step, and returns the handle of the last call. For a group, that is a
        `GroupResult` with the handles of its members.

        The handle's `parent` is the handle of the step before. If a call fails, all calls that wait for it
        fail at once, with the same exception.

        Args:
            args: positional arguments, which go before those of the first call; if the workflow begins with a
                group, before those of each member.
            kwargs: keyword arguments, which replace those of the same name.

        Raises:
            TypeError: arguments do not fit; the message names the task. Nothing was written.
            SerializationError, PayloadTooLarge: an argument cannot travel. Nothing was written.
            ValueError: more than 10,000 jobs, a `task_id` that is taken, or tasks of different apps. Nothing
                was written.
            QueueFull, BrokerUnavailable: as `Task.delay`.

        Example:
            ```python
            result = await (add.s(4) | double.s()).delay(1)
            assert await result.get(timeout=10) == 10
            ```
        """
        handle: Handle_co = await self._send(args, kwargs)
        return handle

    @blocking(delay)
    def delay_sync(self) -> None:
        """Blocking twin of `delay`."""

    @on_app_loop
    async def apply_async(
        self, /, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Handle_co:
        """Celery's spelling of `options(**options).delay(*args, **kwargs)`. Raises what `delay` raises."""
        positional, named = arguments_of("apply_async(", args, kwargs)
        handle: Handle_co = await self._send(positional, named, options)
        return handle

    @blocking(apply_async)
    def apply_async_sync(self) -> None:
        """Blocking twin of `apply_async`."""

    def apply(
        self,
        /,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool = False,
        **options: Any,
    ) -> Applied_co:
        """Runs its calls here and now, one after the other, without a queue or a server; see `Task.apply`.
        A workflow that ends in a group returns a `GroupResult` of eager results.

        Args:
            args: as `delay`.
            kwargs: as `delay`.
            throw: raise the exception of the last call, or of a group's first failed member, instead of
                keeping it in the result.
            options: as `set`; options for the start time and the queue change nothing.

        Raises:
            TypeError, SerializationError, PayloadTooLarge, ValueError: as `delay`.
            SyncInAsyncContext: a task in it is a coroutine function, and this thread's event loop runs.
        """
        positional, named = arguments_of("apply(", args, kwargs)
        result: Applied_co = self._run(positional, named, options, throw=throw)
        return result

    @on_app_loop
    async def call(self, /, *args: Any, **kwargs: Any) -> R_co:
        """Enqueues this workflow, waits for it and returns its value. Bound the wait with
        `options(wait=2.0)`.

        Raises:
            WouldDeadlock: inside a task; nothing was enqueued.
            ResultTimeout: `wait` is over; the jobs go on.
            Exception: whatever `delay` raises, and the exception of a call that failed.
        """
        check_join(lambda: f"{self!r}.call()")
        handle = await self._send(args, kwargs)
        wait = self._wait
        value: R_co = await handle.get(None if wait is None else config.seconds(wait))
        return value

    @blocking(call)
    def call_sync(self) -> None:
        """Blocking twin of `call`."""

    async def _send(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None, options: dict[str, Any] | None = None
    ) -> Any:
        whole = self.clone(args, kwargs, **(options or {})) if args or kwargs or options else self
        plan = Plan(self.app)
        handle = whole.plan(plan, None)
        inline = None if plan.app is None else plan.app.sessions.inline
        if inline is not None and plan.jobs:
            return await plan.run_inline(handle, inline)
        await plan.submit(plan.messages())
        return handle

    def _run(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None, options: dict[str, Any], *, throw: bool
    ) -> Any:
        plan = Plan(self.app)
        handle = self.clone(args, kwargs, **options).plan(plan, None)
        if any(job.task.is_coroutine for job in plan.jobs):
            refuse_in_loop(lambda: f"{self!r}.apply()", "await ....call()")
        result = plan.run(handle)
        if throw:
            result.get_sync(disable_sync_subtasks=False)
        return result

    def in_place_of(
        self, app: App, job: wire.Job, children: Sequence[str] = ()
    ) -> list[tuple[wire.Job, bytes]]:
        """Returns the jobs, with their messages, that take the place of a running job, which has started
        these children. For asyncq's own modules.
        """
        plan = Plan(app)
        handle = self.plan(plan, None)
        if not plan.jobs or plan.jobs[-1].handle is not handle:
            # The replaced job's id goes to one job, and no job of this workflow may wait for that job. If the
            # workflow ends in a group or has callbacks, a barrier job is added at its end.
            plan.collect(handle, Options(queue=job.queue))
        return plan.in_place_of(job, children)


class Single(Workflow[R_co, Single_co, EagerResult[R_co]]):
    """A workflow that ends in one job: a `Signature` or a `Chain`."""

    __slots__ = ()


def member(given: Any, where: str) -> Workflow[Any]:
    """Returns a copy of a workflow that is to be a member.

    Raises:
        TypeError: it is not a workflow.
    """
    if not isinstance(given, Workflow):
        raise TypeError(f"{where} is made of calls such as add.s(1, 2), not of {brief(given)}")
    return given.clone()


def members(given: tuple[Any, ...], where: str) -> tuple[Workflow[Any], ...]:
    """Returns copies of members that were given one by one or as one iterable. Raises as `member`."""
    several: Iterable[Any] = given
    if len(given) == 1 and not isinstance(given[0], Workflow):
        try:
            several = iter(given[0])
        except TypeError:
            several = given
    return tuple(member(one, where) for one in several)


def shown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Formats the arguments of a call as one would write them, long ones cut and secrets masked."""
    parts = (brief(value) for value in args)
    named = (f"{name}={brief(value)}" for name, value in kwargs.items())
    return joined(itertools.chain(parts, named))


def arguments_of(head: str, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call, given as a sequence and a mapping. None means none, as in Celery.

    Args:
        head: the beginning of the call, for the error: `add.apply_async(`.
        args: the positional arguments.
        kwargs: the keyword arguments.

    Raises:
        TypeError: the arguments were given one after the other, as in `apply_async(1, 2)`; the message says
            how to write them. A text would be split into letters, and a mapping would lose its values.
    """
    if kwargs is None or isinstance(kwargs, Mapping):
        if args is None or are_several(args):
            return tuple(args or ()), dict(kwargs or {})
        rest = f", {brief(kwargs)}" if kwargs else ""
        whole = as_tuple((args,))
    else:
        rest, whole = "", as_tuple((args, kwargs))
    raise TypeError(
        "the arguments of a call go in a tuple, and named ones in a dict after it: "
        f"write {head}{whole}{rest})"
    )


def are_several(args: Any) -> bool:
    """Returns whether a value can be the positional arguments of a call, and is not one argument."""
    if type(args) is tuple:  # `map` asks this for each call, and the check against `abc` is slow
        return True
    return isinstance(args, Iterable) and not isinstance(args, (str, bytes, Mapping))


def as_tuple(args: tuple[Any, ...]) -> str:
    """Formats arguments as a tuple, as one would write it: `(1,)`."""
    return f"({shown(args, {})}{',' * (len(args) == 1)})"
