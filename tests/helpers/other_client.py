"""A client in a process of its own, which asks the server again and again: how long did it wait at most?

A client on the loop of a test would also wait for that loop.

    python -m helpers.other_client URL
"""

from __future__ import annotations

import select
import sys
import time

import redis

PAUSE = 0.0005
"""Seconds between two questions: a client without any pause would take the processor from the server."""


def main() -> None:
    """Asks until its input ends, and prints the longest wait in seconds."""
    with redis.Redis.from_url(sys.argv[1]) as client:
        client.ping()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        slowest = 0.0
        while not select.select([sys.stdin], [], [], PAUSE)[0]:
            began = time.monotonic()
            client.ping()
            slowest = max(slowest, time.monotonic() - began)
        sys.stdout.write(f"{slowest}\n")


if __name__ == "__main__":
    main()
