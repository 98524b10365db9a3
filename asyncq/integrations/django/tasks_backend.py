"""The backend of Django's tasks that runs them with asyncq: `AsyncqBackend`.

Its methods without `a` block, and use the app's background loop; those with `a` may be awaited on any loop.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
import types
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django import conf
from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.module_loading import autodiscover_modules

from asyncq import config
from asyncq.integrations.django import backend_options, django_tasks
from asyncq.integrations.django.task_bodies import body_of
from asyncq.integrations.django.task_results import change, new_result, plain, result_of
from asyncq.sync_bridge import refuse_in_loop
from asyncq.wire import HIGHEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from asyncq.app import AsyncQ
    from asyncq.results.handle import AsyncResult
    from asyncq.tasks.task import Task

_ID_LENGTH = 32
_MOST = 100
"""Priorities of Django go from -100 to 100."""
_registering = threading.Lock()


class AsyncqBackend(django_tasks.BaseTaskBackend):
    """Enqueues the tasks of Django as jobs of asyncq. `manage.py asyncq_worker` runs them.

    `OPTIONS` of its entry in `TASKS`:

    - the settings of `AsyncQ`, by their names: `url`, `namespace`, `result_ttl`, ...;
    - `app`: `module:attribute` of an `AsyncQ` app of the site, in the place of these settings. It should have
      `result_extended=True`: otherwise results do not show the arguments of their calls;
    - `enqueue_on_commit`: if true, a task that is enqueued in a transaction is sent when the transaction is
      committed, and not at all if it is rolled back (default: false, as with Django's own backends);
    - `modules`: modules that define tasks, beside the modules `tasks` of the installed apps.

    The arguments and the value of a task are JSON, as Django demands. Times, `errors` and the return value of
    a result are kept for `result_ttl`, an hour by default.

    Args:
        alias: its name in `TASKS`.
        params: its entry there.

    Raises:
        ImproperlyConfigured: this is Django 5, which has no tasks.

    Example:
        ```python
        TASKS = {
            "default": {
                "BACKEND": "asyncq.integrations.django.AsyncqBackend",
                "QUEUES": ["default", "media"],
                "OPTIONS": {"url": "redis://localhost:6379/0", "enqueue_on_commit": True},
            }
        }
        ```
    """

    supports_defer: bool = True
    supports_async_task: bool = True
    supports_get_result: bool = True
    supports_priority: bool = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        if not django_tasks.IS_THERE:
            raise ImproperlyConfigured("AsyncqBackend needs Django 6 or later, which has django.tasks")
        super().__init__(alias, params)
        self.queue_names: list[str] = list(params.get("QUEUES", ["default"]))
        self.enqueue_on_commit: bool = bool(self.options.get("enqueue_on_commit", False))

    @property
    def app(self) -> AsyncQ:
        """The app that has the jobs: `await backend.app.AsyncResult(result.id)` waits for one.

        Raises:
            ImproperlyConfigured: the entry in `TASKS` does not fit.
        """
        return backend_options.app_of(self.alias, self.options, self.queue_names)

    # -- enqueue --

    def validate_task(self, task: Any) -> None:
        """Checks a task by Django's rules, and the name of its queue by those of asyncq.

        Raises:
            InvalidTask: the task does not fit.
        """
        super().validate_task(task)
        error = _name_error(task.queue_name)
        if error is not None:
            raise django_tasks.InvalidTask(f"Queue {task.queue_name!r} is not valid: {error}.")

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Enqueues a call of a task, and returns its `TaskResult`, once the server has accepted the job. With
        `enqueue_on_commit`, inside of a transaction, it returns at once; `enqueued_at` is set at the commit.

        Raises:
            InvalidTask: the task does not fit this backend.
            TypeError: an argument is no JSON.
            SyncInAsyncContext: an event loop runs on this thread: `await task.aenqueue(...)`.
            PayloadTooLarge, QueueFull, BrokerUnavailable: as `delay`. On commit, they come from the end of
                the block, after the commit.
        """
        self.validate_task(task)
        result = new_result(task, self.alias, get_random_string(_ID_LENGTH), args, kwargs)
        if self.enqueue_on_commit:
            transaction.on_commit(partial(self._send, result))
        else:
            self._send(result)
        return result

    async def aenqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Awaitable variant of `enqueue`. If it is cancelled, the job may have been enqueued."""
        if self.enqueue_on_commit:  # the connection, with its transaction, belongs to a thread
            return await sync_to_async(self.enqueue, thread_sensitive=True)(task, args, kwargs)
        self.validate_task(task)
        result = new_result(task, self.alias, get_random_string(_ID_LENGTH), args, kwargs)
        await self._call(result).delay(*plain(result.args), **plain(result.kwargs))
        change(result, enqueued_at=timezone.now())
        await django_tasks.signals.task_enqueued.asend(type(self), task_result=result)
        return result

    def _send(self, result: Any) -> None:
        refuse_in_loop("enqueue()", "await task.aenqueue(...)")
        self._call(result).delay_sync(*plain(result.args), **plain(result.kwargs))
        change(result, enqueued_at=timezone.now())
        django_tasks.signals.task_enqueued.send(type(self), task_result=result)

    def _call(self, result: Any) -> Task[..., Any]:
        task = result.task
        options: dict[str, Any] = {}
        if task.run_after is not None:
            options["eta"] = aware(task.run_after)
        return self.register(task).options(
            task_id=result.id, queue=task.queue_name, priority=level_of(task.priority), **options
        )

    # -- results --

    def get_result(self, result_id: str) -> Any:
        """Returns the `TaskResult` of a task by its id, whichever process enqueued it.

        Raises:
            TaskResultDoesNotExist: there is no such task, or its result has expired.
            SyncInAsyncContext: an event loop runs on this thread: `await task.aget_result(...)`.
            BrokerUnavailable: no answer within the operation timeout.
        """
        refuse_in_loop("get_result()", "await task.aget_result(...)")
        handle = self._handle(result_id)
        if not handle.exists_sync():
            raise django_tasks.TaskResultDoesNotExist(result_id)
        if self._task_of(handle) is None:
            self.import_tasks()
        return self._result_of(handle)

    async def aget_result(self, result_id: str) -> Any:
        """Awaitable variant of `get_result`."""
        handle = self._handle(result_id)
        if not await handle.exists():
            raise django_tasks.TaskResultDoesNotExist(result_id)
        if self._task_of(handle) is None:
            await sync_to_async(self.import_tasks)()
        return self._result_of(handle)

    def _handle(self, id: str) -> AsyncResult[Any]:
        try:
            return self.app.AsyncResult(id)
        except ValueError:  # no job can have this id
            raise django_tasks.TaskResultDoesNotExist(id) from None

    def _result_of(self, handle: AsyncResult[Any]) -> Any:
        task = self._task_of(handle)
        if task is None:
            raise django_tasks.TaskResultDoesNotExist(
                f"{handle.id}: it is a job of {handle.name!r}, which is no task of Django in this process: "
                "define it in a module `tasks` of an installed app, or name its module in OPTIONS['modules']"
            )
        return result_of(handle, task, self.alias)

    def _task_of(self, handle: AsyncResult[Any]) -> Any:
        task = None if handle.name is None else task_at(handle.name)
        if task is None:
            return None
        queues = [handle.queue, task.queue_name, *self.queue_names]
        queue = next((each for each in queues if each in self.queues), task.queue_name)
        if (task.backend, task.queue_name) == (self.alias, queue):
            return task
        return task.using(backend=self.alias, queue_name=queue)

    # -- tasks --

    def register(self, task: Any) -> Task[..., Any]:
        """Registers a task of Django with the app, and returns that of asyncq. A second call only returns
        it.
        """
        app, name = self.app, task.module_path
        with _registering:  # two threads may enqueue the first call of a task at once
            known = app.find_task(name)
            if known is None:
                # A call may bring a task of another backend here, whose own queue is not served.
                is_ours = not self.queues or task.queue_name in self.queues
                queue = task.queue_name if is_ours else self.queue_names[0]
                known = app.task(name=name, queue=queue)(body_of(task, self.alias, type(self)))
        return known

    def import_tasks(self) -> None:
        """Imports the modules that define tasks, and registers all tasks that this process has imported."""
        autodiscover_modules("tasks")
        for module in self.options.get("modules", ()):
            importlib.import_module(module)
        for task in all_tasks():
            self.register(task)

    # -- checks --

    def check(self, **_kwargs: Any) -> Iterator[checks.CheckMessage]:
        """Gives what is wrong with the entry in `TASKS`, for `manage.py check`. It asks no server."""
        place = f"TASKS[{self.alias!r}]"
        wrong = [error for error in map(_name_error, self.queue_names) if error is not None]
        for error in wrong:
            yield checks.Error(f"{place}: QUEUES: {error}", id="asyncq.E001")
        try:
            is_extended = bool(wrong) or self.app.settings.result_extended
        except ImproperlyConfigured as error:
            yield checks.Error(str(error), hint="Correct its OPTIONS.", id="asyncq.E002")
        else:
            if not is_extended:
                yield checks.Warning(
                    f"{place}: results will not show the arguments of their calls.",
                    hint="Make the app with AsyncQ(result_extended=True).",
                    id="asyncq.W001",
                )
        if self.enqueue_on_commit and not connections.settings:
            yield checks.Error(
                f"{place}: enqueue_on_commit needs a database.",
                hint="Leave it out, or set DATABASES.",
                id="asyncq.E003",
            )
        if not apps.is_installed("asyncq.integrations.django"):
            yield checks.Warning(
                f"{place}: `manage.py asyncq_worker` is missing.",
                hint="Add 'asyncq.integrations.django' to INSTALLED_APPS.",
                id="asyncq.W002",
            )


def level_of(priority: int) -> int:
    """Returns the priority of asyncq, from -9 to 9, for one of Django, from -100 to 100. Only 0 becomes 0.

    >>> [level_of(priority) for priority in (-100, -1, 0, 1, 50, 100)]
    [-9, -1, 0, 1, 5, 9]
    """
    level = math.ceil(abs(priority) * HIGHEST / _MOST)
    return level if priority > 0 else -level


def task_at(path: str) -> Any:
    """Returns the task of Django whose function is at `module.function`; None if its module is not imported,
    or has no such task. It imports nothing: the path comes from the server.
    """
    module = sys.modules.get(path.rpartition(".")[0])
    return next((task for task in _tasks_in(module) if task.module_path == path), None)


def all_tasks() -> list[Any]:
    """Returns the tasks of Django in all modules that this process has imported, each once."""
    found = {task.module_path: task for module in list(sys.modules.values()) for task in _tasks_in(module)}
    return list(found.values())


def _tasks_in(module: Any) -> list[Any]:
    # Neither `getattr` nor `isinstance`: what is made on first use must not be made now.
    values = list(vars(module).values()) if isinstance(module, types.ModuleType) else []
    return [value for value in values if issubclass(type(value), django_tasks.Task)]


def _name_error(queue: Any) -> ValueError | None:
    """Returns why asyncq refuses the name of a queue; None if it does not."""
    try:
        config.name(queue)
    except ValueError as error:
        return error
    return None


def aware(moment: datetime) -> datetime:
    """Returns a time with its zone. Without `USE_TZ`, Django's times are those of the site's own zone."""
    if conf.settings.USE_TZ:
        return moment
    known: datetime = timezone.make_aware(moment, timezone.get_default_timezone())
    return known
