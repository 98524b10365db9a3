"""A real server with real replicas, each of which a test may freeze, kill and start again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from helpers.own_server import OwnServer, free_port
from helpers.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ReplicatedServer:
    """A primary and its replicas, on ports of 127.0.0.1.

    Args:
        directory: of all of them.
        replicas: how many there are.
    """

    def __init__(self, directory: Path, replicas: int) -> None:
        self.primary = OwnServer(directory / "primary", port=free_port())
        self.replicas = [OwnServer(directory / f"replica{n}", port=free_port()) for n in range(replicas)]

    @property
    def url(self) -> str:
        """The URL of the primary."""
        return self.primary.url

    def start(self, **options: Any) -> Self:
        """Starts all of them, and waits until each replica follows the primary."""
        self.primary.start(repl_diskless_sync_delay=0, save="3600 1", **options)
        for replica in self.replicas:
            replica.start(**options)
        self.follow()
        return self

    def follow(self) -> None:
        """Has all replicas follow the primary, and waits until they do. Blocks."""
        for replica in self.replicas:
            replica.do("REPLICAOF", "127.0.0.1", self.primary.port)
        until_sync(
            lambda: self.primary.do("WAIT", len(self.replicas), 100) == len(self.replicas),
            "the replicas to follow",
        )

    def cut_off(self) -> None:
        """Freezes the replicas and closes their connections, so that they miss what comes next."""
        for replica in self.replicas:
            replica.freeze()
        self.primary.do("CLIENT", "KILL", "TYPE", "replica")

    def close(self) -> None:
        """Kills all of them."""
        for server in (self.primary, *self.replicas):
            server.kill()


@contextlib.contextmanager
def replicated_server(directory: Path, replicas: int = 1, **options: Any) -> Iterator[ReplicatedServer]:
    """Gives a server with replicas that run, and kills all at the end of the block."""
    server = ReplicatedServer(directory, replicas)
    try:
        yield server.start(**options)
    finally:
        server.close()
