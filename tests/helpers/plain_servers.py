"""Real servers on ports of 127.0.0.1, with options and lines of configuration that a test chooses.

asyncq may be unable to use such a server, so a test waits only until it listens.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING

from asyncq.embedded import launch
from helpers.own_server import free_port
from helpers.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class PlainServers:
    """Starts servers.

    Args:
        directory: of their configurations and data.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, lines: Sequence[str] = ()) -> int:
        """Starts a server, waits until it listens, and returns its port.

        Args:
            options: of its command line.
            lines: of its configuration, for what the command line cannot say.
        """
        port = free_port()
        file = self._directory / f"{port}.conf"
        file.write_text("\n".join([f"port {port}", "bind 127.0.0.1", f"dir {self._directory}", *lines, ""]))
        self._running.append(subprocess.Popen([launch.find(), file, *options], stdout=subprocess.DEVNULL))
        until_sync(lambda: _listens(port), "the server to listen", timeout=5)
        return port

    def close(self) -> None:
        """Kills all of them."""
        for server in self._running:
            server.kill()
            server.wait()


@contextlib.contextmanager
def plain_servers(directory: Path) -> Iterator[PlainServers]:
    """Gives a `PlainServers`, and kills its servers at the end of the block."""
    servers = PlainServers(directory)
    try:
        yield servers
    finally:
        servers.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
