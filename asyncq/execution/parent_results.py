"""What a job of a workflow gets from those that it waited for: their values, before its own arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.errors import DecodeError, PayloadTooLarge
from asyncq.outcome import Outcome
from asyncq.serializers import PLAIN_VALUE, in_front, in_list

if TYPE_CHECKING:
    from asyncq.serializers import ArgumentCodec

_NIL = b"\xc0"
TOO_LARGE = b"!"
"""What the server sends instead of values that are too large for it."""


def body_of(job: wire.Job, values: bytes) -> bytes:
    """The arguments of a call with those that its parents' values are, as one body.

    Raises:
        DecodeError: the values are not what the job's value template asks for.
        PayloadTooLarge: they were too much to be handed on.
    """
    if job.value_template is None:
        return job.body
    if values == TOO_LARGE:
        raise PayloadTooLarge(
            f"the values of the {_count(job.value_template)} jobs that {job.name} waited for take more than "
            "16 MiB together; let them store the data elsewhere and return its name"
        )
    try:
        ended = [_ended(*one) for one in wire.split_notification(values)]
        return in_front(job.body, [_packed(job.value_template, [one.payload for one in ended])])
    except (IndexError, TypeError, ValueError) as error:
        raise DecodeError(f"job {job.id!r}: its parents' values do not fit ({error})") from error


def _ended(parent: str, letter: str, outcome: bytes | None) -> wire.Ended:
    if outcome is None:
        raise DecodeError(f"the value of job {parent!r}, kept once for all that waited for it, is not there")
    return wire.decode_ended(letter, outcome)


def kept_of(job: wire.Job, values: bytes) -> bytes:
    """The arguments of a call as they are kept with its outcome. Those of an error callback begin with three
    times None, for an exception is not a value; those that cannot be put together are empty.
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
    """The arguments of a call, ready for the function.

    Raises:
        DecodeError, PayloadTooLarge: as `body_of`.
    """
    if job.value_template != "e":
        return codec.loads(body_of(job, values))
    # What an error callback gets first: who failed, how, and where. An exception is not a value that travels,
    # so its place is held for it.
    args, kwargs = codec.loads(in_front(job.body, [_NIL] * 3))
    for parent, letter, outcome in wire.split_notification(values):
        failed: Outcome[Any] = Outcome(parent, wire.decode_ended(letter, outcome or b""), PLAIN_VALUE)
        args[:3] = (parent, failed.error, failed.traceback or "")
    return args, kwargs
