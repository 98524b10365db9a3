"""Makes the arguments of a job in a workflow: first the values of the jobs that it waited for, then its own.

Pure functions over bytes. The runner calls them on its own thread, before the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.errors import DecodeError, PayloadTooLarge
from asyncq.outcome import Outcome
from asyncq.serializers import PLAIN_VALUE, in_front, in_list

if TYPE_CHECKING:
    from asyncq.serializers import ArgumentCodec

_NIL = b"\xc0"


def body_of(job: wire.Job, values: bytes) -> bytes:
    """Returns the arguments of a call, with the values of its parents in front, as one body.

    Raises:
        DecodeError: the values do not fit the job's value template.
        PayloadTooLarge: the values were too large to be handed on.
    """
    if job.value_template is None:
        return job.body
    if values == wire.TOO_LARGE:
        raise PayloadTooLarge(
            f"the values of the {_count(job.value_template)} jobs that {job.name} waited for take more than "
            "16 MiB together; let them store the data elsewhere and return its name"
        )
    try:
        ended = [_ended(*one) for one in wire.split_notification(values)]
        return in_front(job.body, [_packed(job.value_template, [one.payload for one in ended])])
    except (IndexError, TypeError, ValueError) as error:
        raise DecodeError(
            f"job {job.id!r}: the values of its parents do not fit its value template ({error})"
        ) from error


def _ended(parent: str, letter: str, outcome: bytes | None) -> wire.Ended:
    if outcome is None:
        raise DecodeError(f"the kept value of job {parent!r}, which several jobs share, is missing")
    return wire.decode_ended(letter, outcome)


def kept_of(job: wire.Job, values: bytes) -> bytes:
    """Returns the arguments of a call as they are stored with its outcome.

    Those of an error callback begin with three times None, because an exception is not a value. If the
    arguments cannot be put together, the result is empty.
    """
    if job.value_template is None:
        return job.body
    try:
        return in_front(job.body, [_NIL] * 3) if job.value_template == "e" else body_of(job, values)
    except (DecodeError, PayloadTooLarge):
        return b""


def _count(template: Any) -> int:
    return sum(map(_count, template)) if isinstance(template, list) else 1


def _packed(template: Any, payloads: list[bytes]) -> bytes:
    if isinstance(template, list):
        return in_list([_packed(part, payloads) for part in template])
    return payloads[template] or _NIL


def arguments(codec: ArgumentCodec, job: wire.Job, values: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments of a call, ready for the function.

    Raises:
        DecodeError, PayloadTooLarge: as `body_of`.
    """
    if job.value_template != "e":
        return codec.loads(body_of(job, values))
    # An error callback gets first who failed, with which exception, and the traceback. An exception does not
    # travel as a value, so three nils hold the places.
    args, kwargs = codec.loads(in_front(job.body, [_NIL] * 3))
    for parent, letter, outcome in wire.split_notification(values):
        failed: Outcome[Any] = Outcome(parent, wire.decode_ended(letter, outcome or b""), PLAIN_VALUE)
        args[:3] = (parent, failed.error, failed.traceback or "")
    return args, kwargs
