"""The moves that lead from one world to the next, the first world, and the condition of rest.

The moves of clients and of time are here. Those of workers are in `workers.py`, of observers in
`observers.py`, of forwarders in `forwarding.py`. A move that uses one of the world's faults is a fault. All
other moves happen by themselves, and the protocol must come to its end by them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model import forwarding, observers, questions, workers
from model.move import Move, fault
from model.world import (
    ANSWERED,
    CUT_OFF,
    EARLIER_CALL,
    ENDED,
    NEW,
    NOT_STARTED,
    OTHERS,
    POLLED,
    SENT,
    SUBSCRIBED,
    TOMBSTONE,
    UNSENT,
    UNSURE,
    Beat,
    Forwarder,
    History,
    Record,
    Stream,
    Worker,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.scripts import Scripts
    from model.setup import Setup


def beginning(setup: Setup) -> World:
    """Returns the first world: nothing is enqueued yet, and each worker has beaten once."""
    names = range(1, setup.workers + 1)
    return World(
        records=(None,) * setup.jobs,
        stream=Stream(),
        last_attempts=Stream(),
        last_id=0,
        pending=(),
        delayed=(),
        beats=tuple(Beat(name, 1) for name in names),
        signals=(),
        # Number 0 is of a worker that is gone, whose announcement is left.
        announced=(0, *list(names)[1:]) if setup.unknown is not None else (),
        start_notes=(),
        stream_notes=(),
        rests=(),
        needs=(),
        clients=(*(UNSENT,) * setup.enqueued, *(SENT,) * (setup.jobs - setup.enqueued)),
        control=UNSENT,
        waiters=(NEW,) * setup.waiters,
        workers=tuple(Worker(name) for name in names),
        next_name=setup.workers + 1,
        seen=(),
        orphans=(),
        second_calls=(),
        outboxes=((), ()) if setup.shards else (),
        written=0,
        applied=(0, 0) if setup.shards else (),
        forwarders=(Forwarder(),) * setup.forwarders,
        faults_left=setup.faults,
        history=tuple(
            History(poison_left=setup.max_crashes if job == setup.poison else 0) for job in range(setup.jobs)
        ),
    )


def at_rest(world: World) -> bool:
    """Returns whether all jobs have ended, all waiters are answered, and nothing is left.

    Nothing is left means: no entry, no claim, no delayed job, no kept value, no beat of a dead worker.
    Revocation signals have a time to live of their own and may stay.
    """
    return (
        not world.stream.entries
        and not world.last_attempts.entries
        and not world.pending
        and not world.delayed
        and not world.rests
        and not world.needs
        and not any(world.outboxes)
        and not any(forwarder.messages for forwarder in world.forwarders)
        and all(client == SENT for client in world.clients)
        and all(waiter == ANSWERED for waiter in world.waiters)
        and all(world.ended(job) for job in range(len(world.records)))
        and all(world.worker_named(beat.name) for beat in world.beats)
    )


def moves(world: World, scripts: Scripts) -> Iterator[Move]:
    """Yields every move from this world."""
    yield from _enqueues(world, scripts)
    yield from _others(world, scripts.setup)
    yield from _waits(world, scripts)
    yield from _controls(world, scripts)
    yield from _time(world, scripts)
    yield from observers.moves(world, scripts)
    yield from forwarding.moves(world, scripts)
    for index in range(len(world.workers)):
        yield from workers.moves(world, scripts, index)


def _enqueues(world: World, scripts: Scripts) -> Iterator[Move]:
    """Yields the enqueues of clients: a workflow, or one job after the other; again after a lost reply."""
    setup = scripts.setup
    if setup.is_workflow and setup.rules.submit_whole:
        if world.clients[0] != SENT:
            after, label = scripts.submit(world), "client: submit the workflow"
            yield Move(label, _all_clients(after, setup, SENT))
            if world.faults_left and setup.lost_replies and world.clients[0] == UNSENT:
                yield fault(f"{label}, reply lost", _all_clients(after, setup, UNSURE))
        return
    for job, client in enumerate(world.clients):
        if client == SENT:
            continue
        first = world.records[0]
        if setup.same_id and job and client == UNSENT and (first is None or first.state != TOMBSTONE):
            continue  # it would be refused
        after = scripts.enqueue(world, job)
        yield Move(f"client: enqueue job {job}", after.with_client(job, SENT))
        if world.faults_left and setup.lost_replies and client == UNSENT:
            yield fault(f"client: enqueue job {job}, reply lost", after.with_client(job, UNSURE))
        if not setup.same_id:
            return


def _others(world: World, setup: Setup) -> Iterator[Move]:
    """Yields that another call takes the id of a job while that job is on its way to its shard."""
    job = setup.taken
    if job is not None and world.clients[0] != UNSENT and world.records[job] is None:
        history = world.history[job]._replace(outcome=OTHERS)
        after = world.with_record(job, Record(OTHERS)).with_history(job, history)
        yield Move(f"another call takes the id of job {job}", after)


def _all_clients(world: World, setup: Setup, state: str) -> World:
    for job in range(setup.enqueued):
        world = world.with_client(job, state)
    return world


def _waits(world: World, scripts: Scripts) -> Iterator[Move]:
    setup, rules = scripts.setup, scripts.setup.rules
    for waiter, state in enumerate(world.waiters):
        job = setup.waits_for(waiter)
        # Waiter 0 has made the call and must know that it was accepted; waiter 1 was handed an id.
        ready = world.clients[job] == SENT if waiter == 0 else world.clients[job] != UNSENT
        name = f"waiter {waiter}"
        if not world.findable(job) and rules.ask_again_after_outboxes:
            continue
        if state == NEW and ready and rules.subscribe_first:
            after = scripts.fetch_status(world, waiter, job)
            after = after if setup.loses_data else questions.answered(after, waiter, job)
            yield Move(f"{name}: subscribe, then poll or register", after)
        elif state == NEW and ready:
            yield Move(
                f"{name}: poll, not subscribed",
                world.with_waiter(waiter, ANSWERED if world.ended(job) else POLLED),
            )
        elif state == POLLED:
            yield Move(f"{name}: subscribe", _register(world, waiter, job))
        elif state == SUBSCRIBED:
            if rules.poll and world.ended(job):
                yield Move(f"{name}: poll", world.with_waiter(waiter, ANSWERED))
            if world.faults_left and setup.lost_connections:
                yield fault(f"{name}: connection lost", world.with_waiter(waiter, CUT_OFF))
        elif state == CUT_OFF:
            yield _subscribe_again(world, scripts, waiter, job)
        yield from _asks_the_replica(world, setup, waiter, job)


def _subscribe_again(world: World, scripts: Scripts, waiter: int, job: int) -> Move:
    if not scripts.setup.rules.recheck:
        return Move(f"waiter {waiter}: subscribe again", world.with_waiter(waiter, SUBSCRIBED))
    after = scripts.fetch_status(world, waiter, job)
    return Move(f"waiter {waiter}: subscribe again, then poll or register again", after)


def _asks_the_replica(world: World, setup: Setup, waiter: int, job: int) -> Iterator[Move]:
    """Yields that a waiter that connects asks a replica, and believes it."""
    if setup.rules.asks_the_master or world.replica is None or world.clients[job] != SENT:
        return
    if world.waiters[waiter] in {NEW, CUT_OFF} and world.replica.records[job] is None:
        after = questions.answered_unknown(world.with_waiter(waiter, ANSWERED), waiter, job)
        yield Move(f"waiter {waiter}: asks the replica, which does not know the job", after)


def _register(world: World, waiter: int, job: int) -> World:
    """Takes the mutant's second step: it subscribes, even if the job has ended meanwhile."""
    record = world.records[job]
    if record is not None and record.state not in ENDED:
        channels = tuple(sorted({*record.channels, waiter}))
        world = world.with_record(job, record._replace(channels=channels))
    return world.with_waiter(waiter, SUBSCRIBED)


def _controls(world: World, scripts: Scripts) -> Iterator[Move]:
    """Yields revoke and expire, which are sent until they are answered, so perhaps twice; and forget."""
    setup = scripts.setup
    for call, job, script in (
        ("revoke", setup.revoke, scripts.revoke),
        ("expire", setup.expire, scripts.expire),
    ):
        if job is None or world.control == SENT or world.clients[job] == UNSENT or not world.findable(job):
            continue
        after, answer = script(world, job)
        yield Move(f"client: {call} job {job} -> {answer}", after._replace(control=SENT))
        if world.faults_left and setup.lost_replies and world.control == UNSENT:
            yield fault(f"client: {call} job {job}, reply lost", after._replace(control=UNSURE))
    # Whose id is used again may be forgotten while its client does not know yet that it was accepted.
    forgotten = range(2) if setup.same_id else () if setup.forget is None else (setup.forget,)
    for job in forgotten:
        record = world.records[job]
        if world.clients[job] == (UNSENT if setup.same_id else UNSURE):
            continue
        if record is not None and not record.forget and record.state not in {TOMBSTONE, EARLIER_CALL}:
            yield Move(f"client: forget job {job}", scripts.forget(world, job))


def _time(world: World, scripts: Scripts) -> Iterator[Move]:
    """Yields what happens by the clock, at the server's end of a lost connection, and to the server."""
    setup = scripts.setup
    for name in world.orphans:
        claimed = scripts.claim(world, name)
        if claimed:
            after = claimed[0]._replace(orphans=tuple(other for other in world.orphans if other != name))
            yield Move(f"server: the read left by {name} is given entry {claimed[1].id}", after)
    for second in world.second_calls:
        after = scripts.second_call(world, second)
        label = f"second call of {second.by}: {second.call} for job {second.job}"
        yield Move(label, after)
        if second.call == "HINCRBY" and world.faults_left and setup.lost_replies:
            yield fault(f"{label}, reply lost", after._replace(second_calls=(*after.second_calls, second)))
    if setup.records_expire:
        for job, record in enumerate(world.records):
            # Outcomes and tombstones stand for 60 s, a client gives up after 10: nothing is sent again after
            # this. The mutant without tombstones deletes at once.
            may = world.clients[job] == SENT or not setup.rules.tombstones
            if record is not None and record.state in ENDED and may:
                yield Move(f"server: the record of job {job} expires", world.with_record(job, None))
    if world.faults_left:
        yield from _data_losses(world, setup)


def _data_losses(world: World, setup: Setup) -> Iterator[Move]:
    """Yields that the server loses all, or its newest writes."""
    if setup.flushes and world.clients[0] != UNSENT:
        yield fault("server: loses everything, ids start again", _flushed(world))
    if not setup.failovers:
        return
    if world.replica is None:
        yield Move("replica: receives nothing any more", world._replace(replica=world.copy()))
    elif world.clients[0] != UNSENT and not setup.shards:
        yield fault("server: its replica takes over, which is behind", _taken_over(world))
    elif world.clients[0] != UNSENT:
        for shard in (0, 1):
            after = _shard_taken_over(world, setup, shard)
            yield fault(f"server: a replica takes over shard {shard}, and is behind", after)


def _taken_over(world: World) -> World:
    """Returns the world after a failover: the keys are as the replica has them. All processes keep what they
    know, and the connections of the waiters have broken.
    """
    assert world.replica is not None
    waiters = tuple(CUT_OFF if state == SUBSCRIBED else state for state in world.waiters)
    keys = {**world.replica._asdict(), "history": _history_after(world, set(range(len(world.records))))}
    return world._replace(**keys, waiters=waiters, orphans=(), replica=None)


def _shard_taken_over(world: World, setup: Setup, shard: int) -> World:
    """Returns the world after a failover of one shard of two.

    In the model both shards share a stream. An entry of the shard that the replica has not delivered gets a
    new id: behind the old one the stream would not deliver it. What is known of workers is in both shards,
    and stays.
    """
    replica = world.replica
    assert replica is not None
    own = {job for job in range(setup.jobs) if setup.shards[job] == shard}
    of_job = {
        entry.id: entry.job
        for stream in (world.stream, world.last_attempts, replica.stream, replica.last_attempts)
        for entry in stream.entries
    }
    assert not replica.last_attempts.entries, "there are too few faults for a last attempt"
    entries = [entry for entry in world.stream.entries if entry.job not in own]
    entries += [
        entry for entry in replica.stream.entries if entry.job in own and entry.id <= replica.stream.cursor
    ]
    other, last_id = 1 - shard, world.last_id
    records = list(world.records)
    for job in own:
        records[job] = replica.records[job]
    for entry in replica.stream.entries:
        if entry.job in own and entry.id > replica.stream.cursor:
            last_id += 1
            entries.append(entry._replace(id=last_id))
            record = records[entry.job]
            if record is not None and record.entry == entry.id:
                records[entry.job] = record._replace(entry=last_id)
    claims = [claim for claim in world.pending if of_job.get(claim.entry) not in own]
    claims += [claim for claim in replica.pending if of_job.get(claim.entry) in own]
    delayed = [due for due in world.delayed if due.job not in own]
    rests = [rest for rest in world.rests if rest.parent not in own]
    waiters = tuple(
        CUT_OFF if state == SUBSCRIBED and setup.waits_for(waiter) in own else state
        for waiter, state in enumerate(world.waiters)
    )
    outboxes, applied = list(world.outboxes), list(world.applied)
    outboxes[shard], applied[other] = replica.outboxes[shard], replica.applied[other]
    return world._replace(
        records=tuple(records),
        stream=Stream(tuple(sorted(entries)), world.stream.cursor),
        last_id=last_id,
        pending=tuple(sorted(claims)),
        delayed=(*delayed, *(due for due in replica.delayed if due.job in own)),
        rests=tuple(sorted((*rests, *(rest for rest in replica.rests if rest.parent in own)))),
        outboxes=tuple(outboxes),
        applied=tuple(applied),
        history=_history_after(world, own),
        waiters=waiters,
        replica=None,
    )


def _history_after(world: World, jobs: set[int]) -> tuple[History, ...]:
    """Returns the history after a failover that has hit these jobs."""
    assert world.replica is not None
    return tuple(
        then._replace(
            lost_outcome=now.outcome if now.outcome != then.outcome else now.lost_outcome,
            starts_left=then.starts_left + _starts_again(world, job),
        )
        if job in jobs
        else now
        for job, (then, now) in enumerate(zip(world.replica.history, world.history, strict=True))
    )


def _starts_again(world: World, job: int) -> int:
    """Returns how often a job may start, beside what was to come at the time of the replica: by each worker
    that has it from after that time, and by each that had it at that time and has ended it since.
    """
    assert world.replica is not None
    waiting, held = set(), set()
    for worker in world.workers:
        for each in worker.held_entries:
            (waiting if each.phase in NOT_STARTED else held).add((each.entry, each.name))
        waiting |= {(entry, worker.name) for entry in worker.unknown}
    waiting = {(entry.id, name) for entry, name in waiting if entry.job == job}
    held = waiting | {(entry.id, name) for entry, name in held if entry.job == job}
    entries = (*world.replica.stream.entries, *world.replica.last_attempts.entries)
    of_job = {entry.id for entry in entries if entry.job == job}
    claims = {(claim.entry, claim.name) for claim in world.replica.pending if claim.entry in of_job}
    return len(waiting - claims) + len(claims - held)


def _flushed(world: World) -> World:
    # What was promised holds while the server keeps its data. A job whose client is not sure yet is enqueued
    # anew, and rightly: nobody could know that it was there.
    history = tuple(
        past._replace(outcome="", starts_left=past.starts_left + (client == UNSURE), revoke_answer="")
        for past, client in zip(world.history, world.clients, strict=True)
    )
    return world._replace(
        records=(None,) * len(world.records),
        stream=Stream(),
        last_attempts=Stream(),
        last_id=0,
        pending=(),
        delayed=(),
        beats=(),
        signals=(),
        second_calls=(),
        history=history,
    )
