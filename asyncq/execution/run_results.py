"""What a run of a job came to: it has ended, is to be tried again, or a workflow takes its place.

The runner makes a run result, and the worker or the caller does what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncq import wire


@dataclass(slots=True)
class Finish:
    """The job has ended.

    Attributes:
        letter: the letter of the record.
        outcome: the encoded outcome.
        dead: why the job is kept as a dead letter; empty if it is not.
        error: the exception, for the log; None if it was raised in another process.
    """

    letter: str
    outcome: bytes
    dead: str = ""
    error: BaseException | None = None


@dataclass(slots=True)
class Unknown(Finish):
    """The job has failed, because its task is not known here. Another worker may know it."""


@dataclass(slots=True)
class Requeue:
    """The job is to be tried again.

    Attributes:
        wait: milliseconds until then.
        retries: the number of that retry.
        failure: the encoded error.
        last: the outcome of a job that expires. It counts if the job does not start again in time.
        error: as in `Finish`.
    """

    wait: int
    retries: int
    failure: bytes
    last: bytes = b""
    error: BaseException | None = None


@dataclass(slots=True)
class Replace:
    """A workflow takes the job's place.

    Attributes:
        jobs: its jobs and their messages. The last one has the job's id.
    """

    jobs: list[tuple[wire.Job, bytes]]
