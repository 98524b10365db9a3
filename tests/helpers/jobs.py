"""Makes jobs that no call has enqueued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq import Task, wire


def job_of(task: Task[..., Any], *args: Any) -> tuple[wire.Job, bytes]:
    """Returns the job of a call and its message, without enqueueing it."""
    builder = task.builder
    return builder.call(builder.body(args, {}), task.app.sessions.channel())
