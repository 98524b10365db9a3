"""What workers do for each other: they promote due jobs, and take over from worker sessions that are gone.

The keys do not depend on which worker does it, so in the model the first one that is awake does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.move import Move
from model.world import PAUSED, Beat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.scripts import Scripts
    from model.world import Worker, World


def moves(world: World, scripts: Scripts) -> Iterator[Move]:
    """Yields every promotion and takeover."""
    promoter = _awake_worker(world, 0)
    for due in world.delayed if promoter else ():
        assert promoter
        yield Move(f"{promoter.name}: promote job {due.job}", scripts.promote(world, due, promoter.name))
    for rest in world.rests if promoter else ():
        assert promoter
        label = f"{promoter.name}: promote goes on to deliver the end of job {rest.parent}"
        yield Move(label, scripts.notify_rest(world, rest, promoter.name))
    if promoter and scripts.setup.on_cluster and scripts.setup.rules.end_what_waits_in_vain:
        for job in range(scripts.setup.enqueued):
            ended = scripts.end_in_vain(world, job)
            if ended is not None:
                yield Move(f"{promoter.name}: finds that job {job} waits in vain, and ends it", ended)
    for name in sorted({claim.name for claim in world.pending} | _dead_with_a_beat(world)):
        observer = _awake_worker(world, name)
        if observer:
            yield from _observe(world, scripts, observer, name)


def _awake_worker(world: World, other_than: int) -> Worker | None:
    for worker in world.workers:
        if worker.lease != PAUSED and worker.name != other_than:
            return worker
    return None


def _dead_with_a_beat(world: World) -> set[int]:
    return {beat.name for beat in world.beats if not world.worker_named(beat.name)}


def _observe(world: World, scripts: Scripts, observer: Worker, name: int) -> Iterator[Move]:
    """Yields that an observer sees a beat stand still for a lease, and, at any later time, sends `take`."""
    now = Beat(name, world.beat_of(name))
    owner = world.worker_named(name)
    if owner is None:
        decided = [now]  # dead: what stands still now has stood still for as long as one likes
    else:
        decided = [beat for beat in world.seen if beat.name == name]
        if owner.lease == PAUSED and now not in decided:
            after = world._replace(seen=tuple(sorted((*world.seen, now))))
            yield Move(f"{observer.name}: sees the beat of {name} stand still at {now.value}", after)
    if not scripts.setup.rules.check_consumers and not now.value:
        return  # the mutant goes through the hash of beats, where this name is no more
    for beat in decided:
        taken = scripts.take(world, name, beat.value, observer.name)
        if taken is not None:
            entries = [claim.entry for claim in world.pending if claim.name == name]
            yield Move(f"{observer.name}: takes over {entries} from {name}, seen at {beat.value}", taken)
