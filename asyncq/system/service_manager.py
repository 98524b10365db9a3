"""Tells the service manager that has started this process how it is: the protocol `sd_notify` of systemd.

A unit with `Type=notify` counts as started when it is ready, and not when its process is there. Anywhere else
there is no `NOTIFY_SOCKET`, and nothing is sent.

Source: the manual page sd_notify(3) of systemd.
"""

from __future__ import annotations

import logging
import os
import socket

log: logging.Logger = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Sends a state, such as `READY=1` or `STOPPING=1`. Does nothing without a service manager that listens.

    Args:
        state: lines of the form `NAME=VALUE`.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    # A name that begins with @ is one of Linux's abstract sockets, which begin with a zero byte.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto(state.encode(), address)
    except OSError as error:
        log.warning("the service manager could not be told %r: %s", state, error)
