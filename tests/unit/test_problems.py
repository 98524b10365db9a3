"""Errors as problem documents: the status of each, and what a client may read."""

from __future__ import annotations

import json

import pytest

import asyncq
from asyncq.errors import RemoteTraceback
from asyncq.integrations.problems import ANSWERED, Problem, failed_in_task, problem_of


def raised_by_a_task(error: Exception) -> Exception:
    error.__cause__ = RemoteTraceback("File 'secret.py', line 1")
    return error


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (asyncq.ResultTimeout("too slow"), 504, "result-timeout"),
        (asyncq.ResultNotFound("gone"), 404, "result-not-found"),
        (asyncq.TaskRevoked("revoked"), 410, "task-revoked"),
        (asyncq.TaskExpired("expired"), 410, "task-expired"),
        (asyncq.QueueFull("queue 'secret' is full"), 503, "queue-full"),
        (asyncq.BrokerUnavailable("redis://secret"), 503, "broker-unavailable"),
        (asyncq.NotReplicated("the server has accepted job 'secret'"), 503, "not-replicated"),
        (asyncq.WorkerLost("job x killed its worker"), 500, "task-failed"),
    ],
)
def test_each_error_of_a_wait_has_its_status(error: Exception, status: int, name: str) -> None:
    document = json.loads(problem_of(error).body())

    assert (document["status"], document["type"]) == (status, f"urn:asyncq:problem:{name}")
    assert document["title"]
    assert document["detail"]
    assert "secret" not in str(document)


@pytest.mark.parametrize(
    ("error", "exception", "detail"),
    [
        (ValueError("no such luck"), "ValueError", "no such luck"),
        (KeyError("blue"), "KeyError", "'blue'"),
        (asyncq.ResultTimeout("of a job within"), "asyncq.errors.ResultTimeout", "of a job within"),
        (asyncq.RemoteError("shop.OutOfStock", ("none left",)), "shop.OutOfStock", "none left"),
        (asyncq.RemoteError("shop.OutOfStock"), "shop.OutOfStock", "shop.OutOfStock"),
    ],
)
def test_a_failure_of_a_task_has_its_name_and_message_and_no_traceback(
    error: Exception, exception: str, detail: str
) -> None:
    problem = problem_of(raised_by_a_task(error))

    assert problem.status == 500
    assert problem.document()["exception"] == exception
    assert problem.detail == detail
    assert "secret.py" not in problem.body().decode()


def test_only_what_a_task_raised_counts_as_its_failure() -> None:
    assert failed_in_task(raised_by_a_task(ValueError()))
    assert not failed_in_task(ValueError())
    assert not failed_in_task(asyncq.ResultTimeout())
    assert all(issubclass(error, asyncq.AsyncQError) for error in ANSWERED)


def test_only_a_full_queue_says_when_to_try_again() -> None:
    assert problem_of(asyncq.QueueFull()).headers["Retry-After"] == "1"
    assert "Retry-After" not in problem_of(asyncq.BrokerUnavailable()).headers


def test_a_text_that_is_no_unicode_can_be_sent() -> None:
    body = Problem(500, "task-failed", "The task failed", "\udcff").body()

    assert json.loads(body)["detail"] == "?"
