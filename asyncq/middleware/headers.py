"""Puts headers that a middleware has changed into the message of a job. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.errors import PayloadTooLarge, SerializationError
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Mapping


def put(job: wire.Job, message: bytes, headers: Mapping[str, Any], max_payload: int) -> bytes:
    """Returns the message of a job with these headers, and gives the headers to the job, too.

    Args:
        job: the job.
        message: its message. It may say other things than `job`: not all jobs that wait for a job are shown
            as its children.
        headers: the new headers.
        max_payload: the size of the largest headers, in bytes.

    Raises:
        SerializationError: the headers are no plain data.
        PayloadTooLarge: they take more than `max_payload`.
    """
    if headers == (job.headers or {}):
        return message
    changed = wire.decode_job(job.id, job.queue, message)
    job.headers = changed.headers = headers
    try:
        message = wire.encode_job(changed)
    except (TypeError, ValueError, OverflowError) as error:
        raise SerializationError(
            f"headers={brief(headers)} of {job.name} cannot travel ({error}); a middleware may put plain "
            "texts, numbers, lists and maps into call.headers"
        ) from error
    if len(message) - len(job.body) > max_payload:
        raise PayloadTooLarge(
            f"the headers of a call of {job.name} take {len(message) - len(job.body):,} bytes, more than "
            f"max_payload={max_payload:,}"
        )
    return message
