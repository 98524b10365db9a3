"""Makes a body that a worker can run of a task of Django: with its context, its signals, and JSON as value.

A coroutine function runs on the worker's loop, a plain function on a thread. The signals are sent where the
function runs. Their receivers cannot fail the job: Django logs what they raise.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from asyncq import context
from asyncq.errors import RetryLater
from asyncq.integrations.django import django_tasks
from asyncq.integrations.django.task_results import change, local_time, new_result, plain, task_error

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_END = (RetryLater, context.Replaced, asyncio.CancelledError)
"""What leaves a body whose job has not ended by that: it is tried again, replaced, or was taken away."""


def body_of(task: Any, backend: str, sender: type) -> Callable[..., Any]:
    """Returns the body of a task.

    Args:
        task: the task of Django.
        backend: the alias of the backend.
        sender: the class of the backend, for the signals.
    """
    function = task.func

    async def run_on_loop(*args: Any, **kwargs: Any) -> Any:
        result = _started(task, backend, args, kwargs)
        await django_tasks.signals.task_started.asend_robust(sender, task_result=result)
        try:
            value = plain(await function(*_arguments(task, result), **result.kwargs))
        except BaseException as error:
            if not isinstance(error, _NO_END):
                _fail(result, error)
                await django_tasks.signals.task_finished.asend_robust(sender, task_result=result)
            raise
        _succeed(result, value)
        await django_tasks.signals.task_finished.asend_robust(sender, task_result=result)
        return value

    def run_in_thread(*args: Any, **kwargs: Any) -> Any:
        result = _started(task, backend, args, kwargs)
        django_tasks.signals.task_started.send_robust(sender, task_result=result)
        try:
            value = plain(function(*_arguments(task, result), **result.kwargs))
        except BaseException as error:
            if not isinstance(error, _NO_END):
                _fail(result, error)
                django_tasks.signals.task_finished.send_robust(sender, task_result=result)
            raise
        _succeed(result, value)
        django_tasks.signals.task_finished.send_robust(sender, task_result=result)
        return value

    return run_on_loop if inspect.iscoroutinefunction(function) else run_in_thread


def _started(task: Any, backend: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    job = context.current()
    now = timezone.now()
    return new_result(
        task,
        backend,
        job.id,
        args,
        kwargs,
        status=django_tasks.TaskResultStatus.RUNNING,
        enqueued_at=local_time(job.enqueued_at),
        started_at=now,
        last_attempted_at=now,
        worker_ids=[job.worker] * job.attempt,
    )


def _arguments(task: Any, result: Any) -> list[Any]:
    if task.takes_context:
        return [django_tasks.TaskContext(task_result=result), *result.args]
    return list(result.args)


def _fail(result: Any, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    result.errors.append(task_error(error, text))
    change(result, status=django_tasks.TaskResultStatus.FAILED, finished_at=timezone.now())


def _succeed(result: Any, value: Any) -> None:
    change(
        result,
        status=django_tasks.TaskResultStatus.SUCCESSFUL,
        finished_at=timezone.now(),
        _return_value=value,
    )
