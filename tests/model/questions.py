"""Safety: the promises that are checked at every move. A broken promise fills `World.broken`.

The scripts and the workers of the model report here what they did. Nothing in this file changes a key of the
server: it only writes down the history of jobs, and what broke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.world import ANSWERED, FAILED, FAILURE, FRESH, OTHERS, SUCCESS

if TYPE_CHECKING:
    from model.setup import Setup
    from model.world import Entry, Held, World


def outcome_written(world: World, job: int, outcome: str) -> World:
    """Checks that an outcome is written only once for each job."""
    history = world.history[job]
    if history.outcome:
        return _broken(world, f"job {job}: a second outcome was written")
    return world.with_history(job, history._replace(outcome=outcome))


def dead_lettered(world: World, setup: Setup, job: int) -> World:
    """Checks that a dead-lettered job had started before each crash but the first, which may not be its own.

    Without faults, it also checks that only the poison is dead-lettered. With faults, something else may also
    kill the job's workers three times.
    """
    starts = world.history[job].noted_starts
    if starts < setup.max_crashes - 1:
        return _broken(
            world, f"job {job} was dead-lettered, and its body had started {starts} times since a crash"
        )
    if setup.faults == 0 and setup.poison not in (None, job):
        return _broken(world, f"job {job} was dead-lettered for a crash of its neighbour")
    return world


def refused(world: World, job: int) -> World:
    """Checks that a job of a batch is refused, and its dependents end, only if another call has its id."""
    record = world.records[job]
    if record is not None and record.state != OTHERS:
        return _broken(world, f"job {job} was refused, but no other call has its id")
    return world


def given_up(world: World, job: int) -> World:
    """Checks that no job is given up for an unknown task while a worker that has announced the task lives."""
    for worker in world.workers[1:]:
        if worker.name in world.announced and worker.lease == FRESH and world.beat_of(worker.name):
            return _broken(world, f"job {job} is given up, and worker session {worker.name} knows its task")
    return world


def dependent_notified(world: World, child: int, parent: int, outcome: str) -> World:
    """Checks that a job is notified of the true outcome of its parent."""
    became, lost = world.history[parent].outcome, world.history[parent].lost_outcome
    if outcome not in {became, lost} and (became, outcome) != (OTHERS, FAILURE):
        return _broken(
            world, f"job {child} is notified that job {parent} is {outcome}, but it is {became or 'open'}"
        )
    return world


def answered(world: World, waiter: int, job: int) -> World:
    """Checks that no waiter is told that a job is unknown which was accepted and has not ended."""
    asked = world.outboxes and world.waiters[waiter] == ANSWERED
    if asked and world.records[job] is None and not world.history[job].outcome:
        return _broken(world, f"waiter {waiter} got the answer that job {job} is unknown")
    return world


def waited_in_vain(world: World, setup: Setup, job: int) -> World:
    """Checks that no job is given up for an end that was lost while nothing was lost."""
    if not setup.loses_data:
        return _broken(world, f"job {job} is given up, and nothing was lost")
    return world


def answered_unknown(world: World, waiter: int, job: int) -> World:
    """Checks that no waiter is told that a job is unknown which the master knows."""
    if world.records[job] is not None:
        return _broken(world, f"waiter {waiter} is told that job {job} is unknown, and it is there")
    return world


def call_accepted(world: World, held: Held, *, claims_get_lost: bool = False) -> World:
    """Checks that only the worker session that holds the claim of this job ends, delays or releases it.

    Args:
        world: the world.
        held: what the session ends, delays or releases.
        claims_get_lost: whether the server may lose its data. The pending list is lost then, and the entry
            that comes again for the same call may be anybody's. A session that has run this very call may end
            it all the same: its outcome is as good as that of another run.
    """
    job = held.entry.job
    if world.owner(held.entry.id) != held.name and not claims_get_lost:
        return _broken(
            world, f"a call of worker session {held.name} for job {job} was accepted without its claim"
        )
    there = world.entry(held.entry.id)
    if there is not None and there.job != job:
        return _broken(
            world, f"a call for job {job} acknowledged entry {there.id}, which is job {there.job}'s"
        )
    return world


def noted(world: World, job: int) -> World:
    """Counts that the body of a job starts after an earlier crash."""
    history = world.history[job]
    return world.with_history(job, history._replace(noted_starts=history.noted_starts + 1))


def first_crash_counted(world: World, entry: Entry) -> World:
    """Checks that a session which fetches ahead had begun this entry or a later one before a crash counts for
    it.
    """
    if any(history.started_entry >= entry.id for history in world.history):
        return world
    return _broken(world, f"a crash counts for job {entry.job}, which was fetched ahead and had not begun")


def value_read(world: World, held: Held) -> World:
    """Checks that a kept value exists for as long as one of the jobs that need it may run."""
    job = held.entry.job
    record = world.records[job]
    is_claimed = world.owner(held.entry.id) == held.name and record is not None
    if is_claimed and record.entry == held.entry.id and not world.needs:
        return _broken(world, f"job {job} starts, and the kept value that it needs is gone")
    return world


def taken_over(world: World, name: int, entry: Entry, *, beats_go_back: bool = False) -> World:
    """Checks that nothing is taken from a worker session that beats.

    Args:
        world: the world.
        name: of the worker session.
        entry: that is taken.
        beats_go_back: whether the server may lose its newest writes. Then a counter is again what an observer
            saw stand still before, and the session is told so at its next beat.
    """
    if beats_go_back:
        return world
    owner = world.worker_named(name)
    if owner is not None and owner.lease == FRESH and world.beat_of(name):
        return _broken(world, f"entry {entry.id} was taken from worker session {name}, which beats")
    return world


def delivered_again(world: World, job: int) -> World:
    """Allows the job one more start, after a retry, a takeover, a release or a replacement."""
    history = world.history[job]
    return world.with_history(job, history._replace(starts_left=history.starts_left + 1))


def revoke_answered(world: World, job: int, answer: str) -> World:
    """Remembers the answer of `revoke`, which is a promise, and the newest entry at that time."""
    history = world.history[job]._replace(revoke_answer=answer, revoke_horizon=world.last_id)
    return world.with_history(job, history)


def body_started(world: World, setup: Setup, entry: Entry) -> World:
    """Checks the start of a body: none after the answer `revoked`, none of a later delivery after
    `signalled`, none before its parents have ended as they must, and none more often than allowed.
    """
    job = entry.job
    poisonous = setup.poison == job
    history = world.history[job]
    history = history._replace(
        starts_left=history.starts_left - 1, poison_left=history.poison_left - 1 if poisonous else 0
    )
    if setup.fetches_ahead:
        history = history._replace(started_entry=max(history.started_entry, entry.id))
    world = world.with_history(job, history)
    if history.revoke_answer == "revoked":
        return _broken(world, f'job {job} starts after revoke answered "revoked"')
    if history.revoke_answer == "signalled" and entry.id > history.revoke_horizon:
        return _broken(world, f'job {job} was delivered again and starts after revoke answered "signalled"')
    # A parent whose outcome a failover has lost had ended all the same.
    outcomes = {
        parent: {world.history[parent].outcome, world.history[parent].lost_outcome}
        for parent in _waited_for(world, setup, job)
    }
    if job == setup.on_error:
        outcomes = {} if any(FAILED & some for some in outcomes.values()) else outcomes
    else:
        outcomes = {parent: some for parent, some in outcomes.items() if SUCCESS not in some}
    for parent in outcomes:
        return _broken(world, f"job {job} starts, and job {parent} has not ended as it must have")
    if history.starts_left < 0:
        return _broken(world, f"job {job} starts more often than it was enqueued, retried and taken over")
    if poisonous and history.poison_left < 0:
        return _broken(world, f"job {job} kills its worker for the {setup.max_crashes + 1}th time")
    return world


def _waited_for(world: World, setup: Setup, job: int) -> tuple[int, ...]:
    other = setup.jobs - 1
    if job == setup.replaced and world.records[other] is not None:
        return (other,)
    return setup.parents[job] if job < setup.enqueued else ()


def _broken(world: World, why: str) -> World:
    # The first broken promise of a move is the one to deliver; what follows is often its consequence.
    return world if world.broken else world._replace(broken=why)
