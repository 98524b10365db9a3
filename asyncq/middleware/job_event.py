"""How a job, or an attempt of it, ended: what an outcome hook gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncq.outcome import Outcome
    from asyncq.states import State


@dataclass(frozen=True, slots=True)
class JobEvent:
    """How a job ended, or an attempt that is followed by another. A worker gives it to the outcome hooks.

    Attributes:
        id: the id of the job.
        task: the name of its task.
        queue: the queue from which it was taken.
        attempt: the number of the attempt that ended, 1 for the first.
        state: `SUCCESS`, `FAILURE`, `RETRY` or `REVOKED`.
        duration: seconds from the start of this attempt to its end; None if its worker is dead.
        worker: the name of the worker that ran it.
        headers: the headers of the job; empty for a job whose workers died with it.

    Example:
        ```python
        @app.on_failure
        async def report(event: asyncq.JobEvent) -> None:
            await pager.send(f"{event.task} failed: {event.error}")
        ```
    """

    id: str
    task: str
    queue: str
    attempt: int
    state: State
    duration: float | None
    worker: str
    headers: Mapping[str, Any]
    _outcome: Outcome[Any] = field(repr=False)

    @property
    def enqueued_at(self) -> datetime | None:
        """When the job was enqueued, by the clock of the client; None if an attempt has ended and not the
        job, or if nobody knows.
        """
        return self._outcome.enqueued_at

    @property
    def value(self) -> Any:
        """What the task returned; None if it did not succeed. Each access decodes it anew.

        Raises:
            DecodeError: the value cannot be read here.
        """
        return self._outcome.value

    @property
    def error(self) -> Exception | None:
        """The exception of a failure; a `TaskRevoked` after a revocation; None after a success."""
        return self._outcome.error

    @property
    def traceback(self) -> str | None:
        """Where the task failed, as text; None if it did not."""
        return self._outcome.traceback
