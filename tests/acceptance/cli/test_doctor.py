"""`asyncq doctor` finds each planted fault, and says nothing where there is none."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers.own_server import free_port, own_server
from helpers.replicated_server import replicated_server
from helpers.waiting import until, until_sync

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.own_server import OwnServer

pytestmark = pytest.mark.anyio

TASKS = """
import time
from asyncq import AsyncQ
app = AsyncQ()

@app.task(name="add")
async def add(x: int, y: int) -> int:
    return x + y

@app.task(name="block")
async def block(mark: str) -> None:
    open(mark, "w").close()
    time.sleep(60)

@app.task(name="fatal")
async def fatal() -> None:
    import os
    os._exit(1)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    with own_server(tmp_path / "server") as server:
        yield server


@pytest.fixture
def examine(project, server: OwnServer) -> Callable[..., dict[str, Any]]:
    """Runs the doctor on the server of the test, and returns what it found: texts by grade."""
    project.write("jobs.py", TASKS)

    def examine(*words: str, target: str = "jobs", code: int, **environ: str) -> dict[str, Any]:
        ended = project.run("doctor", target, "--json", *words, **{"ASYNCQ_URL": server.url, **environ})
        assert ended.code == code, ended
        tree = json.loads(ended.out)
        grades: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
        for finding in tree["findings"]:
            grades[finding["grade"]].append(f"{finding['check']}: {finding['text']} -> {finding['fix']}")
        assert (tree["errors"], tree["warnings"]) == (len(grades["error"]), len(grades["warning"]))
        return grades

    return examine


@pytest.fixture
def start_worker(project, server: OwnServer) -> Callable[..., Any]:
    def start(*words: str, **environ: str) -> Any:
        process = project.start("worker", "jobs", *words, ASYNCQ_URL=server.url, **environ)
        line = ""
        while not line.startswith("ready"):
            line = process.stderr.readline()
            assert line, process.wait(30)
        return process

    return start


def only(lines: list[str], check: str) -> str:
    """Returns the one line that a check has given."""
    (line,) = [line for line in lines if line.startswith(f"{check}: ")]
    return line


@pytest.mark.without_secrets
def test_a_system_without_faults_has_no_error_and_no_warning(examine, start_worker):
    start_worker()
    found = examine(code=0)
    assert found["error"] == found["warning"] == []
    assert {line.partition(":")[0] for line in found["ok"]} == {
        *("versions", "app", "project", "server", "clock", "safety", "memory", "rights"),
        *("signatures", "workers", "queues"),
    }
    assert only(found["ok"], "signatures").startswith("signatures: messages are not signed")


def test_the_text_for_a_person_has_a_line_for_each_look_and_a_sum(project, examine, server):
    ended = project.run("doctor", "jobs", ASYNCQ_URL=server.url)
    assert ended.code == 0, ended
    lines = ended.out.splitlines()
    assert lines[0].startswith("ok       versions: asyncq 0.1.0, python 3.")
    at = lines.index("warning  workers: there is no worker")
    assert lines[at + 1] == "         fix: asyncq worker jobs:app"
    assert ended.err == "0 errors, 1 warning\n"


def test_fault_1_an_app_that_cannot_be_imported(project, examine):
    project.write("jobs.py", "import nothing_of_that_name\n")
    found = examine(code=1)
    assert only(found["error"], "app") == (
        "app: cannot import 'jobs': ModuleNotFoundError: No module named 'nothing_of_that_name' -> "
        f"at {project.folder}/jobs.py:1: import nothing_of_that_name"
    )
    assert only(found["ok"], "server"), "the server is looked at all the same"


def test_fault_2_a_server_that_is_not_there(examine):
    closed_port = free_port()
    found = examine(code=1, ASYNCQ_URL=f"redis://127.0.0.1:{closed_port}/0")
    assert f"127.0.0.1:{closed_port}" in only(found["error"], "server")
    assert only(found["ok"], "app"), "the app is looked at all the same"


def test_fault_3_a_wrong_password(examine, server: OwnServer):
    server.do("CONFIG", "SET", "requirepass", "secret")
    url = server.url.replace("unix://", "unix://:wrong@")
    found = examine(code=1, ASYNCQ_URL=url)
    assert "password" in only(found["error"], "server")
    assert "wrong@" not in str(found)


def test_fault_4_a_server_that_throws_jobs_away_when_it_is_full(examine, server: OwnServer):
    server.do("CONFIG", "SET", "maxmemory", "1gb")
    server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    found = examine(code=1)
    assert only(found["error"], "safety").startswith("safety: maxmemory-policy allkeys-lru")
    assert "CONFIG SET maxmemory-policy noeviction" in only(found["error"], "safety")


def test_fault_5_a_server_that_keeps_nothing_on_disk(examine, server: OwnServer):
    server.do("CONFIG", "SET", "appendonly", "no")
    assert "nothing is kept on disk" in only(examine(code=0)["warning"], "safety")


def test_fault_6_a_user_who_may_not_run_a_worker(project, examine, server: OwnServer):
    ended = project.run("doctor", "jobs", "--acl")
    assert ended.code == 0, ended
    producer = next(line for line in ended.out.splitlines() if line.startswith("user asyncq-producer "))
    server.do("ACL", "SETUSER", *producer.split()[1:], "+info", "+config|get", "+dbsize", "+scan")
    url = server.url.replace("unix://", "unix://asyncq-producer:PASSWORD@")
    found = examine(code=1, ASYNCQ_URL=url)
    assert only(found["error"], "rights").startswith(
        "rights: a worker could not run: NOPERM user 'asyncq-producer' lacks +"
    )
    assert "-> ACL SETUSER asyncq-producer " in only(found["error"], "rights")


def test_fewer_replicas_than_enqueues_wait_for(project, examine, tmp_path):
    with replicated_server(tmp_path / "servers") as servers:
        given = {"ASYNCQ_URL": servers.url, "ASYNCQ_REPLICAS": "1"}
        assert only(examine(code=0, **given)["ok"], "replicas") == (
            "replicas: 1 replica is connected, and replicas=1 -> "
        )
        found = examine(code=1, **{**given, "ASYNCQ_REPLICAS": "2"})
        assert only(found["error"], "replicas").startswith(
            "replicas: 1 replica is connected, and replicas=2: every enqueue raises NotReplicated -> start "
        )
        ended = project.run("doctor", "jobs", "--acl", ASYNCQ_REPLICAS="1")
        assert ended.out.count(" +wait ") == 3


def test_fault_7_a_clock_that_goes_wrong(project, server: OwnServer):
    project.write("jobs.py", TASKS)
    program = """
import sys
from asyncq.cli.main import run
from asyncq.system import clock
clock.set_ahead(90)
sys.exit(run(["doctor", "jobs"]))
"""
    out, _ = project._start("-c", program, ASYNCQ_URL=server.url).communicate(timeout=60)
    assert "warning  clock: the server's clock is 90 s behind this machine's" in out


async def test_fault_8_a_queue_that_no_worker_serves(examine, start_worker, server: OwnServer):
    start_worker()
    async with AsyncQ(server.url) as app:
        await app.task(name="add")(_add).options(queue="mail").delay(1, 2)
    found = examine(code=1)
    assert only(found["error"], "queues") == (
        "queues: queue 'mail' has 1 jobs and no worker serves it -> asyncq worker jobs:app mail"
    )


async def test_fault_9_a_queue_that_is_paused(examine, start_worker, server: OwnServer):
    start_worker()
    async with AsyncQ(server.url) as app:
        await app.control.pause("default")
        await app.task(name="add")(_add).delay(1, 2)
    found = examine(code=0)
    assert only(found["warning"], "queues") == (
        "queues: queue 'default' has 1 jobs and is paused -> asyncq queues resume default"
    )


async def test_fault_10_a_worker_whose_loop_is_blocked(
    examine, start_worker, server: OwnServer, tmp_path: Path
):
    start_worker("--name", "w", ASYNCQ_STALL_WARNING="0")
    async with AsyncQ(server.url) as app:
        mark = tmp_path / "mark"
        await app.task(name="block")(_block).delay(str(mark))
        await until(mark.exists, "the job to start")
    found = examine(code=1)
    assert only(found["error"], "workers").startswith("workers: worker 'w' does not answer")


async def test_fault_11_a_worker_that_is_quiet(examine, start_worker, server: OwnServer):
    start_worker("--name", "w")
    async with AsyncQ(server.url) as app:
        await app.control.quiet("w")
        await until_is_quiet(app)
    found = examine(code=0)
    assert only(found["warning"], "workers").startswith("workers: worker 'w' is quiet")


async def until_is_quiet(app: AsyncQ) -> None:
    async def is_quiet() -> bool:
        return (await app.control.workers())[0].quiet

    await until(is_quiet, "the listing to show it")


def test_fault_12_a_variable_that_is_misspelled(examine):
    found = examine(code=0, ASYNCQ_CONCURENCY="5")
    text = "environment: ASYNCQ_CONCURENCY is not a setting and changes nothing"
    assert only(found["warning"], "environment") == f"{text} -> did you mean ASYNCQ_CONCURRENCY?"


def test_fault_13_an_app_without_tasks(project, examine):
    project.write("jobs.py", "from asyncq import AsyncQ\napp = AsyncQ()\n")
    assert only(examine(code=0)["warning"], "app").endswith(
        "0 tasks -> import the modules with the tasks in the module of the app"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads exit codes of killed processes as on Linux")
async def test_fault_14_dead_letters(examine, project, server: OwnServer):
    async with AsyncQ(server.url) as app:
        await app.task(name="fatal")(_fatal).delay()
        worker = project.start(
            "worker", "jobs", "-w", "1", "--max-jobs", "100", ASYNCQ_URL=server.url, ASYNCQ_LEASE="0.5"
        )

        async def has_dead() -> bool:
            return (await app.control.stats()).dead == 1

        await until(has_dead, "a dead letter")
    assert "there are 1 dead letters" in only(examine(code=0)["warning"], "dead letters")
    worker.send_signal(signal.SIGTERM)
    until_sync(lambda: worker.poll() is not None, "the worker to end")


async def test_fault_15_schedules_without_a_worker_or_without_one_that_knows_their_task(
    examine, start_worker, server: OwnServer
):
    async with AsyncQ(server.url) as app:
        await app.schedules.add("sums", app.task(name="add")(_add).s(1, 2), every=3600)
        await app.schedules.add("other", app.task(name="only_elsewhere")(_add).s(1, 2), every=3600)
    assert only(examine(code=1)["error"], "schedules").startswith("schedules: 2 schedules, and no worker")
    start_worker()
    assert only(examine(code=1)["error"], "schedules").startswith(
        "schedules: no worker knows task 'only_elsewhere' of schedule 'other': its jobs fail"
    )


def test_each_setting_is_printed_with_its_source(project):
    project.write("jobs.py", "from asyncq import AsyncQ\napp = AsyncQ(lease=7)\n")
    project.write("pyproject.toml", "[tool.asyncq]\nthreads = 3\n")
    given = {"ASYNCQ_CONCURRENCY": "5", "ASYNCQ_URL": "redis://me:secret@h:1/0"}
    ended = project.run("doctor", "jobs", "--config", "--namespace", "shop", **given)
    assert ended.code == 0, ended
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in ended.out.splitlines()}
    assert rows["lease"] == ["7.0", "AsyncQ(lease=...)"]
    assert rows["threads"] == ["3", "[tool.asyncq] threads"]
    assert rows["concurrency"] == ["5", "ASYNCQ_CONCURRENCY"]
    assert rows["namespace"] == ["shop", "--namespace"]
    assert rows["max_crashes"] == ["3", "default"]
    assert rows["url"] == ["redis://me:***@h:1/0", "ASYNCQ_URL"]
    as_json = json.loads(project.run("doctor", "jobs", "--config", "--json", **given).out)
    assert as_json["threads"] == {"value": "3", "source": "[tool.asyncq] threads"}


@pytest.mark.without_secrets
def test_it_says_whether_messages_are_signed_and_by_which_workers_not(examine, start_worker):
    new, old = "the new secret of this app", "the old secret of this app"
    worker = start_worker(ASYNCQ_SECRETS=old)
    signed = only(examine(code=0, ASYNCQ_SECRETS=f"{old},{new}")["ok"], "signatures")
    assert "messages are signed, and not encrypted; secret" in signed
    both = {"ASYNCQ_SECRETS": f"{new},{old}", "ASYNCQ_ENCRYPT": "1"}
    found = examine(code=1, **both)
    assert "signed and encrypted" in only(found["ok"], "signatures")
    assert "does not accept the secret with which this app signs" in only(found["error"], "signatures")
    assert "signs its messages, and this app has no secrets" in only(examine(code=1)["error"], "signatures")
    worker.send_signal(signal.SIGTERM)
    until_sync(lambda: worker.poll() is not None, "the worker to end")
    log = worker.stderr.read()
    start_worker()
    assert "has no secrets" in only(examine(code=1, **both)["error"], "signatures")
    assert new not in str(found) + log
    assert old not in str(found) + log


def test_no_secret_is_printed_with_the_settings(project):
    project.write("jobs.py", "from asyncq import AsyncQ\napp = AsyncQ()\n")
    secrets = {"ASYNCQ_SECRETS": "the new secret of this app,the old secret of this app"}
    for words in ((), ("--json",)):
        ended = project.run("doctor", "jobs", "--config", *words, **secrets)
        assert "secret of this app" not in ended.out + ended.err
        assert "2 secrets" in ended.out
    ended = project.run("doctor", "jobs", "--config", ASYNCQ_SECRETS="topsecret")
    assert "secret 1 has 9 bytes" in ended.out + ended.err
    assert "topsecret" not in ended.out + ended.err


async def _add(x: int, y: int) -> int: ...


async def _block(mark: str) -> None: ...


async def _fatal() -> None: ...
