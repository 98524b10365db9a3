"""Decides whether asyncq can work with a server, and whether it is the one that was looked for, by the
server's answer to HELLO. Pure functions, called at each connect.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST = (7, 0)
"""Streams, ACL checks in scripts and RESP3 as asyncq uses them came with Redis 7.0."""

TOO_OLD = "the server is too old ({})\nUse Redis 7.0 or later, or Valkey"
NO_HELLO = (
    "the server is too old (it knows no HELLO)\n"
    "Use Redis 7.0 or later, or Valkey, and neither rename-command HELLO nor a proxy that knows RESP2 only"
)
NO_RESP3 = (
    "the server, or a proxy in front of it, does not speak RESP3\n"
    "Use Redis 7.0 or later, or Valkey, and no proxy that knows RESP2 only"
)
NO_SENTINEL = (
    "this is a server and not a Sentinel\n"
    "Name the Sentinels, whose port is mostly 26379; or write redis://host:6379/0 to use one server"
)
NO_CLUSTER = (
    "this is a server and no node of a Cluster\n"
    "Write redis://host:6379/0, or start the servers with cluster-enabled yes"
)
NO_DATABASE = (
    "the server has no database {}\n"
    "Use one with a lower number; apps that share a database need different values of `namespace`"
)


class Wanted(Enum):
    """What must be at the other end of a connection."""

    SERVER = auto()
    """A server that the user has named. Its role is not asked for: it may stand behind an address that moves
    with the master, and then its answers say READONLY."""
    MASTER = auto()
    """A server that a Sentinel has named, which may have become a replica."""
    SENTINEL = auto()
    CLUSTER = auto()
    """A node of a Cluster, of any role."""
    PRIMARY = auto()
    """A node of a Cluster that serves slots, as another node has said."""


def problem(hello: Mapping[Any, Any], wanted: Wanted = Wanted.SERVER) -> str | None:
    """Returns why asyncq cannot work with a server, and in a second line what to do; None if it can.

    Args:
        hello: the server's answer to HELLO.
        wanted: what must be at the other end.

    >>> problem({b"server": b"redis", b"version": b"6.2.14", b"mode": b"standalone"}).splitlines()[0]
    'the server is too old (redis 6.2.14)'
    """
    facts = {_text(name): _text(value) for name, value in hello.items()}
    mode = facts.get("mode")
    if wanted is Wanted.SENTINEL:
        return None if mode == "sentinel" else NO_SENTINEL
    if wanted in {Wanted.CLUSTER, Wanted.PRIMARY} and mode == "standalone":
        return NO_CLUSTER
    if wanted in {Wanted.SERVER, Wanted.MASTER} and mode == "cluster":
        return "this is a node of a Cluster\nWrite redis+cluster://host:6379, with one node or more"
    if mode == "sentinel":
        return (
            "this is a Sentinel and not a server\n"
            "Write redis+sentinel://host:26379/mymaster, with the name of the master that it watches"
        )
    version = facts.get("version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        return TOO_OLD.format(f"{facts.get('server', 'redis')} {version}")
    return None


def is_master(hello: Mapping[Any, Any]) -> bool:
    """Returns whether a server is a master. Its answer to HELLO says the same as that to ROLE, which would
    cost a round trip and a right.
    """
    return any(_text(name) == "role" and _text(value) == "master" for name, value in hello.items())


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
