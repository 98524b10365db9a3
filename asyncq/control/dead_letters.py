"""`app.control.dead`: an operator lists the dead letters, enqueues their jobs again, or deletes them.

Awaited methods may be called on any loop; `AsyncQ` decides where they run. A replayed letter comes in through
`Session.submit`, like every job. `broker.dead_letter_store` reads and deletes the letters at the server, and
workers write them when they end a claim.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from asyncq import failures, wire
from asyncq.broker.dead_letter_store import PROBLEM
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import queue_of
from asyncq.errors import DecodeError
from asyncq.execution import parent_results
from asyncq.outcome import timestamp
from asyncq.results.handle import AsyncResult
from asyncq.results.server_job import ServerJob
from asyncq.results.view import handle_of
from asyncq.short_repr import brief
from asyncq.sync_bridge import blocking, on_app_loop
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from asyncq.client.application import App
    from asyncq.sync_bridge import LoopOwner
    from asyncq.tasks.job_builder import Sendable


log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that asyncq gave up, kept with its error for an operator.

    Attributes:
        id: the id of the letter, for `replay` and `delete`.
        job_id: the id of the job; empty if the entry was no message at all.
        task: the task's name.
        queue: the queue that the job came from.
        reason: `took its worker down`, `retries used up`, `not registered`, `not signed`, or what else was
            wrong with the entry.
        crashes: how many workers died while they ran the job.
        retries: how often the job was tried again after a failure.
        error: the exception of the last attempt, if it failed with one.
        traceback: the traceback of that exception.
        at: when the job was given up, in UTC.
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
    """The jobs that asyncq gave up: their workers died, their retries are used up, or no worker knew them.

    Letters are kept for `dead_ttl` (by default a week), and at most `dead_cap` of them (10,000).

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
    def _loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self._app.sessions

    @on_app_loop
    async def list(self, limit: int = 100) -> list[DeadLetter]:
        """Returns the newest dead letters, newest first.

        Args:
            limit: how many letters it returns at most.

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
        """Enqueues the job of a dead letter again, as a new job, and deletes the letter.

        The new job has no expiry and no deadline, for those of the old job have passed. Its crash and retry
        counts begin anew. The new id is made of the two old ones. So if a first call enqueued the job and did
        not come to delete the letter, a second call enqueues no second job.

        Returns:
            The handle of the new job. Its id is the old job's id, a point, and the letter's id.

        Raises:
            LookupError: there is no such letter.
            ValueError: the letter holds no message that could be sent again.
            QueueFull, BrokerUnavailable: as `Task.delay`; the letter stays.
        """
        session = self._app.sessions.current()
        broker = session.broker
        fields = await broker.dead.one(id)
        if fields is None:
            raise LookupError(f"there is no dead letter {id!r}; list() returns those that exist")
        if PROBLEM in fields:
            problem = fields[PROBLEM].decode("utf-8", "replace")
            raise ValueError(f"dead letter {id!r} cannot be sent again: {problem}")
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
            enqueued=int(clock.now() * 1000),
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
        known: ServerJob[Any] = ServerJob(job.id, self._app, task, waiter, is_ignored=job.ignore_result)
        handle: AsyncResult[Any] = handle_of(AsyncResult, known)
        await broker.dead.delete([id])
        return handle

    @blocking(replay)
    def replay_sync(self) -> None:
        """Blocking twin of `replay`."""

    @on_app_loop
    async def delete(self, ids: Iterable[str]) -> int:
        """Deletes dead letters. The jobs' outcomes stay. A letter that is gone already is no error.

        Args:
            ids: the ids of the letters.

        Returns:
            How many of the letters were there.

        Raises:
            TypeError: `ids` is one id and not a list.
            BrokerUnavailable: no answer within the operation timeout.
        """
        if isinstance(ids, str):
            raise TypeError(f"delete({brief(ids)}) takes a list of ids: write delete([{brief(ids)}])")
        return await self._app.sessions.current().broker.dead.delete([*ids])

    @blocking(delete)
    def delete_sync(self) -> None:
        """Blocking twin of `delete`."""


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
        # The letter is listed all the same: an operator must see its id to delete it.
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
