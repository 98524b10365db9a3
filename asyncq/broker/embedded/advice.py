"""Advice: why a server did not start, in the words of its log, and what helps."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from asyncq.errors import BrokerNotConfigured

if TYPE_CHECKING:
    from asyncq.broker.embedded.place import Place

_ADVICE = {
    "Can't handle RDB format version": (
        "The data was written by a newer server ({wrote}) than this one. Use that version, "
        "or move {data} away to start empty."
    ),
    "the append only file": (
        "The append-only file cannot be read. Copy {data}/appendonlydir, then repair it with "
        "`valkey-check-aof --fix`, or move {data} away to start empty."
    ),
    "No space left on device": "The disk is full. Free some space, then start again.",
    "Permission denied": (
        "Make it writable (chown -R $(id -u) {data}), or name another directory with "
        "ASYNCQ_URL=embedded:///directory."
    ),
}
"""What the server says when it cannot start, and what helps. The first line that is found decides."""


def failure(what: str, place: Place, log_from: int) -> BrokerNotConfigured:
    """The error for a server that did not start: what happened, the end of its log, and what helps."""
    try:
        with place.log.open("rb") as log:
            log.seek(log_from)
            lines = log.read()[-20_000:].decode(errors="replace").splitlines()
    except OSError as error:
        lines = [f"({place.log}: {error.strerror})"]
    evidence = "\n".join([what, *lines])
    if shutil.disk_usage(place.directory).free < 64 * 1024:
        evidence += "\nNo space left on device"  # a full disk takes the log with it
    words = "".join(f"    {line}\n" for line in lines[-8:])
    return BrokerNotConfigured(f"{what}\n{words}{advise(evidence, place, f'The whole log: {place.log}')}")


def advise(evidence: str, place: Place, otherwise: str) -> str:
    """What helps against what the server, or the system, said."""
    for sign, advice in _ADVICE.items():
        if sign in evidence:
            return advice.format(wrote=place.meta().get("version", "version unknown"), data=place.data)
    return otherwise
