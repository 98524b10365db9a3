"""What a worker and one of its processes say to each other: msgpack arrays, each with its length before it.

    worker -> process   [{...}]                 how to find the app, first and once, see `Pool`
                        ["run", ...]            a job, see `Process.run`
                        ["revoked"]             the job will not be run again
                        ["stop", signal]        end the job by this signal
                        ["answer", n, failure | nil]
    process -> worker   ["ready"]               the app is imported
                        ["broken", text]        it is not, and why
                        ["begun"]               the job is taken up
                        ["child", id]           the body starts a job
                        ["ask", n, verb, ...]   what a job may ask of its worker, see `context.Link`
                        ["finish", ...]         the fields of the runner's `Finish`, or of its `Requeue`:
                        ["requeue", ...]
                        ["replace", [[fields of a job, message], ...]]

Values, arguments and failures are in there as the bytes that travel through Redis; nothing is pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from asyncq.wire import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LENGTH: Final = 4
"""Bytes before each frame that hold its length."""

_unpack = cast("Callable[[bytes], list[Any]]", msgpack.unpackb)


def pack(frame: Sequence[Any]) -> bytes:
    """A frame as it is sent.

    >>> unpack(pack(["stop", 15])[LENGTH:])
    ['stop', 15]
    """
    body = packed(frame)
    return len(body).to_bytes(LENGTH) + body


def unpack(body: bytes) -> list[Any]:
    """A frame from the bytes after its length."""
    return _unpack(body)
