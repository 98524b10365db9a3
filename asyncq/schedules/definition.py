"""A schedule as it was defined: its name, its terms, and the job that each tick makes.

The job is kept as the message of a job without an id and without times. A tick fills in what differs from
tick to tick, so a worker can make the job of a task that it does not know. A definition never changes.
"""

from __future__ import annotations

import contextvars
import dataclasses
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgpack

from asyncq import wire
from asyncq.errors import DecodeError
from asyncq.schedules.terms import Terms
from asyncq.serializers import PLAIN_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncq.tasks.job_builder import JobBuilder

_FORMAT = 1
"""The first item of a definition. A reader refuses any other."""

_OF_TICK = ("schedule", "scheduled_for")
"""The headers that each job of a schedule has: its name, and the time of the tick."""

_REFUSED = {
    "task_id": "each tick has an id of its own",
    "key": "each tick is a call of its own",
    "countdown": "the schedule says when a job starts: use start= or jitter=",
    "eta": "the schedule says when a job starts: use start= or at=",
    "link": "give it a task that starts the workflow",
    "link_error": "give it a task that starts the workflow",
}
"""Options of a call that a schedule cannot have, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A schedule as it was defined.

    Attributes:
        name: of the schedule.
        terms: when it ticks, and what happens to its ticks.
        template: the job of each tick. It has no id, and its times count from its enqueue time, which is 0.
    """

    name: str
    terms: Terms
    template: wire.Job

    @staticmethod
    def of(
        name: str, terms: Terms, builder: JobBuilder, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Definition:
        """Makes a definition of a call.

        Raises:
            ValueError: an option of the call is none for a schedule.
            TypeError: the arguments do not fit.
            SerializationError, PayloadTooLarge: the arguments or the headers cannot travel.
        """
        options = vars(builder.options)
        for option, mend in _REFUSED.items():
            if options.get(option):
                raise ValueError(f"{option}= is none of the options of a schedule: {mend}")
        for option in ("expires", "deadline"):
            if isinstance(options.get(option), datetime):
                raise ValueError(  # noqa: TRY004  a time is a right type elsewhere
                    f"{option}= is one time for all ticks of schedule {name!r}: give seconds, which count "
                    "from each tick, or until= for the schedule"
                )
        # In an empty context: the jobs of a schedule do not belong to the job that adds it.
        job: wire.Job = contextvars.Context().run(builder.job, builder.body(args, kwargs), "")
        template = dataclasses.replace(
            job,
            id="",
            request_id=wire.UNTRACKED if wire.UNTRACKED in job.request_id else "",
            channel="",
            enqueued=0,
            expires=None if job.expires is None else job.expires - job.enqueued,
            deadline=None if job.deadline is None else job.deadline - job.enqueued,
        )
        builder.message(template)  # refuses headers that cannot travel
        return Definition(name, terms, template)

    def with_headers(self, headers: Mapping[str, Any]) -> Definition:
        """Returns the definition with other headers for its jobs, but for those that each tick adds."""
        own = {name: value for name, value in headers.items() if name not in _OF_TICK}
        return dataclasses.replace(self, template=dataclasses.replace(self.template, headers=own or None))

    def encode(self) -> bytes:
        """Encodes the definition, as the server keeps it."""
        job = self.template
        return wire.packed([_FORMAT, self.terms.to_wire(), job.queue, wire.encode_job(job)])

    @staticmethod
    def decode(name: str, data: bytes) -> Definition:
        """Reads a definition.

        Raises:
            DecodeError: it is none of this version.
        """
        try:
            form, terms, queue, message, *_ = msgpack.unpackb(data)
            if form != _FORMAT:
                raise ValueError(f"its format is {form!r}, and this version of asyncq reads {_FORMAT}")
            return Definition(name, Terms.from_wire(terms), wire.decode_job("", queue, message))
        except DecodeError:
            raise
        except Exception as error:  # msgpack raises half a dozen unrelated types on garbage
            raise DecodeError(f"schedule {name!r} cannot be read: {error}") from error

    @property
    def fingerprint(self) -> str:
        """What tells this definition from another one of the same name: 16 hexadecimal digits."""
        return hashlib.blake2b(self.encode(), digest_size=8).hexdigest()

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments of each call as plain data."""
        args, kwargs = PLAIN_ARGUMENTS.loads(self.template.body)
        return tuple(args), kwargs

    def job(self, tick: int, enqueued: int, *, id: str = "", channel: str = "") -> tuple[wire.Job, bytes]:
        """Makes the job of a tick, and its message.

        Args:
            tick: the time of the tick, in seconds since the epoch.
            enqueued: when the job is enqueued, in ms since the epoch.
            id: of the job, if it is not that of the tick.
            channel: the reply channel for its outcome.
        """
        at = datetime.fromtimestamp(tick, UTC)
        template = self.template
        request_id = os.urandom(4).hex() + template.request_id
        expires = None if template.expires is None else enqueued + template.expires
        if expires is not None:
            request_id = f"{request_id}~{expires}"
        job = dataclasses.replace(
            template,
            id=id or f"{self.name}:{at:%Y%m%dT%H%M%SZ}",
            request_id=request_id,
            channel="" if template.ignore_result else channel,
            enqueued=enqueued,
            expires=expires,
            deadline=None if template.deadline is None else enqueued + template.deadline,
            headers={
                **(template.headers or {}),
                **dict(zip(_OF_TICK, (self.name, at.isoformat()), strict=True)),
            },
        )
        return job, wire.encode_job(job)
