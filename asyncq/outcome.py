"""How a job ended, as a value: `Outcome` shows it, and `unwrap` returns the task's value or raises its error.

Pure data: nothing here talks to the server or belongs to a loop.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from asyncq import failures, wire
from asyncq.errors import AsyncQError, DecodeError, TaskExpired, TaskRevoked, WorkerLost
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from asyncq.serializers import ValueCodec
    from asyncq.states import State

R_co = TypeVar("R_co", covariant=True)


class Outcome(Generic[R_co]):
    """How one job ended. It is immutable, and reading it never talks to the server.

    Values are decoded when they are asked for. Each access of `value`, and each `unwrap`, returns a fresh
    object that belongs to the caller.

    Example:
        ```python
        outcome = await result.outcome(timeout=10)
        if outcome.state == "SUCCESS":
            print(outcome.value, outcome.runtime)
        else:
            print(outcome.error, outcome.traceback)
        ```
    """

    __slots__ = ("_codec", "_ended", "id")

    def __init__(self, id: str, ended: wire.Ended, codec: ValueCodec) -> None:
        self.id: str = id
        self._ended = ended
        self._codec = codec

    def __repr__(self) -> str:
        shown = f"value={brief(self.value)}" if self.state == "SUCCESS" else f"error={brief(self.error)}"
        return f"<Outcome {self.id} {self.state} {shown}>"

    def unwrap(self) -> R_co:
        """Returns the value, or raises what the task raised, with the remote traceback as its cause.

        Raises:
            TaskRevoked, TaskExpired, WorkerLost: the job ended before its body came to an end.
            Exception: what the task raised.
            DecodeError: the value cannot be read here.

        Example:
            ```python
            outcome = await result.outcome(timeout=10)
            log.info("job %s ended on %s", outcome.id, outcome.worker)
            value = outcome.unwrap()
            ```
        """
        if self._ended.letter == wire.SUCCEEDED:
            value: R_co = self._codec.loads(self._ended.payload)
            return value
        error = self.error
        assert error is not None
        try:
            raise error
        finally:
            # The traceback of the raised exception refers to this frame. If the frame referred to the
            # exception, the two would be a cycle.
            del error

    def unfollowed(self) -> Outcome[R_co]:
        """Returns this outcome without the error of the other job, for a job with a `member`. For asyncq's
        own modules.

        It is a revocation that says for which job this one waited.
        """
        assert self._ended.member is not None
        id_, name = self._ended.member
        reason = (
            f"it never ran, because it waited for job {id_}{name and f' ({name})'}, which did not succeed"
        )
        return Outcome(
            self.id,
            self._ended._replace(letter=wire.REVOKED, payload=reason.encode(), member=None),
            self._codec,
        )

    @property
    def state(self) -> State:
        """`SUCCESS`, `FAILURE` or `REVOKED`."""
        return self._ended.state

    @property
    def value(self) -> R_co | None:
        """What the task returned; None if the job did not succeed."""
        if self._ended.letter != wire.SUCCEEDED:
            return None
        return cast("R_co", self._codec.loads(self._ended.payload))

    @property
    def error(self) -> Exception | None:
        """The exception that `unwrap` would raise; None after success."""
        if self._ended.letter == wire.SUCCEEDED:
            return None
        error = _ERRORS[self._ended.letter](self)
        if self._ended.member is not None:
            id_, name = self._ended.member
            failures.add_note(
                error, f"job {self.id} never ran: it waited for job {id_}{name and f' ({name})'}"
            )
        return error

    @property
    def member(self) -> str | None:
        """The id of the job for which this one waited and whose end this is. None if the job ended by
        itself.
        """
        return None if self._ended.member is None else self._ended.member[0]

    @property
    def traceback(self) -> str | None:
        """Where the task failed, as text from the worker; None if it did not fail by itself."""
        if self._ended.letter != wire.FAILED:
            return None
        return failures.decode(self._ended.payload).traceback

    @property
    def attempts(self) -> int:
        """How often the job was started."""
        return self._ended.attempts

    @property
    def name(self) -> str | None:
        """The task's name."""
        return self._ended.name or None

    @property
    def worker(self) -> str | None:
        """The name of the worker that ended the job."""
        return self._ended.worker or None

    @property
    def queue(self) -> str | None:
        """The queue from which the job was taken."""
        return self._ended.queue or None

    @property
    def enqueued_at(self) -> datetime | None:
        """When the job was enqueued, by the client's clock."""
        return timestamp(self._ended.enqueued)

    @property
    def started_at(self) -> datetime | None:
        """When the last attempt of the job began, by the worker's clock."""
        return timestamp(self._ended.started)

    @property
    def finished_at(self) -> datetime | None:
        """When the job ended, by the worker's clock."""
        return timestamp(self._ended.finished)

    @property
    def runtime(self) -> float | None:
        """Seconds from the start of the last attempt to the end."""
        ended = self._ended
        if ended.started is None or ended.finished is None:
            return None
        return (ended.finished - ended.started) / 1000

    @property
    def children(self) -> list[str]:
        """Ids of the jobs that the job started, the first 10,000 at most."""
        return list(self._ended.children)

    @property
    def children_truncated(self) -> bool:
        """Whether the job started more jobs than `children` names."""
        return self._ended.children_truncated


def timestamp(milliseconds: int | None) -> datetime | None:
    """Returns an aware time in UTC for milliseconds since the epoch; None if Python has no date for them."""
    if milliseconds is None or not 0 <= milliseconds <= wire.LATEST:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _failure(outcome: Outcome[Any]) -> Exception:
    if not outcome._ended.payload:
        return DecodeError(f"job {outcome.id} ended because its data on the server was damaged")
    return failures.decode(outcome._ended.payload).rebuild()


def _revoked(outcome: Outcome[Any]) -> AsyncQError:
    reason = outcome._ended.payload.decode("utf-8", "replace")
    return TaskRevoked(f"job {outcome.id} was revoked" + (f": {reason}" if reason else ""))


def _expired(outcome: Outcome[Any]) -> AsyncQError:
    return TaskExpired(f"job {outcome.id} expired before it started")


def _lost(outcome: Outcome[Any]) -> AsyncQError:
    return WorkerLost(
        f"job {outcome.id} killed its worker each time it was tried; it is kept with the dead letters"
    )


_ERRORS = {
    wire.FAILED: _failure,
    wire.REVOKED: _revoked,
    wire.EXPIRED: _expired,
    wire.LOST: _lost,
}
