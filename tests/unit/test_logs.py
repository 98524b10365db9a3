"""The format of log records: no text of a task can look like another record,
and JSON has one object a line.
"""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
import sys

import pytest

from asyncq import failures, logs
from asyncq.context import Context, current_job
from asyncq.worker import job_log

TEXT = len("2026-11-29 12:30:01 ")


def _record(message: str, name: str = "asyncq.worker", level: int = logging.INFO, **extra: object):
    return logging.getLogger(name).makeRecord(name, level, __file__, 1, message, (), None, extra=extra)


def _failed_record(error: Exception) -> logging.LogRecord:
    record = _record("it failed", level=logging.ERROR)
    try:
        raise error
    except Exception:
        record.exc_info = sys.exc_info()
    return record


@pytest.fixture
def job():
    token = current_job.set(Context("j-1", "shop.add", (), {}, "mail", 2, worker="w-1"))
    yield
    current_job.reset(token)


def test_a_plain_record_has_time_level_and_text():
    line = logs.PlainFormatter().format(_record("hello"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    hello", line)


def test_a_record_of_another_library_shows_its_logger():
    assert logs.PlainFormatter().format(_record("hello", "shop.mail"))[TEXT:] == "INFO    shop.mail: hello"


def test_a_record_of_a_job_shows_the_job_once(job):
    assert logs.PlainFormatter().format(_record("hello"))[TEXT + 8 :] == "[j-1] hello"
    assert logs.PlainFormatter().format(_record("job j-1 ended"))[TEXT + 8 :] == "job j-1 ended"
    assert logs.PlainFormatter().format(_record("hello", job_id="j-2"))[TEXT + 8 :] == "[j-2] hello"


def test_further_lines_are_indented_and_control_characters_escaped():
    shown = logs.PlainFormatter().format(_record("a\n2026-11-29 12:00:00 ERROR   forged\r\x1b[2J"))
    assert shown[TEXT:] == "INFO    a\n    2026-11-29 12:00:00 ERROR   forged\n    \\x1b[2J"


def test_an_exception_is_shown_below_its_record_with_the_traceback():
    lines = logs.PlainFormatter().format(_failed_record(ValueError("no\nforged"))).splitlines()
    assert lines[0][TEXT:] == "ERROR   it failed"
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-2:] == ["    ValueError: no", "    forged"]


@pytest.mark.parametrize("formatter", [logs.PlainFormatter(), logs.JsonFormatter()], ids=["plain", "json"])
def test_the_middle_of_a_huge_message_is_left_out(formatter):
    shown = formatter.format(_failed_record(ValueError("x" * 10_000_000)))
    assert len(shown) < 100_000
    assert "characters left out" in shown


def test_each_json_record_is_one_object_on_one_line(job):
    record = _record("a\nb", "shop.mail", trace_id="t-1", job_task=object())
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert list(fields)[:4] == ["time", "level", "logger", "message"]
    assert fields["time"].endswith("+00:00")
    received = {name: fields[name] for name in ("message", "job_id", "task", "queue", "worker", "attempt")}
    assert received == {
        "message": "a\nb",
        "job_id": "j-1",
        "task": "shop.add",
        "queue": "mail",
        "worker": "w-1",
        "attempt": 2,
    }
    assert fields["trace_id"] == "t-1"


def test_json_leaves_out_empty_fields_of_a_record_that_is_not_about_a_job(job):
    record = _record("so many", job_id="", task="", queue="", worker="w-2", attempt=0, count=0)
    fields = json.loads(logs.JsonFormatter().format(record))
    assert list(fields) == ["time", "level", "logger", "message", "worker", "count"]
    assert (fields["worker"], fields["count"]) == ("w-2", 0)
    assert logs.PlainFormatter().format(record)[TEXT + 8 :] == "so many"


def test_json_has_the_traceback_and_no_extra_replaces_a_standard_field():
    record = _failed_record(ValueError("no"))
    record.level = "mine"
    fields = json.loads(logs.JsonFormatter().format(record))
    assert fields["level"] == "ERROR"
    assert fields["exception"].startswith("Traceback")
    assert "job_id" not in fields


def test_a_second_configure_leaves_one_handler(root_logger, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    logs.configure(logging.INFO)
    logs.configure(logging.INFO, "json")
    logging.getLogger("shop").info("hello")
    assert json.loads(sys.stderr.getvalue())["message"] == "hello"


def test_configure_works_with_stderr_closed(root_logger, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure(logging.INFO)
    logging.getLogger("shop").info("hello")


DICT_CONFIG = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}


def test_an_app_that_configures_the_root_logger_gets_all_records(root_logger, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handler = logs.configure(logging.INFO)
    logging.config.dictConfig(DICT_CONFIG)
    assert logging.getLogger("asyncq.worker.heartbeat").disabled, "dictConfig does not do what this is about"
    logs.keep(handler, is_chosen=False)
    logging.getLogger("asyncq.worker.heartbeat").info("hello")
    assert sys.stderr.getvalue() == "hello\n"


def test_a_format_that_the_user_chose_replaces_the_one_of_the_app_only_on_the_terminal(
    root_logger, monkeypatch, tmp_path
):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handler = logs.configure(logging.INFO, "json")
    file = {"class": "logging.FileHandler", "filename": str(tmp_path / "log")}
    config = {**DICT_CONFIG, "handlers": {**DICT_CONFIG["handlers"], "file": file}}
    config["root"] = {"level": "INFO", "handlers": ["console", "file"]}
    logging.config.dictConfig(config)
    logs.keep(handler, is_chosen=True)
    logging.getLogger("asyncq.worker").info("hello")
    (line,) = sys.stderr.getvalue().splitlines()
    assert json.loads(line)["message"] == "hello"
    assert (tmp_path / "log").read_text() == "hello\n"
    root_logger.handlers[0].close()


def test_an_app_that_removes_all_handlers_gets_the_handler_of_asyncq(root_logger, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handler = logs.configure(logging.INFO)
    logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})
    logs.keep(handler, is_chosen=False)
    logging.getLogger("asyncq.worker").info("hello")
    assert "hello" in sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (
            json.JSONDecodeError("Expecting value", "", 0),
            "json.decoder.JSONDecodeError: Expecting value: line 1",
        ),
    ],
)
def test_an_exception_is_formatted_on_one_line(error, line):
    assert failures.one_line(error).startswith(line)


def test_an_exception_whose_text_fails_is_shown_with_its_type():
    class Broken(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert failures.one_line(Broken()).endswith("Broken: <failed: SystemExit>")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00042, "0.4 ms"),
        (0.004, "4 ms"),
        (0.0042, "4.2 ms"),
        (0.1234, "123 ms"),
        (1.0, "1 s"),
        (75.0, "75 s"),
    ],
)
def test_a_short_time_is_shown_in_milliseconds(seconds, shown):
    assert job_log._time({"duration": seconds}) == shown


def test_json_has_the_fields_that_functions_add_and_none_of_them_replaces_another(monkeypatch):
    monkeypatch.setattr(logs, "_more_fields", [])
    names = iter("ab")

    def fields() -> dict[str, str]:
        return {"release": next(names), "message": "other"}

    logs.add_fields(fields)
    logs.add_fields(fields)
    shown = [json.loads(logs.JsonFormatter().format(_record("hello"))) for _ in range(2)]
    assert [(record["release"], record["message"]) for record in shown] == [("a", "hello"), ("b", "hello")]
    assert "release" not in logs.PlainFormatter().format(_record("hello"))
