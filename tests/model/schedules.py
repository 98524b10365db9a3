"""The ticks of one schedule, and workers that make their jobs. A model of its own.

One step here is one script call (`due_schedules.lua`, `put_schedule.lua`), or one step of a worker between
two calls. A schedule is handed out up to a tick before its time. A worker may die between any two steps, send
too early, be slower than the time for which the schedule is handed out to it, lose a reply and send again,
and the server's clock may be set back. Time is a move, too: one tick passes.

    rules:  each can be broken, and the exploration must notice it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE, HOLDS, SENT, HALF, DEAD = "idle", "holds it", "waits for the reply", "has done half", "dead"


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. False breaks one."""

    compares_version: bool = True
    makes_job_in_the_same_step: bool = True
    moves_first: bool = False
    """Which step comes first if job and move are two: with either order something is noticed."""
    hands_out_again: bool = True
    refuses_early: bool = True
    remembers_ticks_given_out: bool = True


@dataclass(frozen=True)
class Setting:
    """What an exploration contains: workers, ticks, and faults."""

    rules: Rules = Rules()
    workers: int = 2
    ticks: int = 3
    deaths: int = 2
    lost_replies: int = 1
    jumps: int = 0


class Worker(NamedTuple):
    """A worker: what it does, and the version and the tick that it was handed out."""

    at: str = IDLE
    version: int = 0
    tick: int = 0


class World(NamedTuple):
    """The server's clock and its schedule, the jobs that were made (their ticks), and the workers.

    `after` is the tick up to which the schedule has come, and `given_out` the ticks that it remembers.
    `is_early` says that a job was made before its tick.
    """

    workers: tuple[Worker, ...]
    now: int = 0
    after: int = 0
    version: int = 0
    is_handed_out: bool = False
    given_out: frozenset[int] = frozenset()
    jobs: tuple[int, ...] = ()
    is_early: bool = False
    deaths: int = 0
    lost_replies: int = 0
    jumps: int = 0

    @property
    def next(self) -> int:
        """The next tick."""
        tick = self.after + 1
        while tick in self.given_out:
            tick += 1
        return tick


def explore(setting: Setting) -> str:
    """Explores all worlds. Returns what is wrong with the protocol; empty if nothing is."""
    first = World((Worker(),) * setting.workers)
    number, worlds, came_from = {first: 0}, [first], [[]]
    current = 0
    while current < len(worlds):
        for world, is_fault in moves(worlds[current], setting):
            if len(set(world.jobs)) < len(world.jobs):
                return f"a tick has two jobs: {world}"
            if world.is_early:
                return f"a job was made before its tick: {world}"
            target = number.setdefault(world, len(worlds))
            if target == len(worlds):
                worlds.append(world)
                came_from.append([])
            if not is_fault:
                came_from[target].append(current)
        current += 1
    ahead = [n for n, world in enumerate(worlds) if set(world.jobs) == set(range(1, setting.ticks + 1))]
    can = set(ahead)
    while ahead:
        for before in came_from[ahead.pop()]:
            if before not in can:
                can.add(before)
                ahead.append(before)
    lost = [world for n, world in enumerate(worlds) if n not in can]
    return f"in {len(lost)} of {len(worlds)} worlds a tick is lost; the nearest: {lost[0]}" if lost else ""


def moves(world: World, setting: Setting) -> Iterator[tuple[World, bool]]:
    """Yields every world that may come next, and whether that step is a fault."""
    if world.now < setting.ticks:
        yield world._replace(now=world.now + 1), False
    if world.is_handed_out and setting.rules.hands_out_again:
        yield world._replace(is_handed_out=False), False  # also while the worker that has it is only slow
    for number, worker in enumerate(world.workers):
        yield from _steps(world, setting, number, worker)
    if world.jumps < setting.jumps and world.now > 0:
        yield _jumped_back(world), True


def _steps(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[tuple[World, bool]]:
    if worker.at == DEAD:
        yield _with(world, number, Worker()), False  # a new process takes its place
        return
    if worker.at == IDLE and not world.is_handed_out and world.next <= world.now + 1:
        held = Worker(HOLDS, world.version, world.next)
        yield _with(world, number, held)._replace(is_handed_out=True), False
    elif worker.at == HOLDS:
        yield from _put(world, setting, number, worker)
    elif worker.at == HALF:
        done = _job_made(world, worker) if setting.rules.moves_first else _moved(world, worker, setting.rules)
        yield _with(done, number, Worker()), False
    elif worker.at == SENT:
        yield from _put(world, setting, number, worker._replace(at=HOLDS))
    if worker.at != IDLE and world.deaths < setting.deaths:
        yield _with(world, number, Worker(DEAD))._replace(deaths=world.deaths + 1), True


def _put(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[tuple[World, bool]]:
    """The script that makes the job and moves the schedule, with and without its reply."""
    rules = setting.rules
    if rules.compares_version and world.version != worker.version:
        yield _with(world, number, Worker()), False  # also for a call that is sent again: it was executed
        return
    if rules.refuses_early and world.now < worker.tick:
        return  # nothing changes, and the worker waits
    if not rules.makes_job_in_the_same_step:
        half = _moved(world, worker, rules) if rules.moves_first else _job_made(world, worker)
        yield _with(half, number, worker._replace(at=HALF)), False
        return
    done = _moved(_job_made(world, worker), worker, rules)
    yield _with(done, number, Worker()), False
    if world.lost_replies < setting.lost_replies:
        yield (
            _with(done, number, worker._replace(at=SENT))._replace(lost_replies=world.lost_replies + 1),
            True,
        )


def _job_made(world: World, worker: Worker) -> World:
    return world._replace(
        jobs=tuple(sorted((*world.jobs, worker.tick))), is_early=world.is_early or world.now < worker.tick
    )


def _moved(world: World, worker: Worker, rules: Rules) -> World:
    return world._replace(
        after=worker.tick,
        version=world.version + 1,
        is_handed_out=False,
        given_out=world.given_out | {worker.tick} if rules.remembers_ticks_given_out else frozenset(),
    )


def _jumped_back(world: World) -> World:
    """Sets the server's clock back by a tick. The schedule is reviewed: it goes on from the new time."""
    now = world.now - 1
    return world._replace(
        now=now,
        after=min(world.after, now),
        version=world.version + 1,
        jumps=world.jumps + 1,
    )


def _with(world: World, number: int, worker: Worker) -> World:
    return world._replace(workers=(*world.workers[:number], worker, *world.workers[number + 1 :]))
