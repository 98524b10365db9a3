"""Looking after a running system: the dead letters."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from asyncq import failures, wire
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import queue_of
from asyncq.errors import DecodeError
from asyncq.execution import parent_results
from asyncq.outcome import timestamp
from asyncq.results.handle import AsyncResult
from asyncq.short_repr import brief
from asyncq.sync_bridge import blocking, on_app_loop

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from asyncq.client.application import App
    from asyncq.sync_bridge import LoopOwner
    from asyncq.tasks.job_builder import Sendable


log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, as it is kept for somebody to look at.

    Attributes:
        id: of the letter, for `replay` and `delete`.
        job_id: of the job; empty if the entry was no message at all.
        task: the task's name.
        queue: where it came from.
        reason: `took its worker down`, `retries used up`, `not registered`, or what was wrong with the entry.
        crashes: how many workers died with it.
        retries: how often it was tried again after a failure.
        error: what it failed with, if it did.
        traceback: where.
        at: when it was given up, in UTC.
    """

    id: str
    job_id: str
    task: str
    queue: str
    reason: str
    crashes: int
    retries: int
    error: Exception | None
    traceback: str | None
    at: datetime | None


class DeadLetters:
    """The jobs that were given up: those that took down their workers, used up their retries, or that nobody
    could read.

    Kept for `dead_ttl` (a week) and at most `dead_cap` (10,000).

    Example:
        ```python
        for letter in await app.control.dead.list():
            print(letter.task, letter.reason, letter.error)
            result = await app.control.dead.replay(letter.id)
        ```
    """

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self._app.sessions

    @on_app_loop
    async def list(self, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first.

        Args:
            limit: at most so many.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        entries = await self._app.sessions.current().broker.dead.newest(limit)
        return [_letter(entry, fields) for entry, fields in entries]

    @blocking(list)
    def list_sync(self) -> None:
        """Blocking twin of `list`."""

    @on_app_loop
    async def replay(self, id: str) -> AsyncResult[Any]:
        """Enqueues the job of a dead letter again, as a new job, and deletes the letter. A second call is the
        same job.

        Its expiry and deadline, long past, are left out; its crash and retry counts begin anew.

        Returns:
            The handle of the new job, whose id is the old one with the letter's behind it.

        Raises:
            LookupError: there is no such letter.
            ValueError: what is kept is no message that could be sent again.
            QueueFull, BrokerUnavailable: as `Task.delay`; the letter stands.
        """
        session = self._app.sessions.current()
        broker = session.broker
        fields = await broker.dead.one(id)
        if fields is None:
            raise LookupError(f"there is no dead letter {id!r}; list() shows those that there are")
        if b"m" not in fields or b"i" not in fields:
            raise ValueError(f"dead letter {id!r} holds no message that could be sent again")
        try:
            queue = queue_of(fields.get(b"q", b"").decode())
            old = wire.decode_job(fields[b"i"].decode(), queue, fields[b"m"])
            body = b"" if old.value_template == "e" else parent_results.body_of(old, fields.get(b"v", b""))
        except (DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"dead letter {id!r} holds a message that cannot be read: {error}") from error
        if old.value_template == "e":
            raise ValueError(
                f"dead letter {id!r} is an error callback; send again the job that it was called for"
            )
        job = dataclasses.replace(
            old,
            id=f"{old.id}.{id}",
            request_id=id + wire.UNTRACKED if wire.UNTRACKED in old.request_id else id,
            channel="" if old.ignore_result else session.channel,
            enqueued=int(time.time() * 1000),
            expires=None,
            deadline=None,
            body=body,
            value_template=None,
        )
        task = cast("Sendable", self._app.task_named(job.name))
        waiter = session.announce(job)
        refused = await session.submit(((job, wire.encode_job(job), waiter),))
        if refused is not None:
            raise task.builder.taken(refused)
        handle: AsyncResult[Any] = AsyncResult.of_job(task, self._app, job, waiter, None, None)
        await broker.dead.delete([id])
        return handle

    @blocking(replay)
    def replay_sync(self) -> None:
        """Blocking twin of `replay`."""

    @on_app_loop
    async def delete(self, ids: Iterable[str]) -> int:
        """Deletes dead letters; the jobs' outcomes stay. Twice is once.

        Args:
            ids: of the letters.

        Returns:
            How many of them were there.

        Raises:
            TypeError: one id instead of a list.
            BrokerUnavailable: no answer within the operation timeout.
        """
        if isinstance(ids, str):
            raise TypeError(f"delete({brief(ids)}) takes a list of ids: write delete([{brief(ids)}])")
        return await self._app.sessions.current().broker.dead.delete([*ids])

    @blocking(delete)
    def delete_sync(self) -> None:
        """Blocking twin of `delete`."""


class Control:
    """`app.control`: looking after a running system."""

    def __init__(self, app: App) -> None:
        self.dead: DeadLetters = DeadLetters(app)


def _letter(entry: str, fields: dict[bytes, bytes]) -> DeadLetter:
    text = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in fields.items()
        if name not in {b"m", b"o"}
    }
    job_id, queue = text.get("i", ""), queue_of(text.get("q", ""))
    task, crashes, retries, failure = "", 0, 0, None
    try:
        if b"m" in fields and job_id:
            task = wire.decode_job(job_id, queue, fields[b"m"]).name
        crashes, retries = (wire.count_of(fields.get(name, b"0")) for name in (b"c", b"a"))
        if fields.get(b"o"):
            ended = wire.decode_ended(wire.FAILED, fields[b"o"])
            failure = failures.decode(ended.payload) if ended.payload else None
    except DecodeError as error:
        # It is listed all the same: else nobody could delete it.
        damaged_data.warn(log, "dead letter", f"a part of dead letter {entry!r} could not be read", error)
    return DeadLetter(
        entry,
        job_id,
        task,
        queue,
        text.get("why", ""),
        crashes,
        retries,
        None if failure is None else failure.rebuild(),
        None if failure is None else failure.traceback,
        timestamp(int(entry.partition("-")[0])),
    )
