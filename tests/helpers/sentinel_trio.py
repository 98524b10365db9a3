"""Three real Sentinels that watch a real master with a replica, for tests that need a failover."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

import redis

from asyncq.embedded import launch
from helpers.server_node import Node, tls_client, tls_lines
from helpers.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MASTER = "shop"
"""The name of the master."""


class SentinelTrio:
    """Two servers, the first of which is the master at the start, and three Sentinels.

    Args:
        directory: of all of them.
        password: of the servers.
        sentinel_password: of the Sentinels.
        tls: a directory with `ca.pem`, `server.pem` and `server.key`; None for no TLS.
        down_after: milliseconds of silence after which a Sentinel takes the master for dead.
        binary: the program; None for the embedded one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        password: str = "",
        sentinel_password: str = "",
        tls: Path | None = None,
        down_after: int = 500,
        binary: str | None = None,
    ) -> None:
        self.password, self.sentinel_password = password, sentinel_password
        binary = binary or str(launch.find())
        lines = tls_lines(tls) if tls else []
        secret = [f'requirepass "{password}"', f'masterauth "{password}"'] if password else []
        common = [
            'save ""',
            "repl-diskless-sync-delay 0",
            "repl-ping-replica-period 1",
            *secret,
            *lines,
        ]
        client = tls_client(tls) if tls else {}
        self.servers = [
            Node(directory / f"server{n}", common, [], {**client, "password": password or None}, binary)
            for n in range(2)
        ]
        first, second = self.servers
        with (second.directory / "conf").open("a") as file:
            file.write(f"replicaof 127.0.0.1 {first.port}\n")
        watch = [
            f"sentinel monitor {MASTER} 127.0.0.1 {first.port} 2",
            f"sentinel down-after-milliseconds {MASTER} {down_after}",
            f"sentinel failover-timeout {MASTER} 5000",
            *([f'sentinel auth-pass {MASTER} "{password}"'] if password else []),
            *([f'requirepass "{sentinel_password}"'] if sentinel_password else []),
            *([f'sentinel sentinel-pass "{sentinel_password}"'] if sentinel_password else []),
            *lines,
        ]
        own = {**client, "password": sentinel_password or None}
        self.sentinels = [
            Node(directory / f"sentinel{n}", watch, ["--sentinel"], own, binary) for n in range(3)
        ]

    def start(self) -> Self:
        """Starts all five, and waits until each Sentinel knows the replica and the other Sentinels."""
        for node in (*self.servers, *self.sentinels):
            node.start()
        for sentinel in self.sentinels:
            sentinel.do("SENTINEL", "DEBUG", "PUBLISH-PERIOD", "100")
        for sentinel in self.sentinels:
            until_sync(lambda sentinel=sentinel: self._is_ready(sentinel), "the Sentinels to know each other")
        return self

    def _is_ready(self, sentinel: Node) -> bool:
        with contextlib.closing(sentinel.client()) as client:
            facts = client.sentinel_master(MASTER)
            replicas = client.sentinel_slaves(MASTER)
        linked = [each for each in replicas if each["master-link-status"] == "ok"]
        return facts["num-other-sentinels"] == 2 and facts["flags"] == "master" and len(linked) == 1

    @property
    def hosts(self) -> str:
        """The Sentinels, as in a URL."""
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)

    @property
    def url(self) -> str:
        """The URL for an app, without passwords."""
        return f"redis+sentinel://{self.hosts}/{MASTER}"

    def named(self, sentinel: int = 0) -> Node:
        """Returns the server that a Sentinel names as the master."""
        _, port = self.sentinels[sentinel].do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(each for each in self.servers if each.port == int(port))

    def other(self, server: Node) -> Node:
        """Returns the other server."""
        return next(each for each in self.servers if each is not server)

    def wait_until_named(self, new: Node, timeout: float = 30.0) -> None:
        """Waits until all Sentinels name a server, which is a master. Blocks."""

        def is_named() -> bool:
            living = [number for number, each in enumerate(self.sentinels) if each.process is not None]
            return new.role() == "master" and all(self.named(number) is new for number in living)

        until_sync(is_named, "all Sentinels to name the new master", timeout)

    def order_failover(self) -> Node:
        """Orders a Sentinel to make the replica the master, and returns it. Blocks until a Sentinel obeys."""
        old = self.named()
        end = time.monotonic() + 30
        while True:
            try:
                self.sentinels[0].do("SENTINEL", "FAILOVER", MASTER)
            except redis.exceptions.ResponseError:
                # NOGOODSLAVE: the replica has not reported for some seconds; INPROG: one is under way.
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return self.other(old)

    def fail_over(self) -> Node:
        """Makes the replica the master, by order. Returns the new master when all know it. Blocks."""
        new = self.order_failover()
        self.wait_until_named(new)
        return new

    def close(self) -> None:
        """Kills all five."""
        for node in (*self.sentinels, *self.servers):
            node.kill()


@contextlib.contextmanager
def sentinel_trio(directory: Path, **options: Any) -> Iterator[SentinelTrio]:
    """Gives a trio that runs, and kills it at the end of the block. Arguments as of `SentinelTrio`."""
    trio = SentinelTrio(directory, **options)
    try:
        yield trio.start()
    finally:
        trio.close()
