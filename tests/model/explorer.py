"""The explorer: it visits every world that can be reached, breadth first.

It checks two things. On every edge: did the move break a promise (`questions.py`)? For every world: can it
still come to rest (`moves.at_rest`) if no more faults happen? The second check finds jobs and waiters that
are lost silently. It proves "can still end", and not "ends in time".

A counterexample is a shortest path to the broken promise, or to a world that can never come to rest.
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
    """The result of an exploration."""

    verdict: str
    """`holds`; `broken`: a move broke a promise; `stuck`: a world can never come to rest."""
    why: str
    trace: tuple[str, ...]
    """The counterexample, one move per text; empty if the protocol holds."""
    states: int
    edges: int
    seconds: float

    def report(self) -> str:
        """Formats the counterexample for people."""
        numbered = (f"{step:3d}. {move}" for step, move in enumerate(self.trace, 1))
        return "\n".join([f"{self.verdict}: {self.why}", *numbered])


class TooLargeError(Exception):
    """The exploration has more states than the limit: give it fewer faults."""


def explore(setup: Setup, limit: int = 12_000_000) -> Result:
    """Explores all worlds of a setup. Stops at the first broken promise.

    Args:
        setup: the first world, its faults, and the rules.
        limit: the largest number of states to keep (about 1 kB each).

    Raises:
        TooLargeError: there are more states than `limit`.

    Example:
        >>> explore(Setup(faults=0)).verdict
        'holds'
    """
    started, scripts, first = time.perf_counter(), Scripts(setup), beginning(setup)
    number = {first: 0}
    worlds, parents = [first], [0]
    came_from: list[list[int]] = [[]]  # over fault-free edges only
    edges = current = 0
    while current < len(worlds):
        for move in moves(worlds[current], scripts):
            edges += 1
            target = number.setdefault(move.world, len(worlds))
            if target == len(worlds):
                worlds.append(move.world)
                parents.append(current)
                came_from.append([])
            if not move.is_fault:
                came_from[target].append(current)
            if move.world.broken:
                trace = _trace(worlds, parents, target, scripts)
                return Result(
                    BROKEN, move.world.broken, trace, len(worlds), edges, time.perf_counter() - started
                )
        current += 1
        if len(worlds) > limit:
            raise TooLargeError(f"more than {limit} states")
    lost = _cannot_rest(worlds, came_from)
    if not lost:
        return Result(HOLDS, "", (), len(worlds), edges, time.perf_counter() - started)
    why = f"{len(lost)} worlds cannot come to rest; the nearest: {_describe(worlds[lost[0]])}"
    trace = _trace(worlds, parents, lost[0], scripts)
    return Result(STUCK, why, trace, len(worlds), edges, time.perf_counter() - started)


def _cannot_rest(worlds: list[World], came_from: list[list[int]]) -> list[int]:
    """Returns the worlds from which no path without faults leads to rest, nearest to the beginning first."""
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
    # Labels are computed again and not kept: they would take a third of the memory.
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
    claims = {claim.entry: claim.name for claim in world.pending}
    left = f"entries {entries}, pending {claims}, delayed {len(world.delayed)}"
    return f"{', '.join(open_ends) or 'all answered'}; {left}"
