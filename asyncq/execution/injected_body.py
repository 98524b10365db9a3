"""Runs the body of a task that has dependencies: makes the instances, and calls the function with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq.execution import callables, generators

if TYPE_CHECKING:
    from asyncq.dependencies.injection import Injection
    from asyncq.execution.executors import JobControl
    from asyncq.execution.instances import Instances
    from asyncq.execution.job_thread import PlainCalls
    from asyncq.execution.task_body import TaskBody


class InjectedBody:
    """The body of one attempt.

    Args:
        task: the task.
        injection: its dependencies.
        instances: makes the instances.
        calls: makes the calls of plain functions, the body among them.
        control: the control object of the job.
    """

    def __init__(
        self,
        task: TaskBody,
        injection: Injection,
        instances: Instances,
        calls: PlainCalls,
        control: JobControl,
    ) -> None:
        self._task = task
        self._injection = injection
        self._instances = instances
        self._calls = calls
        self._control = control

    async def run(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Makes the instances and runs the function. Returns its value."""
        injection, task = self._injection, self._task
        given = await self._instances.set_up(injection.parameters)
        if task.is_coroutine and not self._instances.needs_thread:
            self._calls.close()
        positional, named = injection.placed(args, kwargs, given)
        call = partial(task.function, *positional, **named)
        if task.is_generator:
            await self._yielded(call)
            return None
        if task.is_coroutine:
            return await callables.finished(await call())
        value = await self._calls.call(call)
        return await callables.finished(value) if callables.is_unfinished(value) else value

    async def _yielded(self, call: partial[Any]) -> None:
        control = self._control
        sink = control.sink(self._task.items)
        try:
            if self._task.is_coroutine:
                await generators.on_loop(call(), sink)
            else:
                await self._calls.call(generators.in_thread(call, control, sink))
        finally:
            try:
                if control.is_wanted:
                    await sink.close()  # the server has all items before the end of the job is reported
            finally:
                sink.drop()
