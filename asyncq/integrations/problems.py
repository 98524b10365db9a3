"""Errors as problem documents (RFC 9457), for the sites of every framework.

This module knows no framework. It decides the status of an error, and what a client may read of it: never a
traceback, and no name of a server or a queue. Pure; any thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import (
    BrokerUnavailable,
    NotReplicated,
    QueueFull,
    RemoteError,
    RemoteTraceback,
    ResultNotFound,
    ResultTimeout,
    TaskExpired,
    TaskRevoked,
    WorkerLost,
)

if TYPE_CHECKING:
    import logging

MEDIA_TYPE: Final = "application/problem+json"
GONE: Final = 499
"""The status of a request whose client went away. Nobody reads it but a log; nginx has made it known."""
_RETRY_AFTER = 1
"""Seconds after which a client may try again where a queue is full."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for a client.

    Attributes:
        status: the HTTP status.
        name: the end of the `type` of the document, by which a program knows the problem.
        title: what it is, the same for each problem of this type.
        detail: what happened this time.
        exception: the full name of the class that the task raised; None if no task failed.
        retry_after: seconds after which the client may try again; None if that would not help.
    """

    status: int
    name: str
    title: str
    detail: str
    exception: str | None = None
    retry_after: int | None = None

    def document(self) -> dict[str, Any]:
        """Returns the members of the document."""
        members = {
            "type": f"urn:asyncq:problem:{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        return members if self.exception is None else {**members, "exception": self.exception}

    def body(self) -> bytes:
        """Returns the document as the body of an answer of `MEDIA_TYPE`."""
        return json.dumps(self.document(), ensure_ascii=False).encode("utf-8", "replace")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer, beside its type."""
        headers = {"Cache-Control": "no-store"}
        return headers if self.retry_after is None else {**headers, "Retry-After": str(self.retry_after)}


NOT_FOUND: Final = Problem(
    404, "result-not-found", "No such job", "There is no job under this id, or its result has expired."
)
"""Also the answer to a client that may not see a job: both must be told the same."""

CLIENT_GONE: Final = Problem(
    GONE, "client-gone", "The client went away", "The client closed the connection before the answer."
)

_KINDS: Final[dict[type[Exception], Problem]] = {
    ResultTimeout: Problem(504, "result-timeout", "The job did not end in time", ""),
    ResultNotFound: NOT_FOUND,
    TaskExpired: Problem(410, "task-expired", "The job expired before it started", ""),
    TaskRevoked: Problem(410, "task-revoked", "The job was revoked", ""),
    QueueFull: Problem(
        503,
        "queue-full",
        "The queue is full",
        "Too many jobs wait already, and this one was not accepted.",
        retry_after=_RETRY_AFTER,
    ),
    NotReplicated: Problem(
        503,
        "not-replicated",
        "The job has too few copies",
        "The job was accepted and runs, but may be lost. Do not send it again.",
    ),
    BrokerUnavailable: Problem(
        503, "broker-unavailable", "Jobs are not available", "The server of the jobs cannot be reached."
    ),
}
"""By the classes of errors. Without a detail, the text of the error is the detail."""

ANSWERED: Final[tuple[type[Exception], ...]] = (*_KINDS, WorkerLost, RemoteError)
"""The errors for which `problem_of` has a problem, whoever raised them."""


def failed_in_task(error: BaseException) -> bool:
    """Returns whether a task raised the error, and not the code of the site."""
    return isinstance(error.__cause__, RemoteTraceback)


def problem_of(error: BaseException) -> Problem:
    """Returns the problem of an error that `await result` or a call of a task raised.

    An error that is not one of `ANSWERED` is taken for the task's own.
    """
    # A task may raise a `ResultTimeout`, too, and that is a failure of the task.
    kinds = () if failed_in_task(error) else type(error).__mro__
    kind = next((kind for cls in kinds if (kind := _KINDS.get(cls)) is not None), None)
    if kind is None:
        return _failure(error)
    return kind if kind.detail else replace(kind, detail=str(error))


def log_failure(log: logging.Logger, problem: Problem, method: object, path: object) -> None:
    """Logs that a request waited for a job that failed. The worker has logged the traceback.

    Args:
        log: the logger of the site's framework.
        problem: of the failure.
        method: of the request.
        path: of the request.
    """
    log.error("%s %s waited for a job that failed: %s: %s", method, path, problem.exception, problem.detail)


def _failure(error: BaseException) -> Problem:
    name = _name(error)
    detail = str(error).removeprefix(f"{name}: ")  # the text of a `RemoteError` begins with the name
    return Problem(500, "task-failed", "The task failed", detail, exception=name)


def _name(error: BaseException) -> str:
    if isinstance(error, RemoteError):
        return error.type_name
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
