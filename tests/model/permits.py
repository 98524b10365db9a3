"""The permits of a task with `concurrency=`: who holds one, who waits, who is next. A model of its own.

One step here is one script call (`limit.lua`, `defer.lua`, `wake_job.lua`, `release_permit.lua`,
`reacquire_permit.lua`), or one step of a worker between two calls. A worker may die between any two steps.
Time is a move, too: a deferred job comes by itself in the end. Without deaths, the protocol must never need
that.

    jobs:   with `nested`, job 0 starts job 1 and waits for it; the others just run
    rules:  each can be broken, and the exploration must notice it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

UNBORN, QUEUED, CLAIMED, TOLD, ASIDE, BODY, AWAY, BACK, ENDED = (
    *("unborn", "queued", "claimed", "told to wait", "put aside"),
    *("runs", "waits for job 1", "wants its place again", "ended"),
)
NOBODY = -1
PARENT, CHILD = 0, 1


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. False breaks one."""

    looks_after_postpone: bool = True
    drops_claims_of_the_dead: bool = True
    gives_its_place_while_it_waits: bool = True
    gives_before_it_takes_again: bool = True
    calls_the_next_if_one_is_gone: bool = True
    comes_by_itself: bool = True


@dataclass(frozen=True)
class Setting:
    """What an exploration contains: jobs, workers, permits, and faults."""

    rules: Rules = Rules()
    jobs: int = 3
    workers: int = 2
    places: int = 1
    nested: bool = False
    deaths: int = 0
    revocations: int = 0


class Job(NamedTuple):
    at: str
    worker: int = NOBODY


class World(NamedTuple):
    jobs: tuple[Job, ...]
    held: frozenset[tuple[int, int]] = frozenset()
    waiting: tuple[tuple[int, int], ...] = ()
    """Waiting jobs, in the order of their calls: the job, and its worker if it reacquires a permit."""
    acts: frozenset[tuple[int, str, int]] = frozenset()
    """The calls that workers are about to send: worker, verb, job."""
    dead: frozenset[int] = frozenset()
    beatless: frozenset[int] = frozenset()
    revoked: int = 0


def explore(setting: Setting) -> str:
    """Explores all worlds. Returns what is wrong with the protocol; empty if nothing is."""
    first = _beginning(setting)
    number, worlds, came_from = {first: 0}, [first], [[]]
    here = 0
    while here < len(worlds):
        for world, is_fault in moves(worlds[here], setting):
            there = number.setdefault(world, len(worlds))
            if there == len(worlds):
                worlds.append(world)
                came_from.append([])
            if not is_fault:
                came_from[there].append(here)
            running = [job for job in world.jobs if job.at == BODY and job.worker not in world.dead]
            if len(running) > setting.places:
                return f"{len(running)} bodies run at once"
        here += 1
    ahead = [n for n, world in enumerate(worlds) if _is_at_rest(world, setting)]
    can = set(ahead)
    while ahead:
        for before in came_from[ahead.pop()]:
            if before not in can:
                can.add(before)
                ahead.append(before)
    lost = [world for n, world in enumerate(worlds) if n not in can]
    return f"{len(lost)} of {len(worlds)} worlds cannot come to rest; the nearest: {lost[0]}" if lost else ""


def _beginning(setting: Setting) -> World:
    jobs = [Job(QUEUED)] * setting.jobs
    if setting.nested:
        jobs[CHILD] = Job(UNBORN)
    return World(tuple(jobs))


def _is_at_rest(world: World, setting: Setting) -> bool:
    """Returns whether all jobs have ended and, without deaths and revocations, nothing is left behind."""
    if any(job.at != ENDED for job in world.jobs):
        return False
    return bool(setting.deaths or setting.revocations) or not (world.held or world.waiting or world.acts)


# -- the scripts -----------------------------------------------------------------------------------


def _survey(
    world: World, setting: Setting, leaving: tuple[int, int] | None = None
) -> tuple[World, int, list[int]]:
    """Drops the permits of dead workers, and gives permits to jobs that reacquire one. Returns the world
    after that, the number of free permits, and the jobs that wait to start.
    """
    held = set(world.held) - {leaving}
    if len(held) >= setting.places and setting.rules.drops_claims_of_the_dead:
        held = {claim for claim in held if claim[1] not in world.beatless}
    waiting = []
    for entry in world.waiting:
        if entry[1] == NOBODY:
            waiting.append(entry)
        elif entry == leaving or entry[1] in world.beatless:
            continue
        elif len(held) < setting.places:
            held.add(entry)
        else:
            waiting.append(entry)
    starters = [job for job, worker in waiting if worker == NOBODY]
    world = world._replace(held=frozenset(held), waiting=tuple(waiting))
    return world, setting.places - len(held), starters


def _call_next(world: World, free: int, starters: list[int], me: int, worker: int) -> World:
    others = [job for job in starters if job != me]
    if free <= 0 or not others:
        return world
    waiting = tuple(entry for entry in world.waiting if entry != (others[0], NOBODY))
    return world._replace(waiting=waiting, acts=world.acts | {(worker, "call", others[0])})


def _limit(world: World, setting: Setting, number: int, worker: int) -> World:
    world, free, starters = _survey(world, setting)
    mine = (number, NOBODY)
    if free <= 0:
        waiting = world.waiting if mine in world.waiting else (*world.waiting, mine)
        return _put(world._replace(waiting=waiting), number, TOLD, worker)
    waiting = tuple(entry for entry in world.waiting if entry != mine)
    world = world._replace(held=world.held | {(number, worker)}, waiting=waiting)
    return _put(_call_next(world, free - 1, starters, number, worker), number, BODY, worker)


def _release(world: World, setting: Setting, claim: tuple[int, int] | None, worker: int) -> World:
    world, free, starters = _survey(world, setting, claim)
    return _call_next(world, free, starters, NOBODY, worker)


def _reacquire(world: World, setting: Setting, number: int, worker: int) -> World:
    mine = (number, worker)
    if mine not in world.held:
        world, free, starters = _survey(world, setting)
        if mine not in world.held:
            if free <= 0:
                return world if mine in world.waiting else world._replace(waiting=(mine, *world.waiting))
            waiting = tuple(entry for entry in world.waiting if entry != mine)
            world = world._replace(held=world.held | {mine}, waiting=waiting)
            free -= 1
        world = _call_next(world, free, starters, NOBODY, worker)
    return _put(world, number, BODY, worker)


# -- the moves -------------------------------------------------------------------------------------


def moves(world: World, setting: Setting) -> Iterator[tuple[World, bool]]:
    """Yields every world that may come next, and whether that step is a fault."""
    for number, job in enumerate(world.jobs):
        if job.at == QUEUED:
            for worker in set(range(setting.workers)) - world.dead:
                yield _put(world, number, CLAIMED, worker), False
        elif job.at == ASIDE:
            yield from _aside(world, setting, number)
        elif job.worker not in world.dead and job.at not in {UNBORN, ENDED}:
            yield from _steps(world, setting, number, job)
    for act in world.acts:
        yield _done(world._replace(acts=world.acts - {act}), setting, *act), False
    if len(world.dead) < setting.deaths:
        for worker in set(range(setting.workers)) - world.dead:
            acts = frozenset(act for act in world.acts if act[0] != worker)
            yield world._replace(dead=world.dead | {worker}, acts=acts), True
    for worker in world.dead - world.beatless:
        yield _taken(world, worker), False


def _aside(world: World, setting: Setting, number: int) -> Iterator[tuple[World, bool]]:
    if setting.deaths and setting.rules.comes_by_itself:
        yield _put(world, number, QUEUED, NOBODY), False
    if world.revoked < setting.revocations:
        yield _put(world, number, ENDED, NOBODY)._replace(revoked=world.revoked + 1), True


def _steps(world: World, setting: Setting, number: int, job: Job) -> Iterator[tuple[World, bool]]:
    worker = job.worker
    release = (worker, "release", number)
    if job.at == CLAIMED:
        yield _limit(world, setting, number, worker), False
    elif job.at == TOLD:
        looks = {(worker, "look", number)} if setting.rules.looks_after_postpone else set()
        yield _put(world, number, ASIDE, NOBODY)._replace(acts=world.acts | looks), False
    elif job.at == BODY and setting.nested and number == PARENT and world.jobs[CHILD].at != ENDED:
        if world.jobs[CHILD].at == UNBORN:
            world = _put(world, CHILD, QUEUED, NOBODY)
        gives = {release} if setting.rules.gives_its_place_while_it_waits else set()
        yield _put(world, number, AWAY, worker)._replace(acts=world.acts | gives), False
    elif job.at == BODY:
        yield _put(world, number, ENDED, NOBODY)._replace(acts=world.acts | {release}), False
    elif job.at == AWAY and world.jobs[CHILD].at == ENDED:
        if release not in world.acts or not setting.rules.gives_before_it_takes_again:
            yield _put(world, number, BACK, worker), False
    elif job.at == BACK:
        yield _reacquire(world, setting, number, worker), False


def _done(world: World, setting: Setting, worker: int, verb: str, number: int) -> World:
    if verb == "look" and (number, NOBODY) not in world.waiting:
        return world._replace(acts=world.acts | {(worker, "call", number)})
    if verb != "call":
        return _release(world, setting, (number, worker) if verb == "release" else None, worker)
    if world.jobs[number].at == ASIDE:
        return _put(world, number, QUEUED, NOBODY)
    if world.jobs[number].at == ENDED and setting.rules.calls_the_next_if_one_is_gone:
        return world._replace(acts=world.acts | {(worker, "next", NOBODY)})
    return world


def _taken(world: World, worker: int) -> World:
    """Ends the lease of a dead worker: its beat is deleted, and its jobs are queued again."""
    jobs = tuple(Job(QUEUED) if job.worker == worker else job for job in world.jobs)
    return world._replace(jobs=jobs, beatless=world.beatless | {worker})


def _put(world: World, number: int, at: str, worker: int) -> World:
    jobs = (*world.jobs[:number], Job(at, worker), *world.jobs[number + 1 :])
    return world._replace(jobs=jobs)
