"""Makes the instances of a job's dependencies, and cleans them up: in the asyncio task of the job.

`set_up` runs under the time limit of the job, and `clean_up` after it, for at most `CLEAN_UP` seconds. Both
run in the same asyncio task, because what a dependency holds may be bound to it: a task group, a timeout, a
context variable.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from asyncq.config import shown
from asyncq.context import current
from asyncq.dependencies.depends import key_of, name_of
from asyncq.dependencies.injection import declared_by
from asyncq.errors import TimeLimitExceeded
from asyncq.execution import callables

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping

    from asyncq.dependencies.depends import Dependency
    from asyncq.dependencies.overrides import Overrides
    from asyncq.execution.executors import JobControl
    from asyncq.execution.job_thread import PlainCalls

CLEAN_UP = 5.0
"""Seconds that the clean-up of all dependencies of a job may take together."""
LEAST = 0.5
"""Seconds that each of them has at least, also where others have used up the time."""


class Shared(Protocol):
    """Has the instances that belong to the worker."""

    async def get(self, function: Callable[..., Any]) -> Any:
        """Returns the instance that a function makes. The first call makes it."""
        ...


class Instances:
    """The instances for one attempt of one job.

    Args:
        overrides: what stands for which function.
        shared: the instances of the worker.
        calls: makes the calls of plain functions.
        control: says whether the instances are still wanted.
    """

    def __init__(self, overrides: Overrides, shared: Shared, calls: PlainCalls, control: JobControl) -> None:
        self._overrides = overrides
        self._shared = shared
        self._calls = calls
        self._control = control
        self._made: dict[Any, Any] = {}
        self._open: list[_AsyncGenerator | _PlainGenerator] = []

    @property
    def needs_thread(self) -> bool:
        """Whether the clean-up calls a plain function."""
        return any(isinstance(one, _PlainGenerator) for one in self._open)

    async def set_up(self, declared: Mapping[str, Dependency]) -> dict[str, Any]:
        """Returns the instances of dependencies, by the names of the parameters, one after the other.

        Raises:
            Exception: what a dependency raised. `clean_up` must be called all the same.
            asyncio.CancelledError: the job was terminated while a plain function ran, which nothing can
                cancel.
        """
        instances: dict[str, Any] = {}
        for name, dependency in declared.items():
            instances[name] = await self._instance(dependency)
            if not self._control.is_wanted:
                raise asyncio.CancelledError
        return instances

    async def _instance(self, dependency: Dependency) -> Any:
        function = self._overrides.of(dependency.function)
        if function is current:
            return current()
        key = key_of(function), dependency.scope
        if key in self._made:
            return self._made[key]
        if dependency.scope == "worker":
            value = await self._shared.get(function)
        else:
            value = await self.make(function)
        self._made[key] = value
        return value

    async def make(self, function: Callable[..., Any]) -> Any:
        """Returns a new instance, with its own dependencies.

        Raises:
            Exception: what the function, or one that it depends on, raised.
        """
        given = await self.set_up(declared_by(function))
        kind = callables.kind_of(function)
        call = partial(function, **given)
        if kind.is_generator:
            return await self._entered(call(), name_of(function))
        if kind.is_async:
            return await call()
        made = await self._calls.call(call)
        if type(made).__module__ == "contextlib":  # the function is decorated with `@contextmanager`
            return await self._entered(made, name_of(function))
        return await made if inspect.iscoroutine(made) else made

    async def _entered(self, made: Any, name: str) -> Any:
        """Returns what a generator yields. It may be wrapped by a decorator of contextlib."""
        made = getattr(made, "gen", made)
        if inspect.isasyncgen(made):
            opened = _AsyncGenerator(made, name)
            value = await opened.first()
            self._open.append(opened)
            return value
        if inspect.isgenerator(made):
            plain = _PlainGenerator(made, name, self._calls)
            # Before its first step: if that is cancelled, the thread goes on with it.
            self._open.append(plain)
            return await plain.first()
        return made  # another context manager of contextlib, such as `closing(...)`

    async def clean_up(self, error: BaseException | None) -> BaseException | None:
        """Ends all generators, the last first. The body's exception is raised at each `yield`.

        Args:
            error: the exception of the body; None if it has ended well.

        Returns:
            What becomes of the attempt: the error, or what a generator has raised instead of it; also
            `TimeLimitExceeded` for a generator that does not end in time.
        """
        now = asyncio.get_running_loop().time
        ends_at = now() + CLEAN_UP
        while self._open:
            opened = self._open.pop()
            limit = asyncio.timeout_at(max(ends_at, now() + LEAST))
            try:
                async with limit:
                    await opened.last(error)
            except TimeoutError as raised:
                error = _too_long(opened.name, raised) if limit.expired() else raised
            except BaseException as raised:  # noqa: BLE001  the other generators must end, too
                error = raised
        return error


def _too_long(name: str, error: TimeoutError) -> TimeLimitExceeded:
    late = TimeLimitExceeded(f"the clean-up of the dependency {name} did not end within {shown(CLEAN_UP)}")
    late.__cause__ = error
    return late


class _AsyncGenerator:
    """An async generator of a dependency."""

    def __init__(self, generator: AsyncGenerator[Any, Any], name: str) -> None:
        self._generator = generator
        self.name = name

    async def first(self) -> Any:
        """Returns what it yields."""
        try:
            return await anext(self._generator)
        except StopAsyncIteration:
            raise RuntimeError(f"the dependency {self.name} did not yield anything") from None

    async def last(self, error: BaseException | None) -> None:
        """Runs it to its end. Raises what it raises, if that is not the error that is raised in it."""
        if error is None:
            try:
                await anext(self._generator)
            except StopAsyncIteration:
                return
        else:
            trace = error.__traceback__
            try:
                await self._generator.athrow(error)
            except StopAsyncIteration as end:
                if end is not error:
                    return  # it has caught the error, which stays the failure all the same
            except BaseException as raised:
                if _is_same(raised, error):
                    return
                raise
            finally:
                BaseException.with_traceback(error, trace)
        await self._generator.aclose()
        raise RuntimeError(f"the dependency {self.name} yielded twice")


class _PlainGenerator:
    """A plain generator of a dependency. Its steps are made on the thread of the job."""

    def __init__(self, generator: Generator[Any, Any, Any], name: str, calls: PlainCalls) -> None:
        self._generator = generator
        self._calls = calls
        self._is_open = False
        self.name = name

    async def first(self) -> Any:
        """Returns what it yields."""
        return await self._calls.call(self._step)

    async def last(self, error: BaseException | None) -> None:
        """Runs it to its end. Raises what it raises, if that is not the error that is raised in it."""
        raised = await self._calls.call(partial(self._end, error))
        if raised is not None:
            raise raised

    def _step(self) -> Any:
        try:
            value = next(self._generator)
        except StopIteration:
            raise RuntimeError(f"the dependency {self.name} did not yield anything") from None
        self._is_open = True
        return value

    def _end(self, error: BaseException | None) -> BaseException | None:
        """Makes the last step. The error is returned and not raised: the job may be ended by an exception
        that must not pass through the thread.
        """
        if not self._is_open:
            self._generator.close()
            return None
        trace = None if error is None else error.__traceback__
        try:
            if error is None:
                next(self._generator)
            else:
                self._generator.throw(error)
        except StopIteration:
            return None
        except BaseException as raised:  # noqa: BLE001  see above
            return None if error is not None and _is_same(raised, error) else raised
        finally:
            if error is not None:
                BaseException.with_traceback(error, trace)
        self._generator.close()
        return RuntimeError(f"the dependency {self.name} yielded twice")


def _is_same(raised: BaseException, error: BaseException) -> bool:
    """Returns whether a generator has passed on what was raised in it. A generator that passes on a
    `StopIteration` raises a `RuntimeError` instead.
    """
    if raised is error:
        return True
    is_stop = isinstance(error, StopIteration | StopAsyncIteration)
    return is_stop and isinstance(raised, RuntimeError) and raised.__cause__ is error
