"""Shows a job as a `TaskResult` of Django. Nothing here talks to the server; on any thread."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from django import conf
from django.utils import timezone

from asyncq.errors import RemoteError, RetryLater
from asyncq.integrations.django import django_tasks
from asyncq.outcome import timestamp
from asyncq.results.view import job_of
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from asyncq.outcome import Outcome
    from asyncq.results.handle import AsyncResult

_WAITING: Final = frozenset({State.UNKNOWN, State.PENDING, State.SCHEDULED, State.RETRY})


def new_result(
    task: Any, backend: str, id: str, args: Sequence[Any], kwargs: Mapping[str, Any], **fields: Any
) -> Any:
    """Returns the result of a task that waits for a worker, unless `fields` say more.

    Raises:
        TypeError: an argument is no JSON.
    """
    return django_tasks.TaskResult(
        task=task,
        id=id,
        backend=backend,
        args=list(args),
        kwargs=dict(kwargs),
        **{
            "status": django_tasks.TaskResultStatus.READY,
            "enqueued_at": None,
            "started_at": None,
            "last_attempted_at": None,
            "finished_at": None,
            "errors": [],
            "worker_ids": [],
            **fields,
        },
    )


def result_of(handle: AsyncResult[Any], task: Any, backend: str) -> Any:
    """Returns the result of a job as this process last saw it.

    asyncq stores the last attempt of a job alone. So `started_at` is its start, and `worker_ids` has the
    worker of the last attempt, once for each attempt.
    """
    outcome = job_of(handle).known()
    fields = _ended(outcome) if outcome is not None else _live(handle)
    result = new_result(task, backend, handle.id, handle.args or (), handle.kwargs or {}, **fields)
    if outcome is not None and outcome.state is State.SUCCESS:
        change(result, _return_value=outcome.value)
    return result


def _ended(outcome: Outcome[Any]) -> dict[str, Any]:
    status = django_tasks.TaskResultStatus
    error = outcome.error
    started = local_time(outcome.started_at)
    return {
        "status": status.SUCCESSFUL if error is None else status.FAILED,
        "enqueued_at": local_time(outcome.enqueued_at),
        "started_at": started,
        "last_attempted_at": started,
        "finished_at": local_time(outcome.finished_at),
        "errors": [] if error is None else [task_error(error, outcome.traceback)],
        "worker_ids": [outcome.worker or ""] * outcome.attempts,
    }


def _live(handle: AsyncResult[Any]) -> dict[str, Any]:
    status = django_tasks.TaskResultStatus
    is_waiting = handle.state in _WAITING
    waiter = job_of(handle).latest
    call = None if waiter is None else waiter.call
    started = None if is_waiting else local_time(handle.date_started)
    attempts = (handle.retries or 0) if is_waiting else 1
    return {
        "status": status.READY if is_waiting else status.RUNNING,
        "enqueued_at": None if call is None else local_time(timestamp(call[0].enqueued)),
        "started_at": started,
        "last_attempted_at": started,
        "errors": _last_errors(handle),
        "worker_ids": [handle.worker or ""] * attempts,
    }


def plain(value: Any) -> Any:
    """Returns a value as it comes back from JSON: a tuple as a list, a member of `TextChoices` as its text.

    Raises:
        TypeError: it is no JSON.
    """
    # Django's function alone keeps texts and numbers of other classes.
    return json.loads(json.dumps(django_tasks.normalize_json(value)))


def _last_errors(handle: AsyncResult[Any]) -> list[Any]:
    """Returns the error of the last attempt of a job that waits for its next one."""
    error, text = handle.result, handle.traceback
    if not isinstance(error, Exception):
        return []
    # As in the outcome of a job, what a `RetryLater` was raised from counts as the error. Between the two is
    # the `RemoteTraceback`.
    meant = getattr(error.__cause__, "__cause__", None) if isinstance(error, RetryLater) else None
    if isinstance(meant, Exception):
        error, text = meant, str(meant.__cause__)
    return [task_error(error, text)]


def task_error(error: BaseException, traceback: str | None) -> Any:
    """Returns an error as Django shows it: the path of its class, and its traceback as text."""
    if isinstance(error, RemoteError):  # it stands for an exception whose class is not imported here
        path = error.type_name if "." in error.type_name else f"builtins.{error.type_name}"
    else:
        path = f"{type(error).__module__}.{type(error).__qualname__}"
    return django_tasks.TaskError(exception_class_path=path, traceback=traceback or f"{path}: {error}\n")


def change(result: Any, **fields: Any) -> None:
    """Changes fields of a result, whose class refuses to set them. Django's own backends do the same."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def local_time(moment: datetime | None) -> datetime | None:
    """Returns a time as Django keeps it: without `USE_TZ`, in the site's own zone and without naming it."""
    if moment is None or conf.settings.USE_TZ:
        return moment
    naive: datetime = timezone.make_naive(moment, timezone.get_default_timezone())
    return naive
