"""The frames between a process and one that it has started: msgpack arrays, each after its length.

Between a worker and a process that runs jobs for it:

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

Between a supervisor and one of its workers:

    supervisor -> worker  [{...}]               what to run; once, at the start; see `Supervisor`
                          ["stop", step]        1: let running jobs end, 2: hand them back at once
                          ["check", n]          says whether it is alive and ready
    worker -> supervisor  ["ready", facts]      it reads jobs; what the user is shown about it
                          ["failed", message, hint, code]   why it ends
                          ["ending", why, is_done]   it reads no more jobs, see `supervised.OwnEnd`
                          ["checked", n, is_ready]

Values, arguments and failures stand in frames as the bytes that travel through Redis. Nothing is pickled.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from asyncq.wire import packed

if TYPE_CHECKING:
    import socket
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


async def read(reader: asyncio.StreamReader) -> list[Any]:
    """Returns the next frame of a connection, or an empty one when the connection has ended."""
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH))
        return unpack(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return []


def receive(connection: socket.socket) -> list[Any]:
    """Returns the next frame of a connection, or an empty one when the connection has ended. Blocks."""
    head = _received(connection, LENGTH)
    body = None if head is None else _received(connection, int.from_bytes(head))
    return [] if body is None else unpack(body)


def _received(connection: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        try:
            part = connection.recv(length - len(data))
        except ConnectionResetError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)
