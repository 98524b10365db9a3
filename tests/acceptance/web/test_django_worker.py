"""`manage.py asyncq_worker` for an `AsyncQ` app of a site, beside real servers: with Django 5 and later."""

from __future__ import annotations

import io
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from helpers.own_server import free_port
from helpers.waiting import until_sync

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx
    from helpers.program import Program

pytestmark = pytest.mark.usefixtures("leaves_keys")


@pytest.fixture(scope="module")
def jobs(django_environ: dict[str, str]) -> Iterator[AsyncQ]:
    app = AsyncQ(django_environ["SHOP_SERVER"], namespace=django_environ["SHOP_NAMESPACE"])
    with app:
        yield app


@pytest.fixture(scope="module")
def worker(manage: Callable[..., Program]) -> Iterator[Program]:
    words = ("--app", "django_shop.jobs:app", "--threads", "1", "--verbosity", "0")
    program = manage("asyncq_worker", *words)
    yield program
    assert program.stop() == (0, "")


def call(jobs: AsyncQ, task: str, *args: Any) -> Any:
    return jobs.send_sync(f"django_shop.jobs.{task}", args, queue="shop").get_sync(timeout=60)


@pytest.mark.parametrize("task", ["plain_connection", "injected_connection"])
def test_a_thread_of_the_worker_closes_its_connection_between_jobs(
    worker: Program, jobs: AsyncQ, task: str
) -> None:
    for _ in range(3):
        assert call(jobs, task) == [False, True]


def test_a_process_of_the_worker_closes_its_connection_between_jobs(worker: Program, jobs: AsyncQ) -> None:
    for _ in range(2):
        assert call(jobs, "process_connection") == [False, True]


def test_coroutines_that_use_the_database_do_not_share_a_thread(worker: Program, jobs: AsyncQ) -> None:
    handles = [jobs.send_sync("django_shop.jobs.loop_connection", (3,), queue="shop") for _ in range(3)]
    found = [handle.get_sync(timeout=60) for handle in handles]

    assert [each[:2] for each in found] == [[False, True]] * 3
    assert len({thread for _, _, thread in found}) == 3, "each job has a thread of its own"


SERVERS = {
    "runserver": ["manage.py", "runserver", "--noreload", "{port}"],
    "uvicorn": [
        "-m",
        "uvicorn",
        "--log-level",
        "error",
        "--lifespan",
        "off",
        "--port",
        "{port}",
        "django_sites:asgi",
    ],
    "waitress": ["-m", "waitress", "--listen=127.0.0.1:{port}", "django_sites:wsgi"],
    "gunicorn": [
        "-m",
        "gunicorn",
        "-w",
        "2",
        "--log-level",
        "error",
        "-b",
        "127.0.0.1:{port}",
        "django_sites:wsgi",
    ],
}


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, django_program: Callable[..., Program]) -> Iterator[str]:
    port = str(free_port())
    program = django_program(*(word.replace("{port}", port) for word in SERVERS[request.param]))
    yield f"http://127.0.0.1:{port}"
    program.stop()


def ask(url: str) -> httpx.Response:
    import httpx  # here, because each process of the tests imports all test files

    def answer() -> httpx.Response | None:
        try:
            return httpx.get(url, timeout=30)
        except httpx.ConnectError:
            return None

    return until_sync(answer, f"an answer of {url}", 60)


def test_views_wait_for_jobs_and_send_them_on_commit_under_every_kind_of_server(
    site: str, worker: Program, jobs: AsyncQ
) -> None:
    assert ask(f"{site}/sum?x=1").json() == {"sum": 2}
    assert ask(f"{site}/blocking/sum?x=2").json() == {"sum": 3}

    kept, dropped = uuid.uuid4().hex, uuid.uuid4().hex
    assert ask(f"{site}/orders/{kept}").json()["state"] == "ordered"
    assert ask(f"{site}/orders/{dropped}?fails").json() == {"state": "rolled back"}
    assert jobs.AsyncResult(f"count-{kept}").get_sync(timeout=30) == 1, "the job sees the row"
    assert not jobs.AsyncResult(f"count-{dropped}").exists_sync()


def test_several_workers_find_the_site_from_another_folder(
    django_program: Callable[..., Program], django_folder: Path, tmp_path: Path, jobs: AsyncQ
) -> None:
    words = ("asyncq_worker", "other", "--app=django_shop.jobs", "-w", "2", "-v", "0")
    program = django_program(str(django_folder / "manage.py"), *words, folder=tmp_path)

    found = jobs.send_sync("django_shop.jobs.add", (1, 2), queue="other").get_sync(timeout=60)

    assert found == 3
    assert program.stop() == (0, "")


@pytest.mark.parametrize(("task", "code"), [("add", 0), ("fail", 1)])
def test_a_worker_that_ends_by_itself_has_the_exit_code_of_asyncq_worker(
    manage: Callable[..., Program], jobs: AsyncQ, task: str, code: int
) -> None:
    result = jobs.send_sync(f"django_shop.jobs.{task}", (1, 2), queue=f"burst-{task}")
    words = ("--app=django_shop.jobs", "--burst", "--fail-on-error", "-v", "0")
    program = manage("asyncq_worker", f"burst-{task}", *words)

    program.process.communicate(timeout=60)

    assert program.process.returncode == code
    assert result.outcome_sync(timeout=1).state == ("FAILURE" if code else "SUCCESS")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which app?"),
        (("--app", "django_shop.jobs:nobody"), "the app 'django_shop.jobs:nobody' cannot be imported"),
        (("--app", "django_shop.jobs:add"), "is not an AsyncQ app"),
        (("--backend", "nobody"), "TASKS has no backend of asyncq called 'nobody'"),
    ],
)
def test_a_worker_without_an_app_says_what_to_do(
    manage: Callable[..., Program], words: tuple[str, ...], message: str
) -> None:
    import django

    if not words and django.VERSION >= (6,):
        words, message = ("--app", "django_shop"), "'django_shop:app' cannot be imported"
    program = manage("asyncq_worker", *words)
    _, errors = program.process.communicate(timeout=60)

    assert program.process.returncode == 78
    assert len(errors.splitlines()) == 1, errors
    assert message in errors


def test_a_site_without_tasks_of_django_runs_the_app_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from asyncq.integrations.django import worker_app

    monkeypatch.setattr(worker_app, "_aliases", list)
    monkeypatch.setenv("ASYNCQ_APP", "django_shop.jobs")
    assert worker_app.chosen(None, None) == "django_shop.jobs:app"


def test_a_site_with_several_backends_runs_the_default_or_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from asyncq.integrations.django import worker_app

    for aliases, chosen in ((["a", "default"], "default"), (["a"], "a")):
        monkeypatch.setattr(worker_app, "_aliases", aliases.copy)
        assert worker_app.chosen(None, None) == chosen
    monkeypatch.setattr(worker_app, "_aliases", ["a", "b"].copy)
    assert worker_app.chosen("b", None) == "b"
    with pytest.raises(ImproperlyConfigured, match="--backend, with one of a, b"):
        worker_app.chosen(None, None)


def test_the_command_has_the_options_of_asyncq_worker() -> None:
    from django.core.management.base import DjangoHelpFormatter  # noqa: F401  Django must be there

    from asyncq.cli.main import commands
    from asyncq.integrations.django.management.commands.asyncq_worker import Command

    parser = Command(stdout=io.StringIO()).create_parser("manage.py", "asyncq_worker")
    ours = {name for action in parser._actions for name in action.option_strings}
    theirs = {name for option in commands().commands["worker"].params for name in (option.opts or ())}

    assert {name for name in theirs if name.startswith("-")} - {"-h", "--help"} <= ours
    assert sys.modules["django"]
