"""Tasks of Django over `AsyncqBackend`; `manage.py asyncq_worker` runs them, and this process is the site."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import until, until_sync

from asyncq import PayloadTooLarge, SyncInAsyncContext

django = pytest.importorskip("django")
if django.VERSION < (6,):
    pytest.skip("django.tasks came with Django 6, which needs Python 3.12", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.program import Program

pytestmark = pytest.mark.usefixtures("leaves_keys")


@pytest.fixture(scope="module", autouse=True)
def site(django_environ: dict[str, str], django_folder: Path) -> Iterator[SimpleNamespace]:
    """Django is set up in this process, as in a process of the site. It stays set up. What it changes for the
    whole process is undone.
    """
    names = ("DJANGO_SETTINGS_MODULE", "SHOP_DATABASE", "SHOP_NAMESPACE", "SHOP_SERVER")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, django_environ[name])
        patch.setenv("SHOP_LOGGING", "")
        patch.setenv("TZ", os.environ.get("TZ", ""))  # Django sets it
        patch.syspath_prepend(django_folder)
        django.setup()
        from django.db import connection
        from django.tasks import default_task_backend, task_backends
        from django_shop import jobs  # noqa: F401  a backend imports it by its name
        from django_stock import tasks
    time.tzset()

    connection.ensure_connection()
    with default_task_backend.app, task_backends["on_commit"].app, task_backends["shop"].app:
        yield SimpleNamespace(tasks=tasks, backend=default_task_backend, backends=task_backends)
    connection.close()


@pytest.fixture(scope="module")
def worker(manage: Callable[..., Program]) -> Iterator[Program]:
    program = manage("asyncq_worker", "-v", "0", "--name", "bee")
    yield program
    assert program.stop() == (0, "")


def finished(result: Any) -> Any:
    """Waits for the end of a task of Django."""

    def is_finished() -> bool:
        result.refresh()
        return result.is_finished

    until_sync(is_finished, f"{result} to end", 60)
    return result


async def afinished(result: Any) -> Any:
    async def is_finished() -> bool:
        await result.arefresh()
        return result.is_finished

    await until(is_finished, f"{result} to end", 60)
    return result


@pytest.mark.parametrize("name", ["add", "add_on_loop"])
def test_a_task_runs_in_the_worker_and_its_result_has_all_fields(
    site: SimpleNamespace, worker: Program, name: str
) -> None:
    task = getattr(site.tasks, name)
    result = task.enqueue(2, y=3)
    assert (result.status, result.args, result.kwargs) == ("READY", [2], {"y": 3})
    assert (result.started_at, result.finished_at, result.attempts) == (None, None, 0)
    assert len(result.id) < 64
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value

    found = finished(task.get_result(result.id))

    assert (found.status, found.return_value) == ("SUCCESSFUL", 5)
    assert (found.task, found.backend, found.args, found.kwargs) == (task, "default", [2], {"y": 3})
    assert found.errors == []
    assert (found.worker_ids, found.attempts) == (["bee"], 1)
    assert found.enqueued_at <= found.started_at <= found.finished_at
    assert found.last_attempted_at == found.started_at
    assert abs(found.enqueued_at - result.enqueued_at) < timedelta(seconds=2)
    assert site.backend.get_result(result.id) == found


@pytest.mark.anyio
async def test_the_methods_for_loops_do_the_same(site: SimpleNamespace, worker: Program) -> None:
    result = await site.tasks.add_on_loop.aenqueue(2, 3)
    found = await afinished(await site.tasks.add_on_loop.aget_result(result.id))

    assert found.return_value == 5
    assert found == await site.backend.aget_result(result.id)
    assert await site.backend.app.AsyncResult(result.id).get(timeout=20) == 5, "a result can be awaited"


@pytest.mark.parametrize("name", ["fail", "fail_on_loop"])
def test_a_failure_is_listed_with_its_class_and_its_traceback(
    site: SimpleNamespace, worker: Program, name: str
) -> None:
    result = finished(getattr(site.tasks, name).enqueue("tea"))

    assert result.status == "FAILED"
    [error] = result.errors
    assert error.exception_class is site.tasks.OutOfStock
    assert "raise OutOfStock(name)" in error.traceback
    assert error.traceback.endswith("OutOfStock: tea\n")
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_a_value_that_is_no_json_and_wrong_arguments_fail_the_task(
    site: SimpleNamespace, worker: Program
) -> None:
    for result in (site.tasks.no_json.enqueue(), site.tasks.add.enqueue(1, 2, 3)):
        [error] = finished(result).errors
        assert error.exception_class is TypeError


def test_arguments_are_json(site: SimpleNamespace, worker: Program) -> None:
    values = [None, True, -1, 2**70, 1.5, "é\x00", [1, [2]], {"a": {"b": None}}]
    result = finished(site.tasks.echo.enqueue(*values, pair=(1, 2), task_id="x"))

    assert result.return_value == [values, {"pair": [1, 2], "task_id": "x"}]
    with pytest.raises(TypeError):
        site.tasks.echo.enqueue(datetime.now())  # noqa: DTZ005  it is refused
    with pytest.raises(PayloadTooLarge):
        site.tasks.echo.enqueue("x" * 2_000_000)
    chosen = finished(site.tasks.echo.enqueue(result.status))  # a member of TextChoices
    assert chosen.return_value == [["SUCCESSFUL"], {}]


def test_a_task_with_context_knows_its_result_and_its_attempt(site: SimpleNamespace, worker: Program) -> None:
    result = site.tasks.describe.enqueue(fails_until=3)

    attempt, id_, status, args, kwargs, enqueued = finished(result).return_value

    assert (attempt, id_, status) == (3, result.id, "RUNNING")
    assert (args, kwargs) == ([], {"fails_until": 3})
    assert abs(datetime.fromisoformat(enqueued) - result.enqueued_at) < timedelta(seconds=2)
    assert result.attempts == 3
    assert result.worker_ids == ["bee"] * 3


@pytest.mark.anyio
async def test_a_coroutine_has_its_context_too(site: SimpleNamespace, worker: Program) -> None:
    result = await site.tasks.describe_on_loop.aenqueue(name="ada")

    assert (await afinished(result)).return_value == [1, result.id, "ada"]


def test_a_task_that_runs_shows_as_running_and_one_that_was_revoked_as_failed(
    site: SimpleNamespace, worker: Program
) -> None:
    result = site.tasks.hold.enqueue(60)

    def is_running() -> bool:
        result.refresh()
        return result.status == "RUNNING"

    until_sync(is_running, "the task to run", 60)
    assert result.worker_ids == ["bee"]
    assert result.started_at is not None
    site.backend.app.AsyncResult(result.id).revoke_sync(terminate=True)

    [error] = finished(result).errors
    assert result.status == "FAILED"
    assert error.exception_class.__name__ == "TaskRevoked"


def test_a_task_that_waits_for_its_next_attempt_is_ready_and_shows_the_error(
    site: SimpleNamespace, worker: Program
) -> None:
    result = site.tasks.fail_and_wait.enqueue("tea")

    def has_failed() -> bool:
        result.refresh()
        return bool(result.errors)

    until_sync(has_failed, "the first attempt to fail", 60)
    assert (result.status, result.attempts, result.finished_at) == ("READY", 1, None)
    [error] = result.errors
    assert error.exception_class is site.tasks.OutOfStock
    assert "raise OutOfStock(name)" in error.traceback
    site.backend.app.AsyncResult(result.id).revoke_sync()


def test_a_task_is_deferred_until_run_after(site: SimpleNamespace, worker: Program) -> None:
    from django.utils import timezone

    after = timezone.now() + timedelta(seconds=1.5)
    result = site.tasks.add.using(run_after=after).enqueue(1, 2)
    result.refresh()
    assert (result.status, result.started_at) == ("READY", None)

    assert finished(result).started_at >= after - timedelta(milliseconds=50)


def test_higher_priorities_are_sooner(site: SimpleNamespace) -> None:
    from asyncq.integrations.django.tasks_backend import level_of

    levels = [level_of(priority) for priority in range(-100, 101)]

    assert levels == sorted(levels)
    assert (levels[0], levels[100], levels[-1]) == (-9, 0, 9)
    assert level_of(1) > 0 > level_of(-1)
    result = site.tasks.add.using(priority=100, queue_name="media").enqueue(1, 2)
    app = site.backend.app
    handle = app.AsyncResult(result.id)
    assert handle.exists_sync()
    assert handle.queue in {"media", None}


def test_tasks_are_checked_by_the_rules_of_django(site: SimpleNamespace) -> None:
    from django.tasks import task
    from django.tasks.exceptions import InvalidTask

    def nested() -> None: ...

    add = site.tasks.add
    with pytest.raises(InvalidTask, match="module level"):
        task(nested)
    for changes in ({"priority": 101}, {"queue_name": "nobody"}, {"run_after": datetime(2030, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(InvalidTask):
            add.using(**changes)
    backend = site.backends["default"]
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


def test_an_id_without_a_task_of_django_has_no_result(site: SimpleNamespace, worker: Program) -> None:
    from django.tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch

    result = site.tasks.add.enqueue(1, 2)
    with pytest.raises(TaskResultMismatch):
        site.tasks.echo.get_result(result.id)
    other = site.backend.app.send_sync("django_shop.jobs.add", (1, 2), queue="nobody")
    for id_ in ("nobody", "no such id", "", other.id):
        with pytest.raises(TaskResultDoesNotExist):
            site.backend.get_result(id_)
    finished(result)
    site.backend.app.AsyncResult(result.id).forget_sync()
    with pytest.raises(TaskResultDoesNotExist):
        result.refresh()


@pytest.mark.anyio
async def test_blocking_methods_on_a_loop_name_the_others(site: SimpleNamespace) -> None:
    with pytest.raises(SyncInAsyncContext, match="aenqueue"):
        site.tasks.add.enqueue(1, 2)
    with pytest.raises(SyncInAsyncContext, match="aget_result"):
        site.backend.get_result("x")


def test_a_transaction_that_is_rolled_back_sends_no_task(site: SimpleNamespace, worker: Program) -> None:
    from django.db import transaction
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django_shop.models import Order

    name = uuid.uuid4().hex
    count = site.tasks.count_orders  # of the backend with `enqueue_on_commit`
    dropped = []
    with pytest.raises(RuntimeError), transaction.atomic():  # noqa: PT012  the block is what is tested
        Order.objects.create(name=name)
        dropped.append(count.enqueue(name))
        transaction.on_commit(partial(site.tasks.add.enqueue, 1, 2))
        raise RuntimeError
    assert dropped[0].enqueued_at is None
    with pytest.raises(TaskResultDoesNotExist):
        dropped[0].refresh()

    sent = []
    with transaction.atomic():
        Order.objects.create(name=name)
        result = count.enqueue(name)
        transaction.on_commit(lambda: sent.append(site.tasks.count_orders_on_loop.enqueue(name)))
        assert result.enqueued_at is None
        with pytest.raises(TaskResultDoesNotExist):
            count.get_result(result.id)
    assert result.enqueued_at is not None
    assert finished(result).return_value == 1
    assert finished(sent[0]).return_value == 1
    assert finished(count.enqueue(name)).return_value == 1, "outside of a transaction it is sent at once"


@pytest.mark.anyio
@pytest.mark.usefixtures("leaves_descriptors")  # Django keeps a connection for the thread of its own
async def test_a_coroutine_in_a_transaction_sends_on_commit(site: SimpleNamespace, worker: Program) -> None:
    from asgiref.sync import async_to_sync, sync_to_async
    from django.db import connection, transaction
    from django.tasks.exceptions import TaskResultDoesNotExist

    count = site.tasks.count_orders

    @sync_to_async
    def in_transaction() -> Any:
        try:
            with transaction.atomic():
                result = async_to_sync(count.aenqueue)("nobody")
                with pytest.raises(TaskResultDoesNotExist):
                    result.refresh()
            return result
        finally:
            connection.close()

    assert (await afinished(await in_transaction())).return_value == 0
    result = await count.aenqueue("nobody")
    assert (await afinished(result)).return_value == 0
    await sync_to_async(lambda: connection.close())()  # noqa: PLW0108  it differs between threads


def test_signals_are_sent_where_tasks_are_enqueued(site: SimpleNamespace) -> None:
    from django.tasks.signals import task_enqueued

    from asyncq.integrations.django import AsyncqBackend

    seen = []

    def note(sender: type, task_result: Any, **_: Any) -> None:
        seen.append((sender, task_result.id, task_result.enqueued_at is not None))

    task_enqueued.connect(note)
    result = site.tasks.add.enqueue(1, 2)
    other = asyncio.run(_enqueued(site.tasks.add))
    task_enqueued.disconnect(note)

    assert seen == [(AsyncqBackend, result.id, True), (AsyncqBackend, other, True)]


async def _enqueued(task: Any) -> str:
    return str((await task.aenqueue(1, 2)).id)


@pytest.mark.parametrize(
    ("name", "kwargs", "sent"),
    [
        ("add", {"x": 1, "y": 2}, ["RUNNING", "SUCCESSFUL"]),
        ("add_on_loop", {"x": 1, "y": 2}, ["RUNNING", "SUCCESSFUL"]),
        ("fail", {"name": "tea"}, ["RUNNING", "FAILED"]),
        ("fail_on_loop", {"name": "tea"}, ["RUNNING", "FAILED"]),
        ("describe", {"fails_until": 2}, ["RUNNING", "RUNNING", "SUCCESSFUL"]),
    ],
)
def test_signals_are_sent_in_the_worker_around_each_attempt(
    site: SimpleNamespace, worker: Program, name: str, kwargs: dict[str, Any], sent: list[str]
) -> None:
    result = finished(getattr(site.tasks, name).enqueue(**kwargs))
    found = finished(site.tasks.signals_of.enqueue(result.id)).return_value

    assert [status for _, status, _ in found] == sent
    assert [signal for signal, _, _ in found] == ["started"] * (len(sent) - 1) + ["finished"]
    assert [attempts for _, _, attempts in found] == [*range(1, len(sent)), len(sent) - 1]


def test_a_site_without_time_zones_has_its_local_times(site: SimpleNamespace, worker: Program) -> None:
    from django.test import override_settings

    from asyncq.integrations.django import task_results, tasks_backend

    now = datetime(2026, 7, 1, 12)  # noqa: DTZ001  it is such a site
    result = finished(site.tasks.add.enqueue(1, 2))
    with override_settings(USE_TZ=False):
        assert task_results.local_time(tasks_backend.aware(now)) == now
        found = site.backend.get_result(result.id)
        deferred = site.tasks.add.using(run_after=now).enqueue(1, 2)
    assert found.finished_at.tzinfo is None
    assert finished(deferred).return_value == 3, "the time is over"


def test_modules_of_the_options_have_tasks_too(site: SimpleNamespace) -> None:
    from asyncq.integrations.django import AsyncqBackend

    backend = AsyncqBackend("other", {"OPTIONS": {"modules": ["django_stock.extra"]}})
    assert backend.app.find_task("django_stock.extra.ping") is None
    backend.import_tasks()

    assert backend.app.find_task("django_stock.extra.ping") is not None
    assert backend.app.find_task("django_stock.tasks.add") is not None, "found by the name of its module"


def test_all_threads_share_the_app_of_a_backend(site: SimpleNamespace) -> None:
    from asgiref.sync import async_to_sync

    backend = site.backends["default"]

    async def of_another_context() -> Any:
        return await asyncio.to_thread(lambda: site.backends["default"])

    other = async_to_sync(of_another_context)()
    assert other is not backend, "Django makes a backend for each thread"
    assert other.app is backend.app


def test_tasks_of_django_and_of_an_app_of_the_site_share_a_worker(
    site: SimpleNamespace, manage: Callable[..., Program]
) -> None:
    program = manage("asyncq_worker", "--backend=shop", "--verbosity=0")

    assert finished(site.tasks.in_shop.enqueue(7)).return_value == 7
    app = site.backends["shop"].app
    assert app.send_sync("django_shop.jobs.add", (1, 2)).get_sync(timeout=60) == 3
    assert program.stop() == (0, "")


def test_inline_mode_runs_tasks_where_they_are_enqueued(site: SimpleNamespace) -> None:
    from asyncq.testing import sync_harness

    with sync_harness(site.backend.app, inline=True) as t:
        result = site.tasks.add.enqueue(1, 2)
        result.refresh()
        assert (result.status, result.return_value) == ("SUCCESSFUL", 3)
        failed = site.tasks.fail.enqueue("tea")
        failed.refresh()
        assert failed.errors[0].exception_class is site.tasks.OutOfStock
        assert [job.task for job in t.jobs] == ["django_stock.tasks.add", "django_stock.tasks.fail"]


def test_the_checks_of_django_find_what_is_wrong(site: SimpleNamespace) -> None:
    from asyncq.integrations.django import AsyncqBackend

    def ids(params: dict[str, Any]) -> list[str]:
        return [message.id for message in AsyncqBackend("other", params).check()]

    assert ids({}) == []
    assert ids({"QUEUES": ["a b"]}) == ["asyncq.E001"]
    assert ids({"OPTIONS": {"lease": "soon"}}) == ["asyncq.E002"]
    assert ids({"OPTIONS": {"unknown": 1}}) == ["asyncq.E002"]
    assert ids({"OPTIONS": {"app": "django_shop.jobs:nobody"}}) == ["asyncq.E002"]
    assert ids({"OPTIONS": {"app": 7}}) == ["asyncq.E002"]
    assert ids({"OPTIONS": {"result_extended": False}}) == ["asyncq.W001"]
    assert ids({"OPTIONS": {"app": "django_shop.jobs:app", "enqueue_on_commit": True}}) == []


def test_manage_py_check_runs_these_checks(manage: Callable[..., Program]) -> None:
    assert "no issues" in manage("check").end()
