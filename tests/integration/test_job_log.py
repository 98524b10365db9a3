"""What a worker logs about its jobs in a user's program: it uses the handlers that the program has."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import time

import pytest
from helpers import process_bodies
from helpers.waiting import until
from helpers.worker_jobs import register
from helpers.worker_process import worker_process

import asyncq
from asyncq import Retry, Worker, WorkerLost, logs
from asyncq.context import current_job
from asyncq.worker import job_log

pytestmark = pytest.mark.anyio

LOGGER = "asyncq.worker.job_log"


@pytest.fixture
def records(caplog):
    """The records about jobs, from INFO on."""
    caplog.set_level(logging.INFO, "asyncq")
    return lambda: [record for record in caplog.records if record.name == LOGGER]


async def _only(records) -> logging.LogRecord:
    found = await until(records, "a record about the job")
    assert len(found) == 1, [record.getMessage() for record in found]
    return found[0]


def _assert_is_about(record: logging.LogRecord, result, task: str, attempt: int = 1) -> None:
    received = (record.job_id, record.task, record.queue, record.worker, record.attempt)
    assert received == (result.id, task, "default", "w-1", attempt)
    text = record.getMessage()
    assert result.id in text
    assert task in text


@pytest.mark.parametrize("options", [{}, {"ignore_result": True}], ids=["result kept", "result ignored"])
async def test_a_failure_is_logged_as_one_error_with_its_traceback(app, records, options):
    @app.task(name="boom", **options)
    async def boom() -> None:
        await asyncio.sleep(0.05)
        raise ValueError("no such luck")

    async with Worker(app, name="w-1"):
        result = await boom.delay()
        record = await _only(records)
    _assert_is_about(record, result, "boom")
    assert record.levelname == "ERROR"
    assert 0.04 < record.duration < 5
    assert record.getMessage().endswith("ValueError: no such luck")
    kind, error, trace = record.exc_info
    assert (kind, error.args) == (ValueError, ("no such luck",))
    assert trace.tb_frame.f_code.co_name == "boom", "the traceback starts in the task's own code"


async def test_a_failure_in_a_thread_or_a_process_is_logged_with_the_same_details(app, records):
    @app.task(name="in_thread")
    def in_thread() -> None:
        raise KeyError("lost")

    fail = app.task(name="in_process", executor="process")(process_bodies.fail)
    async with Worker(app, name="w-1"):
        first = await in_thread.delay()
        await until(records, "a record of the thread")
        second = await fail.delay("wrong")
        await until(lambda: len(records()) == 2, "a record of the process")
    of_thread, of_process = records()
    _assert_is_about(of_thread, first, "in_thread")
    assert of_thread.exc_info[2].tb_frame.f_code.co_name == "in_thread"
    _assert_is_about(of_process, second, "in_process")
    as_json = json.loads(logs.JsonFormatter().format(of_process))["exception"]
    as_text = logging.Formatter("%(levelname)s").format(of_process).removeprefix("ERROR\n")
    for shown in (as_text, as_json):
        assert shown.startswith("Traceback (most recent call last):\n")
        assert shown.count("Traceback (most recent call last):\n") == 2, (
            "one of the cause, and one of the failure"
        )
        assert "raise KeyError(text)" in shown
        assert "in fail\n" in shown
        assert "RemoteTraceback" not in shown
        assert shown.endswith("ValueError: ('wrong', 7)\na note")


async def test_an_exceeded_time_limit_is_logged_with_the_position_of_the_body(app, records):
    @app.task(name="slow", timeout=0.1)
    async def slow() -> None:
        await asyncio.sleep(30)

    async with Worker(app, name="w-1"):
        result = await slow.delay()
        record = await _only(records)
        outcome = await result.outcome(timeout=60)
    _assert_is_about(record, result, "slow")
    assert "TimeLimitExceeded: the task ran longer than its timeout of 0.1 s" in record.getMessage()
    assert "await asyncio.sleep(30)" in logging.Formatter().format(record)
    assert "await asyncio.sleep(30)" in outcome.traceback


async def test_an_exceeded_time_limit_of_a_thread_shows_no_code_of_asyncq(app, records):
    @app.task(name="slow", timeout=0.1)
    def slow() -> None:
        time.sleep(0.3)

    async with Worker(app, name="w-1"):
        await slow.delay()
        record = await _only(records)
    assert "anyio" not in logging.Formatter().format(record)


async def test_a_job_of_an_unregistered_task_is_logged(app, records):
    async with Worker(app, name="w-1"):
        result = await app.send("nope")
        record = await _only(records)
    _assert_is_about(record, result, "nope")
    assert record.levelname == "ERROR"
    assert "does not know the task 'nope'" in record.getMessage()


async def test_a_retry_is_logged_as_a_warning_and_the_last_failure_as_an_error(app, records):
    @app.task(name="again", retry=Retry(max_retries=1, backoff=0.01, jitter=False))
    async def again() -> None:
        raise OSError("gone")

    async with Worker(app, name="w-1"):
        result = await again.delay()
        await result.outcome(timeout=60)
        await until(lambda: len(records()) == 2, "both records")
    retry, end = records()
    _assert_is_about(retry, result, "again")
    _assert_is_about(end, result, "again", attempt=2)
    assert (retry.levelname, retry.exc_info) == ("WARNING", None)
    assert retry.getMessage().endswith("and is tried again in 0.01 s: OSError: gone")
    assert end.levelname == "ERROR"
    assert "(retries used up): OSError: gone" in end.getMessage()


async def test_a_result_that_cannot_be_encoded_is_logged(app, records):
    @app.task(name="odd")
    async def odd() -> object:
        return object()

    async with Worker(app, name="w-1"):
        result = await odd.delay()
        record = await _only(records)
    _assert_is_about(record, result, "odd")
    assert "SerializationError" in record.getMessage()


@pytest.mark.reads_bytes
async def test_a_message_that_cannot_be_decoded_is_logged(app, raw, records):
    await raw.xadd(app.sessions.shards[0].stream("default"), {"i": "junk", "m": b"x"})
    async with Worker(app, name="w-1"):
        record = await _only(records)
    assert (record.levelname, record.job_id, record.queue) == ("ERROR", "junk", "default")
    assert logging.Formatter("%(task)s|%(attempt)d").format(record).startswith("|0"), "each format fits"
    assert "cannot be read and is moved to the dead letters" in record.getMessage()


async def test_a_job_that_killed_its_worker_is_logged(make_app, server_url, namespace, tmp_path, records):
    async with make_app(lease=1, max_crashes=1) as app:
        jobs = register(app)
        bad = await jobs.poison.delay(str(tmp_path / "log"))
        with worker_process(server_url, namespace, lease=1, max_crashes=1) as victim:
            await asyncio.to_thread(victim.process.wait, 30)
        async with Worker(app):
            with pytest.raises(WorkerLost):
                await bad.get(timeout=30)
            record = await _only(records)
    assert (record.levelname, record.job_id, record.task) == ("ERROR", bad.id, "poison")
    assert (record.queue, record.attempt) == ("default", 1)
    assert "1 workers died" in record.getMessage()


async def test_starts_and_successes_are_logged_as_debug_messages(app, add, records, caplog):
    async with Worker(app, name="w-1"):
        await add.call(1, 2)
        assert records() == [], "a success logs nothing at INFO"
        caplog.set_level(logging.DEBUG, "asyncq")  # a program may change the level while its worker runs
        result = await add.delay(1, 2)
        await result.get(timeout=60)
        start, end = records()
    for record, word in ((start, "started"), (end, "succeeded")):
        _assert_is_about(record, result, add.name)
        assert (record.levelname, word in record.getMessage()) == ("DEBUG", True)
    assert end.duration >= 0


async def test_log_records_of_a_task_name_its_job(app, caplog):
    """A program's own formatter finds the job in `asyncq.current()`, on whatever thread the task runs."""
    seen = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), asyncq.current().id))

    @app.task
    def talks() -> None:
        logging.getLogger("shop").warning("hello")

    handler = Handler()
    logging.getLogger("shop").addHandler(handler)
    try:
        async with Worker(app):
            result = await talks.delay()
            await result.get(timeout=60)
    finally:
        logging.getLogger("shop").removeHandler(handler)
    assert seen == [("hello", result.id)]


async def test_at_most_a_hundred_failures_a_second_are_logged_and_the_others_are_counted(app, records):
    @app.task(name="boom")
    async def boom() -> None:
        raise ValueError("no")

    start = time.monotonic()
    async with Worker(app, name="w-1"):
        results = await boom.map([()] * 1000)
        for result in results:
            await result.outcome(timeout=20)
    seconds = time.monotonic() - start
    found = records()
    counts = [int(record.args[0]) for record in found if "were not logged one by one" in record.getMessage()]
    lines = len(found) - len(counts)
    assert lines + sum(counts) == 1000
    assert lines <= job_log.LINES_PER_SECOND * (seconds + 1)
    assert len(counts) <= seconds + 1


async def test_the_count_of_suppressed_records_names_no_job_and_fits_each_format(app, records, monkeypatch):
    """A record about many jobs names none of them, and a format that names the task still works."""
    monkeypatch.setattr(job_log, "LINES_PER_SECOND", 1)

    @app.task(name="boom", retry=Retry(max_retries=1, backoff=0.01, jitter=False))
    async def boom() -> None:
        raise ValueError("no")

    def counts() -> list[logging.LogRecord]:
        return [record for record in records() if "were not logged one by one" in record.getMessage()]

    def add_job(record: logging.LogRecord) -> bool:
        record.running_job = current_job.get()
        return True

    log = logging.getLogger(LOGGER)
    log.addFilter(add_job)
    try:
        async with Worker(app, name="w-1"):
            await boom.map([()] * 20)
            await until(lambda: len({record.levelname for record in counts()}) == 2, "both counts")
    finally:
        log.removeFilter(add_job)
    levels = {record.levelname: record.args[1] for record in counts()}
    assert levels == {"WARNING": "retries", "ERROR": "failures"}
    for record in counts():
        assert record.running_job is None
        received = logging.Formatter("%(job_id)s|%(task)s|%(queue)s|%(worker)s|%(attempt)d").format(record)
        assert received == "|||w-1|0"


async def test_dict_config_does_not_silence_a_worker(app, root_logger, capfd):
    """By default `dictConfig` disables each logger that it does not name."""

    @app.task(name="boom")
    async def boom() -> None:
        raise ValueError("no")

    config = {
        "version": 1,
        "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
        "root": {"level": "INFO", "handlers": ["console"]},
    }
    logging.config.dictConfig(config)
    async with Worker(app):
        for _ in range(2):
            result = await boom.delay()
            await result.outcome(timeout=60)
            logging.config.dictConfig(config)  # also while the worker runs
    assert (
        capfd.readouterr().err.count("ValueError: no\n") == 4
    )  # twice for each: in the message and in the traceback
