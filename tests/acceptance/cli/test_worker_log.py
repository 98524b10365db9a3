"""What `asyncq worker` logs about its jobs. A user reads this first when something goes wrong."""

from __future__ import annotations

import json
import re
import signal

import pytest

TASKS = """
import logging, os, time
import asyncq
from asyncq import AsyncQ

app = AsyncQ(lease=2)
log = logging.getLogger("shop.mail")

@app.task
async def talk() -> str:
    log.info("on my way")
    log.debug("only for the curious")
    print("printed", flush=False)
    return "done"

@app.task(executor="process")
def talk_in_process() -> str:
    log.warning("from elsewhere")
    print("printed in a process")
    return "done"

@app.task(executor="process", timeout=0.5)
def talk_too_long() -> None:
    print("printed before the time limit")
    time.sleep(60)

@app.task
async def die() -> None:
    print("printed at attempt", asyncq.current().attempt)
    os._exit(1)

@app.task
async def boom() -> None:
    raise ValueError("no such luck")

@app.task(ignore_result=True)
async def boom_quietly() -> None:
    raise ValueError("nobody waits")
"""


TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def start(project):
    """Starts a worker of these tasks, with more in front of its module; gives it once it is ready."""

    def start(*words: str, module: str = "", **environ: str):
        project.write("mail.py", module + TASKS)
        worker = project.start("worker", "mail", *words, **environ)
        is_ready = re.compile(
            r"ready |.*\bready: asyncq .*; app mail:app, 6 tasks, .*; server embedded "
        ).match
        output = []
        while not is_ready(line := worker.stderr.readline()):
            assert line, f"the worker ended with {worker.wait()}"
            output.append(line)
        worker.before_ready = "".join(output)
        worker.ready = line
        return worker

    return start


def _call(project, task: str) -> str:
    ended = project.run("call", "mail", task)
    assert ended.code in {0, 1}, ended
    return ended.out


def _send(project, task: str) -> str:
    """Enqueues a call and gives its id."""
    return project.run("call", "mail", task, "--no-wait").out.strip()


def test_the_log_shows_a_failure_with_time_level_job_and_traceback(project, start, stop):
    worker = start()
    id_ = _send(project, "boom")
    head = worker.stderr.readline()
    expected = rf"{TIME} ERROR   job '{id_}' of task 'mail.boom' \(queue 'default', attempt 1\) "
    assert re.fullmatch(expected + r"failed after [\d.]+ m?s: ValueError: no such luck\n", head)
    lines = [worker.stderr.readline() for _ in range(4)]
    assert lines[0] == "    Traceback (most recent call last):\n"
    assert "mail.py" in lines[1]
    assert lines[3] == "    ValueError: no such luck\n"
    ended = stop(worker, signal.SIGTERM)
    assert (ended.code, "1 job done, 1 of them failed" in ended.err) == (0, True), ended


def test_the_log_shows_a_failure_whose_result_is_ignored(project, start, stop):
    worker = start()
    id_ = _send(project, "boom_quietly")
    line = worker.stderr.readline()
    assert id_ in line
    assert line.endswith("ValueError: nobody waits\n")
    assert stop(worker, signal.SIGTERM).code == 0


def test_logs_and_prints_of_a_task_are_shown_at_once(project, start, stop):
    worker = start()
    id_ = _send(project, "talk")
    assert re.fullmatch(rf"{TIME} INFO    \[{id_}\] shop\.mail: on my way\n", worker.stderr.readline())
    assert worker.stdout.readline() == "printed\n"
    id_ = _send(project, "talk_in_process")
    assert re.fullmatch(rf"{TIME} WARNING \[{id_}\] shop\.mail: from elsewhere\n", worker.stderr.readline())
    assert worker.stdout.readline() == "printed in a process\n"
    assert stop(worker, signal.SIGTERM).code == 0


def test_prints_of_a_process_before_it_is_killed_are_shown(project, start, stop):
    worker = start()
    _send(project, "talk_too_long")
    assert "TimeLimitExceeded" in worker.stderr.readline()
    ended = stop(worker, signal.SIGTERM)
    assert (ended.code, ended.out) == (0, "printed before the time limit\n"), ended


def test_prints_of_a_last_attempt_before_it_dies_are_shown(project, start, stop):
    worker = start(ASYNCQ_MAX_CRASHES="2")
    id_ = _send(project, "die")
    assert (worker.wait(60), worker.stdout.read()) == (1, "printed at attempt 1\n")
    worker = start(ASYNCQ_MAX_CRASHES="2")
    assert project.run("result", "get", id_, "--timeout", "30s").code == 1
    ended = stop(worker, signal.SIGTERM)
    assert (ended.code, ended.out) == (0, "printed at attempt 2\n"), ended


def test_each_json_record_is_one_object_on_one_line(project, start, stop):
    worker = start("--log-format", "json", "--log-level", "debug")
    for line in [*worker.before_ready.splitlines(), worker.ready]:
        assert json.loads(line)["message"]
    assert json.loads(worker.ready)["worker"]
    ids = [_send(project, "boom"), _send(project, "talk"), _send(project, "talk_in_process")]
    found = {}
    while len(found) < 4:
        fields = json.loads(worker.stderr.readline())
        if fields["level"] == "ERROR" or fields["logger"].startswith("shop"):
            found[fields["message"]] = fields
    failed = next(fields for text, fields in found.items() if text.endswith("no such luck"))
    assert (failed["job_id"], failed["task"], failed["queue"], failed["attempt"]) == (
        *(ids[0], "mail.boom", "default", 1),
    )
    assert failed["exception"].endswith("ValueError: no such luck")
    assert failed["duration"] < 5
    assert found["on my way"]["job_id"] == found["only for the curious"]["job_id"] == ids[1]
    assert found["from elsewhere"]["job_id"] == ids[2]
    for line in stop(worker, signal.SIGTERM).err.splitlines():
        json.loads(line)


def test_the_notice_of_the_embedded_server_is_one_line_of_words_in_json(project, start, stop):
    worker = start("--log-format", "json")
    messages = [json.loads(line)["message"] for line in worker.before_ready.splitlines()]
    (notice,) = [text for text in messages if text.startswith("no ASYNCQ_URL, using the embedded")]
    assert "this machine only). Fine for development. For production: ASYNCQ_URL=redis://" in notice
    assert stop(worker, signal.SIGTERM).code == 0


def test_a_worker_that_cannot_start_logs_the_error_as_json_too(project):
    project.write("mail.py", TASKS)
    words = ("worker", "mail", "--log-format", "json", "--log-level", "critical")
    ended = project.run(*words, ASYNCQ_URL="redis://127.0.0.1:1", ASYNCQ_OPERATION_TIMEOUT="1")
    (line,) = ended.err.splitlines()
    fields = json.loads(line)
    assert (ended.code, fields["level"]) == (69, "CRITICAL")
    assert "127.0.0.1:1" in fields["message"]
    assert fields["hint"].startswith("start the server")


def test_the_log_level_can_be_raised(project, start, stop):
    worker = start("--log-level", "error")
    assert _call(project, "talk") == "done\n"
    id_ = _send(project, "boom")
    assert id_ in worker.stderr.readline(), "the first line is the failure"
    assert stop(worker, signal.SIGTERM).code == 0


DICT_CONFIG = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "formatters": {"mine": {"format": "MINE %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "mine"}},
    "root": {"level": "INFO", "handlers": ["console"]},
})
"""


def test_an_app_that_configures_logging_gets_all_records(project, start, stop):
    worker = start(module=DICT_CONFIG)
    id_ = _send(project, "boom")
    assert worker.stderr.readline().startswith(f"MINE ERROR job '{id_}'")
    ended = stop(worker, signal.SIGTERM)
    assert "MINE INFO stopped: 1 job done, 1 of them failed" in ended.err


def test_a_chosen_log_format_replaces_the_format_of_the_app(project, start, stop):
    worker = start("--log-format", "json", module=DICT_CONFIG)
    _send(project, "boom")
    assert json.loads(worker.stderr.readline())["level"] == "ERROR"
    assert "MINE" not in stop(worker, signal.SIGTERM).err


def test_the_log_configuration_can_be_left_to_the_app(project, start, stop):
    basic = "import logging; logging.basicConfig(level='INFO', format='MINE %(name)s %(message)s')\n"
    worker = start("--no-configure-logging", module=basic)
    assert worker.ready.startswith("MINE asyncq.cli.worker ready: ")
    id_ = _send(project, "boom")
    assert worker.stderr.readline().startswith(f"MINE asyncq.worker.job_log job '{id_}'")
    assert stop(worker, signal.SIGTERM).code == 0


def test_a_call_that_runs_its_job_itself_shows_the_failure_once(project):
    project.write("mail.py", TASKS)
    ended = project.run("call", "mail", "boom")
    assert (ended.code, "job_log" in ended.err, " ERROR " in ended.err) == (1, False, False), ended


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ("--log-level", "warn"),
            "error: --log-level 'warn' is not known\n       did you mean warning?\n",
        ),
        (
            ("--log-format", "xml"),
            "error: --log-format 'xml' is not known\n       write one of plain, json\n",
        ),
        (
            ("--log-format", "json", "--no-configure-logging"),
            (
                "error: --log-format and --no-configure-logging contradict each other\n"
                "       leave one of them out\n"
            ),
        ),
    ],
)
def test_a_wrong_option_is_refused(project, words, error):
    (ended,) = project.run_each(("worker", "shop", *words))
    assert (ended.code, ended.err) == (2, error)
