"""How a job stands, as one look at its record says it."""

from __future__ import annotations

import logging

from asyncq import damage, wire
from asyncq.broker.records import Record
from asyncq.errors import DecodeError

log: logging.Logger = logging.getLogger(__name__)

JobStatus = wire.Ended | str | None
"""The outcome of a job that has ended; of one that has not its flags, and after a space when it expires,
in ms since the epoch, if it does; None for an unknown one."""


def status_of(answer: bytes | None) -> JobStatus:
    """What a script answered about one job. One whose record cannot be read is unknown: the answers about all
    others came with this one.
    """
    if answer is None:
        return None
    try:
        if answer[:1].decode() in wire.NOT_ENDED and (len(answer) == 4 or answer[4:5] == b" "):
            return _flags(answer)
        return Record.parse(answer).ended()
    except (DecodeError, UnicodeDecodeError) as error:
        damage.warn(log, "record", "a record could not be read, so that its job is unknown", error)
        return None


def _flags(answer: bytes) -> str:
    """The flags of a live job, and when it expires. A time that Python has no date for never comes."""
    expires = answer[5:]
    if expires and wire.number_in(expires, wire.LATEST) is None:
        answer = answer[:4]
    return answer.decode()
