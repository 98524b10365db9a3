"""The permits of a task with `concurrency=`: who holds one, who waits, who is next. A model of its own.

One step here is one script call (`limit.lua`, `defer.lua`, `wake_job.lua`, `release_permit.lua`,
`reacquire_permit.lua`), or one step of a worker between two calls. A worker may die between any two steps.
Time is a move, too: a deferred job returns by itself in the end. Without deaths, the protocol must never need
that.

    jobs:   with `nested`, job 0 starts job 1 and waits for it; the others just run
    rules:  each can be broken, and the exploration must notice it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_ENQUEUED, QUEUED, CLAIMED, POSTPONED, DEFERRED, BODY, WAITS, REACQUIRES, ENDED = (
    *("not enqueued", "queued", "claimed", "must wait", "deferred"),
    *("runs", "waits for job 1", "needs its permit again", "ended"),
)
NOBODY = -1
PARENT, CHILD = 0, 1


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. False breaks one."""

    checks_after_defer: bool = True
    drops_permits_of_dead_workers: bool = True
    releases_permit_during_wait: bool = True
    releases_before_it_reacquires: bool = True
    wakes_next_if_one_is_gone: bool = True
    returns_by_itself: bool = True


@dataclass(frozen=True)
class Setting:
    """What an exploration contains: jobs, workers, permits, and faults."""

    rules: Rules = Rules()
    jobs: int = 3
    workers: int = 2
    permits: int = 1
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
    calls: frozenset[tuple[int, str, int]] = frozenset()
    """The calls that workers are about to send: worker, verb, job."""
    dead: frozenset[int] = frozenset()
    beatless: frozenset[int] = frozenset()
    revoked: int = 0


def explore(setting: Setting) -> str:
    """Explores all worlds. Returns what is wrong with the protocol; empty if nothing is."""
    first = _beginning(setting)
    number, worlds, came_from = {first: 0}, [first], [[]]
    current = 0
    while current < len(worlds):
        for world, is_fault in moves(worlds[current], setting):
            target = number.setdefault(world, len(worlds))
            if target == len(worlds):
                worlds.append(world)
                came_from.append([])
            if not is_fault:
                came_from[target].append(current)
            running = [job for job in world.jobs if job.at == BODY and job.worker not in world.dead]
            if len(running) > setting.permits:
                return f"{len(running)} bodies run at once"
        current += 1
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
        jobs[CHILD] = Job(NOT_ENQUEUED)
    return World(tuple(jobs))


def _is_at_rest(world: World, setting: Setting) -> bool:
    """Returns whether all jobs have ended and, without deaths and revocations, nothing is left behind."""
    if any(job.at != ENDED for job in world.jobs):
        return False
    return bool(setting.deaths or setting.revocations) or not (world.held or world.waiting or world.calls)


# -- the scripts -----------------------------------------------------------------------------------


def _update_permits(
    world: World, setting: Setting, leaving: tuple[int, int] | None = None
) -> tuple[World, int, list[int]]:
    """Drops the permits of dead workers, and gives permits to jobs that reacquire one. Returns the world
    after that, the number of free permits, and the jobs that wait to start.
    """
    held = set(world.held) - {leaving}
    if len(held) >= setting.permits and setting.rules.drops_permits_of_dead_workers:
        held = {permit for permit in held if permit[1] not in world.beatless}
    waiting = []
    for entry in world.waiting:
        if entry[1] == NOBODY:
            waiting.append(entry)
        elif entry == leaving or entry[1] in world.beatless:
            continue
        elif len(held) < setting.permits:
            held.add(entry)
        else:
            waiting.append(entry)
    waiting_jobs = [job for job, worker in waiting if worker == NOBODY]
    world = world._replace(held=frozenset(held), waiting=tuple(waiting))
    return world, setting.permits - len(held), waiting_jobs


def _wake_next(world: World, free: int, waiting_jobs: list[int], me: int, worker: int) -> World:
    others = [job for job in waiting_jobs if job != me]
    if free <= 0 or not others:
        return world
    waiting = tuple(entry for entry in world.waiting if entry != (others[0], NOBODY))
    return world._replace(waiting=waiting, calls=world.calls | {(worker, "wake", others[0])})


def _limit(world: World, setting: Setting, number: int, worker: int) -> World:
    world, free, waiting_jobs = _update_permits(world, setting)
    mine = (number, NOBODY)
    if free <= 0:
        waiting = world.waiting if mine in world.waiting else (*world.waiting, mine)
        return _with_job(world._replace(waiting=waiting), number, POSTPONED, worker)
    waiting = tuple(entry for entry in world.waiting if entry != mine)
    world = world._replace(held=world.held | {(number, worker)}, waiting=waiting)
    return _with_job(_wake_next(world, free - 1, waiting_jobs, number, worker), number, BODY, worker)


def _release(world: World, setting: Setting, permit: tuple[int, int] | None, worker: int) -> World:
    world, free, waiting_jobs = _update_permits(world, setting, permit)
    return _wake_next(world, free, waiting_jobs, NOBODY, worker)


def _reacquire(world: World, setting: Setting, number: int, worker: int) -> World:
    mine = (number, worker)
    if mine not in world.held:
        world, free, waiting_jobs = _update_permits(world, setting)
        if mine not in world.held:
            if free <= 0:
                return world if mine in world.waiting else world._replace(waiting=(mine, *world.waiting))
            waiting = tuple(entry for entry in world.waiting if entry != mine)
            world = world._replace(held=world.held | {mine}, waiting=waiting)
            free -= 1
        world = _wake_next(world, free, waiting_jobs, NOBODY, worker)
    return _with_job(world, number, BODY, worker)


# -- the moves -------------------------------------------------------------------------------------


def moves(world: World, setting: Setting) -> Iterator[tuple[World, bool]]:
    """Yields every world that may come next, and whether that step is a fault."""
    for number, job in enumerate(world.jobs):
        if job.at == QUEUED:
            for worker in set(range(setting.workers)) - world.dead:
                yield _with_job(world, number, CLAIMED, worker), False
        elif job.at == DEFERRED:
            yield from _deferred_steps(world, setting, number)
        elif job.worker not in world.dead and job.at not in {NOT_ENQUEUED, ENDED}:
            yield from _steps(world, setting, number, job)
    for call in world.calls:
        yield _after_call(world._replace(calls=world.calls - {call}), setting, *call), False
    if len(world.dead) < setting.deaths:
        for worker in set(range(setting.workers)) - world.dead:
            calls = frozenset(call for call in world.calls if call[0] != worker)
            yield world._replace(dead=world.dead | {worker}, calls=calls), True
    for worker in world.dead - world.beatless:
        yield _lease_ended(world, worker), False


def _deferred_steps(world: World, setting: Setting, number: int) -> Iterator[tuple[World, bool]]:
    if setting.deaths and setting.rules.returns_by_itself:
        yield _with_job(world, number, QUEUED, NOBODY), False
    if world.revoked < setting.revocations:
        yield _with_job(world, number, ENDED, NOBODY)._replace(revoked=world.revoked + 1), True


def _steps(world: World, setting: Setting, number: int, job: Job) -> Iterator[tuple[World, bool]]:
    worker = job.worker
    release = (worker, "release", number)
    if job.at == CLAIMED:
        yield _limit(world, setting, number, worker), False
    elif job.at == POSTPONED:
        checks = {(worker, "check", number)} if setting.rules.checks_after_defer else set()
        yield _with_job(world, number, DEFERRED, NOBODY)._replace(calls=world.calls | checks), False
    elif job.at == BODY and setting.nested and number == PARENT and world.jobs[CHILD].at != ENDED:
        if world.jobs[CHILD].at == NOT_ENQUEUED:
            world = _with_job(world, CHILD, QUEUED, NOBODY)
        releases = {release} if setting.rules.releases_permit_during_wait else set()
        yield _with_job(world, number, WAITS, worker)._replace(calls=world.calls | releases), False
    elif job.at == BODY:
        yield _with_job(world, number, ENDED, NOBODY)._replace(calls=world.calls | {release}), False
    elif job.at == WAITS and world.jobs[CHILD].at == ENDED:
        if release not in world.calls or not setting.rules.releases_before_it_reacquires:
            yield _with_job(world, number, REACQUIRES, worker), False
    elif job.at == REACQUIRES:
        yield _reacquire(world, setting, number, worker), False


def _after_call(world: World, setting: Setting, worker: int, verb: str, number: int) -> World:
    if verb == "check" and (number, NOBODY) not in world.waiting:
        return world._replace(calls=world.calls | {(worker, "wake", number)})
    if verb != "wake":
        return _release(world, setting, (number, worker) if verb == "release" else None, worker)
    if world.jobs[number].at == DEFERRED:
        return _with_job(world, number, QUEUED, NOBODY)
    if world.jobs[number].at == ENDED and setting.rules.wakes_next_if_one_is_gone:
        return world._replace(calls=world.calls | {(worker, "next", NOBODY)})
    return world


def _lease_ended(world: World, worker: int) -> World:
    """Ends the lease of a dead worker: its beat is deleted, and its jobs are queued again."""
    jobs = tuple(Job(QUEUED) if job.worker == worker else job for job in world.jobs)
    return world._replace(jobs=jobs, beatless=world.beatless | {worker})


def _with_job(world: World, number: int, at: str, worker: int) -> World:
    jobs = (*world.jobs[:number], Job(at, worker), *world.jobs[number + 1 :])
    return world._replace(jobs=jobs)
