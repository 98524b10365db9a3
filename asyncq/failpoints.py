"""Failpoints: named places where a test makes this process die or stand still, by one environment variable.

    ASYNCQ_FAILPOINTS="finish.answered=kill@3 beat.send=pause:8"

Each place is called `<step>.<moment>`, after the steps of the protocol's crash table: `send` just before a
command is written, `answered` when its answer has come and nothing was done with it. Without the variable, a
place costs a look into an empty dictionary, once for each batch and never for each job.
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass

VARIABLE = "ASYNCQ_FAILPOINTS"

_ORDER = re.compile(
    r"(?P<name>[a-z.]+)=(?P<action>kill|stop|pause:(?P<seconds>\d+(\.\d+)?))(@(?P<turn>\d+))?"
)


@dataclass(slots=True)
class Failpoint:
    """What happens at one place.

    Attributes:
        action: `kill` (SIGKILL), `stop` (SIGSTOP) or `pause`, which blocks the thread that comes by.
        seconds: how long a pause lasts.
        turn: the how-manieth time it happens, from 1. It happens once.
    """

    action: str
    seconds: float = 0.0
    turn: int = 1

    def pull(self) -> None:
        """Counts one coming by, and acts if it is the one."""
        self.turn -= 1
        if self.turn:
            return
        if self.action == "pause":
            time.sleep(self.seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


def parse(text: str) -> dict[str, Failpoint]:
    """The failpoints in the variable's text, by name.

    Raises:
        ValueError: an order that cannot be read. A test whose fault never comes would pass for nothing.

    >>> parse("finish.answered=kill@3")["finish.answered"]
    Failpoint(action='kill', seconds=0.0, turn=3)
    """
    points = {}
    for order in text.split():
        match = _ORDER.fullmatch(order)
        if match is None or match["turn"] == "0":
            raise ValueError(
                f"{VARIABLE}: {order!r} is no failpoint; write STEP.MOMENT=kill|stop|pause:SECONDS[@TURN]"
            )
        action = match["action"].partition(":")[0]
        points[match["name"]] = Failpoint(action, float(match["seconds"] or 0), int(match["turn"] or 1))
    return points


_armed = parse(os.environ.get(VARIABLE, ""))


def hit(name: str) -> None:
    """Says that the process comes by this place now."""
    point = _armed.get(name)
    if point is not None:
        point.pull()
