"""The foreground: a server that is kept up for its own sake."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from asyncq.broker.embedded.answer import probe
from asyncq.broker.embedded.shared import acquire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from asyncq.broker.embedded.handle import EmbeddedServer


def run_foreground(directory: Path, *, ready: Callable[[EmbeddedServer], None]) -> None:
    """Keep the server of a project up until SIGINT or SIGTERM, starting it again if it dies.

    Handles both signals meanwhile, so it must be called on the main thread.

    Args:
        directory: the project directory.
        ready: called with the handle once the server answers, and again after each new start; print the URL
            there.

    Raises:
        BrokerNotConfigured: as for `acquire`.
    """
    wake, waker = os.pipe()

    def stop_waiting(_number: int, _frame: FrameType | None) -> None:
        os.write(waker, b"x")  # a threading.Event set in a handler can lock up the wait it interrupts

    before = {number: signal.signal(number, stop_waiting) for number in (signal.SIGINT, signal.SIGTERM)}
    server = None
    try:
        server = acquire(directory)
        ready(server)
        while not select.select([wake], [], [], 1.0)[0]:
            if probe(server.socket).state == "absent":
                server.release()
                server = acquire(directory)
                ready(server)
    finally:
        if server is not None:
            server.release()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(waker)
