"""How a job stands, as one look at its record says it."""

from __future__ import annotations

import logging

from asyncq import wire
from asyncq.errors import DecodeError

log: logging.Logger = logging.getLogger(__name__)

Look = wire.Ended | str | None
"""The outcome of a job that has ended; of one that has not its flags, and after a space when it expires,
in ms since the epoch, if it does; None for an unknown one."""

_LIVE = (b"L", b"D", b"R", b"P", b"W")


def standing(answer: bytes | None) -> Look:
    """What a script answered about one job."""
    if answer is None:
        return None
    if answer[:1] in _LIVE:
        return answer.decode()
    try:
        return wire.decode_record(answer)
    except DecodeError as error:
        log.warning("a record could not be read: %s", error)
        return None
