"""Failpoints: named places where a test makes this process die or stand still, by one environment variable.

    ASYNCQ_FAILPOINTS="finish.answered=kill@3 beat.send=pause:8"

A place is called `<step>.<moment>`, after the steps of the protocol's crash table. `send` is just before a
command is written. `answered` is when its answer has come and nothing was done with it yet. Without the
variable, a place costs one look into an empty dictionary, once for each batch and never for each job. Any
thread may hit a place.
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
        action: `kill` (SIGKILL), `stop` (SIGSTOP) or `pause`, which blocks the thread that hits the place.
        seconds: how long a pause lasts.
        turn: at which hit it happens, counted from 1. It happens once.
    """

    action: str
    seconds: float = 0.0
    turn: int = 1

    def pull(self) -> None:
        """Counts one hit, and acts if it is the one."""
        self.turn -= 1
        if self.turn:
            return
        if self.action == "pause":
            time.sleep(self.seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


def parse(text: str) -> dict[str, Failpoint]:
    """Returns the failpoints in the variable's text, by name.

    Raises:
        ValueError: a part of the text is no failpoint. Otherwise a test whose fault never comes would pass.

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
    """Marks a place: acts if a failpoint is set for it."""
    point = _armed.get(name)
    if point is not None:
        point.pull()
