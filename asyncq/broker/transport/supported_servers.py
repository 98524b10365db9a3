"""Decides whether asyncq can work with a server, by the server's answer to HELLO. A pure function, called at
each connect.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST = (7, 0)
"""Streams, ACL checks in scripts and RESP3 as asyncq uses them came with Redis 7.0."""

TOO_OLD = "the server is too old ({})\nUse Redis 7.0 or later, or Valkey"
NO_DATABASE = (
    "the server has no database {}\n"
    "Use one with a lower number; apps that share a database need different values of `namespace`"
)


def problem(hello: Mapping[Any, Any]) -> str | None:
    """Returns why asyncq cannot work with a server, and in a second line what to do; None if it can.

    Args:
        hello: the server's answer to HELLO.

    >>> problem({b"server": b"redis", b"version": b"6.2.14", b"mode": b"standalone"}).splitlines()[0]
    'the server is too old (redis 6.2.14)'
    """
    facts = {_text(name): _text(value) for name, value in hello.items()}
    mode = facts.get("mode")
    if mode == "cluster":
        return (
            "this is a node of a Cluster, which asyncq does not support yet\n"
            "Use a standalone server (cluster-enabled no)"
        )
    if mode == "sentinel":
        return (
            "this is a Sentinel, which asyncq does not support yet\n"
            "Use the URL of the server itself, not of its Sentinel"
        )
    version = facts.get("version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        return TOO_OLD.format(f"{facts.get('server', 'redis')} {version}")
    return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
