"""The explorer: every world that can be reached, breadth first.

Two things are asked. On every edge: was a promise broken (`questions.py`)? And of every world: can it still
come to rest (`moves.at_rest`) if no more faults happen? The second finds jobs and waiters that are lost
without a sound. It says "can still end", not "ends in time".

A counterexample is a shortest path to the broken promise, or to a world that cannot come to rest any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from model.moves import at_rest, beginning, moves
from model.scripts import Scripts
from model.world import ANSWERED

if TYPE_CHECKING:
    from model.setup import Setup
    from model.world import World

HOLDS, BROKEN, STUCK = "holds", "broken", "stuck"


class Result(NamedTuple):
    """What an exploration found."""

    verdict: str
    """`holds`; `broken`: a promise was not kept; `stuck`: a world cannot come to rest any more."""
    why: str
    trace: tuple[str, ...]
    """The counterexample, one move a line; empty if the protocol holds."""
    states: int
    edges: int
    seconds: float

    def told(self) -> str:
        """The counterexample for people."""
        lines = (f"{step:3d}. {move}" for step, move in enumerate(self.trace, 1))
        return "\n".join([f"{self.verdict}: {self.why}", *lines])


class TooLargeError(Exception):
    """The exploration has more states than it was allowed: give it fewer faults."""


def explore(setup: Setup, limit: int = 3_000_000) -> Result:
    """Explore all worlds of a setup; stop at the first broken promise.

    Args:
        setup: The world, its faults, and the rules.
        limit: The most states to keep (about 1 kB each).

    Raises:
        TooLargeError: There are more states than `limit`.

    Example:
        >>> explore(Setup(faults=0)).verdict
        'holds'
    """
    started, scripts, first = time.perf_counter(), Scripts(setup), beginning(setup)
    number = {first: 0}
    worlds, parents = [first], [0]
    came_from: list[list[int]] = [[]]  # over fault-free edges only
    edges = here = 0
    while here < len(worlds):
        for move in moves(worlds[here], scripts):
            edges += 1
            there = number.setdefault(move.world, len(worlds))
            if there == len(worlds):
                worlds.append(move.world)
                parents.append(here)
                came_from.append([])
            if not move.is_fault:
                came_from[there].append(here)
            if move.world.broken:
                trace = _trace(worlds, parents, there, scripts)
                return Result(
                    BROKEN, move.world.broken, trace, len(worlds), edges, time.perf_counter() - started
                )
        here += 1
        if len(worlds) > limit:
            raise TooLargeError(f"more than {limit} states")
    lost = _cannot_rest(worlds, came_from)
    if not lost:
        return Result(HOLDS, "", (), len(worlds), edges, time.perf_counter() - started)
    why = f"{len(lost)} worlds cannot come to rest; the nearest: {_describe(worlds[lost[0]])}"
    trace = _trace(worlds, parents, lost[0], scripts)
    return Result(STUCK, why, trace, len(worlds), edges, time.perf_counter() - started)


def _cannot_rest(worlds: list[World], came_from: list[list[int]]) -> list[int]:
    """The worlds from which no fault-free path leads to rest, nearest to the beginning first."""
    can = bytearray(len(worlds))
    ahead = [number for number, world in enumerate(worlds) if at_rest(world)]
    for number in ahead:
        can[number] = 1
    while ahead:
        for before in came_from[ahead.pop()]:
            if not can[before]:
                can[before] = 1
                ahead.append(before)
    return [number for number, rests in enumerate(can) if not rests]


def _trace(worlds: list[World], parents: list[int], last: int, scripts: Scripts) -> tuple[str, ...]:
    # Labels are found again rather than kept: kept, they are a third of the memory.
    labels: list[str] = []
    while last:
        before = parents[last]
        labels.append(next(m.label for m in moves(worlds[before], scripts) if m.world == worlds[last]))
        last = before
    return tuple(reversed(labels))


def _describe(world: World) -> str:
    open_ends = [
        f"job {job} is {record.state}"
        for job, record in enumerate(world.records)
        if record is not None and not world.ended(job)
    ]
    for waiter, state in enumerate(world.waiters):
        if state != ANSWERED:
            open_ends.append(f"waiter {waiter} is {state}")
    entries = [entry.id for entry in (*world.stream.entries, *world.last_attempts.entries)]
    claims = {line.entry: line.name for line in world.pending}
    left = f"entries {entries}, pending {claims}, delayed {len(world.delayed)}"
    return f"{', '.join(open_ends) or 'all answered'}; {left}"
