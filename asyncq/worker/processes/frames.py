"""The frames between a worker and one of its processes: msgpack arrays, each after its length.

    worker -> process   [{...}]                 how to find the app; once, at the start; see `Pool`
                        ["run", ...]            a job, see `Process.run`
                        ["revoked"]             the job will not be run again
                        ["stop", signal]        end the job by this signal
                        ["answer", n, failure | nil]
    process -> worker   ["ready"]               the app is imported
                        ["broken", text]        the app could not be imported, and why
                        ["started"]             the process has taken up the job
                        ["child", id]           the body starts another job
                        ["ask", n, verb, ...]   what a job may ask of its worker, see `context.Link`
                        ["finish", ...]         the fields of the runner's `Finish`, or of its `Requeue`:
                        ["requeue", ...]
                        ["replace", [[fields of a job, message], ...]]

Values, arguments and failures stand in frames as the bytes that travel through Redis. Nothing is pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from asyncq.wire import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LENGTH: Final = 4
"""The number of bytes before each frame that hold its length."""

_unpack = cast("Callable[[bytes], list[Any]]", msgpack.unpackb)


def pack(frame: Sequence[Any]) -> bytes:
    """Returns a frame as bytes, with its length before it.

    >>> unpack(pack(["stop", 15])[LENGTH:])
    ['stop', 15]
    """
    body = packed(frame)
    return len(body).to_bytes(LENGTH) + body


def unpack(body: bytes) -> list[Any]:
    """Returns the frame in the bytes after its length."""
    return _unpack(body)
