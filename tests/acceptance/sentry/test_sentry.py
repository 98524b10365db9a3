"""What Sentry gets from a real program with its SDK: `shop.py`, whose transport prints instead of sending."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from helpers.quiet import without_job_log

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def sent(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Runs the program, and returns what it has sent."""
    environ = {
        **{name: text for name, text in os.environ.items() if not name.startswith(("ASYNCQ_", "PYTHON"))},
        "ASYNCQ_URL": server_url,
        "ASYNCQ_NAMESPACE": f"sentry{uuid.uuid4().hex[:12]}",
        "PYTHONPATH": without_job_log(tmp_path_factory.mktemp("quiet")),
    }
    done = subprocess.run(
        [sys.executable, "shop.py"],
        cwd=FOLDER,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Sent(json.loads(done.stdout))


class Sent:
    """The events and transactions that a program has sent."""

    def __init__(self, items: list[tuple[str, dict[str, Any]]]) -> None:
        self.events = [item for kind, item in items if kind == "event"]
        self.transactions = [item for kind, item in items if kind == "transaction"]

    def event(self, text: str) -> dict[str, Any]:
        [event] = [event for event in self.events if text in event["exception"]["values"][-1]["value"]]
        return event

    def of(self, task: str) -> list[dict[str, Any]]:
        return [item for item in self.transactions if item["transaction"] == task]


def test_a_failure_is_one_event_with_its_task_its_job_and_its_traceback(sent):
    event = sent.event("1 EUR")
    assert event["transaction"] == "fails"
    exception = event["exception"]["values"][-1]
    assert exception["type"] == "ValueError"
    assert exception["mechanism"] == {"type": "asyncq", "handled": False}
    assert exception["stacktrace"]["frames"][-1]["function"] == "fails"
    job = event["contexts"]["asyncq"]
    assert (job["task"], job["queue"], job["attempt"]) == ("fails", "default", 1)
    assert job["id"] == event["tags"]["asyncq.job_id"]
    assert job["worker"]
    assert (event["tags"]["asyncq.task"], event["tags"]["asyncq.queue"]) == ("fails", "default")


def test_retries_and_revocations_are_no_events_and_each_final_failure_is_one(sent):
    names = sorted(event["tags"]["asyncq.task"] for event in sent.events)
    assert names == ["early", "fails", "fails", "fails", "gives up", "no such task", "no value"]
    assert sent.event("again")["contexts"]["asyncq"]["attempt"] == 2


def test_each_job_has_a_scope_of_its_own(sent):
    for amount, text in ((1, "1 EUR"), (2, "2 USD")):
        event = sent.event(text)
        assert event["tags"]["shop.amount"] == amount
        shown = [crumb["message"] for crumb in event["breadcrumbs"]["values"] if "amount" in crumb["message"]]
        assert shown == [f"amount {amount}"]
    for text in ("again", "early"):
        assert "shop.amount" not in sent.event(text)["tags"]


def test_arguments_are_sent_only_if_the_user_says_so(sent):
    assert "args" not in sent.event("1 EUR")["contexts"]["asyncq"]
    job = sent.event("3 GBP")["contexts"]["asyncq"]
    assert (job["args"], job["kwargs"]) == ([3], {"currency": "GBP"})


def test_attempts_are_transactions_in_the_trace_of_the_code_that_sent_the_job(sent):
    [request], [parent] = sent.of("request"), sent.of("parent")
    trace, job = request["contexts"]["trace"], parent["contexts"]["trace"]
    assert trace["trace_id"] == job["trace_id"]
    [span] = [span for span in request["spans"] if span["op"] == "queue.publish"]
    assert (span["description"], job["parent_span_id"]) == ("parent", span["span_id"])
    assert job["op"] == "queue.process"
    [published] = [span for span in parent["spans"] if span["op"] == "queue.publish"]
    children = [one for one in sent.of("later") if one["contexts"]["trace"]["trace_id"] == trace["trace_id"]]
    assert {one["contexts"]["trace"]["parent_span_id"] for one in children} == {published["span_id"]}
    failed = sent.event("1 EUR")["contexts"]["trace"]
    assert failed["span_id"] in {one["contexts"]["trace"]["span_id"] for one in sent.of("fails")}


def test_transactions_say_how_their_attempts_have_ended(sent):
    def statuses(task: str) -> list[str]:
        return sorted(one["contexts"]["trace"]["status"] for one in sent.of(task))

    assert statuses("second") == ["internal_error", "ok"]
    assert set(statuses("later")) == {"aborted", "ok"}
    assert statuses("hold") == ["cancelled"]
    assert statuses("parent") == ["ok"]
