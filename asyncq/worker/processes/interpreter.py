"""Starts the Python processes of asyncq's own: those of a worker, and the workers of a supervisor.

Runs on the loop of the process that starts them. No process is forked: the starting one has threads and an
event loop, and a copy of those would be useless and harmful.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

from asyncq.system import forks

if TYPE_CHECKING:
    from collections.abc import Sequence


class Connected(NamedTuple):
    """A process, and this end of the connection to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def start(
    module: str,
    *words: str,
    descriptors: Sequence[int],
    stdin: int = asyncio.subprocess.DEVNULL,
    folder: str | None = None,
) -> asyncio.subprocess.Process:
    """Starts `python -m MODULE WORDS`. Its standard output and error are those of this process.

    The process has a session of its own, so Ctrl-C in a terminal reaches only this process, which then ends
    the other one in its own way.

    Args:
        module: what the process runs.
        words: its arguments.
        descriptors: what it inherits beside its standard streams, under the same numbers.
        stdin: its standard input (default: empty).
        folder: its working directory (default: that of this process).

    Raises:
        OSError: the process could not be started.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        stdin=stdin,
        pass_fds=tuple(descriptors),
        start_new_session=True,
        cwd=folder,
    )


async def start_connected(module: str, *words: str, folder: str | None = None) -> Connected:
    """Starts `python -m MODULE WORDS DESCRIPTOR PID`, and connects it to this process.

    Args:
        module: what the process runs.
        words: its first arguments. Two more follow: the descriptor of its end of the connection, and the id
            of this process.
        folder: its working directory (default: that of this process).

    Raises:
        OSError: the process could not be started.
    """
    ours, theirs = socket.socketpair()
    # A child of this process must not keep this end open when this process is dead. Only this end is closed
    # in children: the new process needs the other one, and uvloop calls the hooks of forks in it, too.
    forks.close_in_children(ours, ours.fileno())
    try:
        process = await start(
            *(module, *words, str(theirs.fileno()), str(os.getpid())),
            descriptors=[theirs.fileno()],
            folder=folder,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return Connected(process, reader, writer)


def how_it_ended(code: int) -> str:
    """Describes the exit code of a process; a negative one is the number of a signal.

    >>> how_it_ended(-9), how_it_ended(3)
    ('SIGKILL', 'exit code 3')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
