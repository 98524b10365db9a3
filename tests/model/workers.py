"""The moves of one worker: it reads, beats, starts bodies and sends calls; it may crash, pause or stop.

Each entry that a worker holds has a phase (`Held.phase`), and `_next_steps` takes the next step from that
phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model import questions
from model.move import Move, fault
from model.scripts import MOST_DEFERRALS
from model.world import (
    DEFERRING,
    FAILING,
    FAILURE,
    FINISHING,
    FRESH,
    HELD,
    IN_FLIGHT,
    NOT_STARTED,
    NOTED,
    PAUSED,
    QUEUEING_FOR_EXECUTOR,
    RELEASING,
    REPLACING,
    RETRYING,
    REVOKED,
    REVOKING,
    RUNNING,
    SUCCESS,
    UNSENT,
    WOKEN,
    Beat,
    Held,
    Signal,
    Worker,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.scripts import Scripts


OUTCOMES = {FINISHING: SUCCESS, FAILING: FAILURE, REVOKING: REVOKED}


def moves(world: World, scripts: Scripts, index: int) -> Iterator[Move]:
    """Yields every move of the worker with this index."""
    worker = world.workers[index]
    yield from _claim(world, scripts, index)
    yield from _faults(world, scripts, index)
    if worker.lease == PAUSED:
        woken = world.with_worker(index, worker._replace(lease=WOKEN))
        yield Move(f"{worker.name}: wakes, and has not beaten yet", woken)
        return
    yield from _beat(world, scripts, index)
    yield from _check_unknown_entries(world, scripts, index)
    for held in worker.held_entries:
        yield from _next_steps(world, scripts, index, held)
    if worker.stopping and not worker.held_entries and not worker.unknown:
        left = scripts.unregister(world, worker.name)
        label = (
            f"{worker.name}: unregisters"
            if left
            else f"{worker.name}: unregister is refused, the process ends"
        )
        yield Move(label, _new_session(left or world, scripts, index))


# --- claims ---------------------------------------------------------------------------------------


def _claim(world: World, scripts: Scripts, index: int) -> Iterator[Move]:
    """Yields a read, sent while a slot is free. The server also serves the read of a stopped process."""
    worker = world.workers[index]
    in_flight = any(held.phase == IN_FLIGHT for held in worker.held_entries)
    if worker.lease == WOKEN or (worker.lease == PAUSED and in_flight) or worker.stopping:
        return
    if len(worker.held_entries) >= scripts.setup.most_held or any(
        _is_last_attempt(scripts, held) for held in worker.held_entries
    ):
        return
    if worker.unknown and scripts.setup.rules.unknown_entries_between_reads:
        return  # the question is on the reader's connection; the next read comes after the answer
    choices = [False]
    if not worker.held_entries and not scripts.unknown_entries(world, worker.name):
        choices.append(True)  # a last try: when it holds nothing, and after it found no unknown pending entry
    for on_last_attempt in choices:
        claimed = scripts.claim(world, worker.name, on_last_attempt=on_last_attempt)
        if claimed:
            after, entry = claimed
            is_unknown_task = not scripts.setup.knows(index, entry.job)
            if is_unknown_task and entry.deferrals == MOST_DEFERRALS and scripts.is_task_known(world):
                continue  # sooner or later, a worker that knows the task claims the job first
            held_entries = (*worker.held_entries, Held(entry, worker.name, IN_FLIGHT))
            label = f"{worker.name}: XREADGROUP is given entry {entry.id} (job {entry.job})"
            yield Move(label, after.with_held_entries(index, held_entries))


def _is_last_attempt(scripts: Scripts, held: Held) -> bool:
    rules = scripts.setup.rules
    return rules.last_attempt_alone and 0 < scripts.setup.max_crashes - 1 <= held.entry.crashes


def _check_unknown_entries(world: World, scripts: Scripts, index: int) -> Iterator[Move]:
    """Yields that a worker asks for its own pending entries, or gets the answer. It then holds the entries
    that it did not hold when it asked and does not hold now.
    """
    worker, rules = world.workers[index], scripts.setup.rules
    if worker.lease != FRESH or not rules.check_unknown_entries:
        return
    mine = {(held.entry.id, held.entry.job) for held in worker.held_entries if held.phase != IN_FLIGHT}
    if worker.unknown:
        new = [entry for entry in worker.unknown if (entry.id, entry.job) not in mine]
        held_entries = (*worker.held_entries, *(Held(entry, worker.name, HELD) for entry in new))
        after = world.with_worker(index, worker._replace(unknown=())).with_held_entries(index, held_entries)
        yield Move(
            f"{worker.name}: gets the answer about pending entries, holds {[entry.id for entry in new]} too",
            after,
        )
        return
    if rules.unknown_entries_between_reads and any(held.phase == IN_FLIGHT for held in worker.held_entries):
        return
    answer = scripts.unknown_entries(world, worker.name)
    if rules.unknown_entries_by_snapshot:
        answer = tuple(entry for entry in answer if (entry.id, entry.job) not in mine)
    if answer:
        after = world.with_worker(index, worker._replace(unknown=answer))
        yield Move(f"{worker.name}: asks for its pending entries: {[e.id for e in answer]}", after)


# --- the lease ------------------------------------------------------------------------------------


def _beat(world: World, scripts: Scripts, index: int) -> Iterator[Move]:
    """Yields a beat, if it changes something: the first one after a pause, or one answered `lost`."""
    worker = world.workers[index]
    count = world.beat_of(worker.name)
    if worker.lease == FRESH and count:
        return
    # A counter that no observer saw stand still need not differ from the next one.
    count += Beat(worker.name, count) in world.seen
    updated = scripts.beat(world, worker.name, max(count, 2))
    if updated is not None:
        yield Move(f"{worker.name}: beats", updated.with_worker(index, worker._replace(lease=FRESH)))
        return
    careful = scripts.setup.rules.start_on_fresh_lease
    keep = tuple(held for held in worker.held_entries if not careful or held.phase not in NOT_STARTED)
    after = _new_session(world, scripts, index, keep, stopping=worker.stopping)
    yield Move(f"{worker.name}: beats, gets the answer `lost`, and begins a new session", after)
    if scripts.setup.orphan_reads:
        after = after._replace(orphans=tuple(sorted((*after.orphans, worker.name))))
        yield Move(f"{worker.name}: the same, with its read still blocked at the server", after)


def _new_session(
    world: World, scripts: Scripts, index: int, held_entries: tuple[Held, ...] = (), *, stopping: bool = False
) -> World:
    """Starts a new worker session with this index: it has a new name, and beats before its first read."""
    old = world.workers[index].name
    if scripts.setup.rules.fresh_session_ids:
        name, count = world.next_name, 1
        # Observations of a session that is gone decide nothing any more.
        world = world._replace(
            next_name=name + 1, seen=tuple(beat for beat in world.seen if beat.name != old)
        )
    else:
        name, count = old, world.beat_of(old) + 1
    others = (beat for beat in world.beats if beat.name != name)
    world = world._replace(beats=tuple(sorted((*others, Beat(name, count)))))
    if scripts.setup.unknown is not None and scripts.setup.knows(index, scripts.setup.unknown):
        world = world._replace(announced=tuple(sorted({*world.announced, name})))
    return world.with_worker(index, Worker(name, held_entries=held_entries, stopping=stopping))


# --- an entry that a worker holds -----------------------------------------------------------------


def _next_steps(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields the next steps for one entry, by its phase."""
    if held.phase == IN_FLIGHT:
        yield from _arrive(world, scripts, index, held)
    elif held.phase in {HELD, NOTED}:
        yield from _see_signal(world, index, held)
        yield from _start(world, scripts, index, held)
        yield from _queue_for_executor(world, scripts, index, held)
        yield from _release_job(world, index, held)
    elif held.phase == RUNNING:
        if scripts.setup.terminate:
            yield from _see_signal(world, index, held)
        yield from _run(world, scripts, index, held)
        yield from _release_job(world, index, held)
    elif held.phase == RETRYING:
        sent = scripts.retry(world, held)
        yield from _call(world, scripts, index, held, call="retry", sent=sent)
    elif held.phase == DEFERRING:
        sent = scripts.defer(world, held)
        yield from _call(world, scripts, index, held, call="defer", sent=sent)
    elif held.phase == REPLACING:
        sent = scripts.replace(world, held)
        yield from _call(world, scripts, index, held, call="replace", sent=sent)
    elif held.phase in {RELEASING, QUEUEING_FOR_EXECUTOR}:
        sent = scripts.release(world, held)
        call = "release" if held.phase == RELEASING else "release into an executor queue"
        yield from _call(world, scripts, index, held, call=call, sent=sent)
    else:
        outcome = OUTCOMES[held.phase]
        sent = scripts.finish(world, held, outcome)
        yield from _call(world, scripts, index, held, call=f"finish as {outcome}", sent=sent)
        if sent and world.faults_left and scripts.setup.lost_publishes:
            silent = scripts.finish(world, held, outcome, publish=False)
            assert silent
            label = f"{held.name}: finish job {held.entry.job}, PUBLISH lost"
            yield fault(label, silent.with_held_entries(index, _rest(world, index, held)))


def _rest(world: World, index: int, held: Held) -> tuple[Held, ...]:
    held_entries = list(world.workers[index].held_entries)
    held_entries.remove(held)  # only one: where a mutant holds an entry twice, the other one stays
    return tuple(held_entries)


def _with_phase(world: World, index: int, held: Held, phase: str) -> World:
    return world.with_held_entries(index, (*_rest(world, index, held), held._replace(phase=phase)))


def _arrive(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields the reply of a read. The worker then holds the entry, unless it holds the same one already."""
    rest = _rest(world, index, held)
    known = any(
        (other.entry.id, other.entry.job) == (held.entry.id, held.entry.job)
        for other in rest
        if other.phase != IN_FLIGHT
    )
    after = world.with_held_entries(index, rest) if known else _with_phase(world, index, held, HELD)
    yield Move(f"{held.name}: the reply with entry {held.entry.id} arrives", after)
    if world.faults_left and scripts.setup.lost_replies:
        yield fault(
            f"{held.name}: the reply with entry {held.entry.id} is lost", world.with_held_entries(index, rest)
        )


def _start(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields the start of a body, on a fresh lease. A job past its deadline ends instead."""
    setup, worker = scripts.setup, world.workers[index]
    if worker.stopping or (worker.lease != FRESH and setup.rules.start_on_fresh_lease):
        return
    job = held.entry.job
    if setup.expire == job and world.control != UNSENT:
        yield Move(f"{held.name}: job {job} is past its deadline", _with_phase(world, index, held, REVOKING))
        return
    if not setup.knows(index, job):
        yield from _defer_or_give_up(world, scripts, index, held)
        return
    if held.entry.crashes and held.phase == HELD and setup.rules.note_before_body:
        yield from _note(world, scripts, index, held)
        return
    noted = scripts.begin_bodies(scripts.read_value(world, held), held)
    after = questions.body_started(noted, setup, held.entry)
    label = f"{held.name}: starts job {job} (entry {held.entry.id}, {held.entry.crashes} crashes)"
    yield Move(label, _with_phase(after, index, held, RUNNING))


def _note(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields the note that a body begins. A lost reply changes nothing: the note is sent again."""
    noted = scripts.begin(world, held)
    label = f"{held.name}: notes that job {held.entry.job} begins (entry {held.entry.id})"
    if noted is None:
        yield Move(f"{label} -> refused", world.with_held_entries(index, _rest(world, index, held)))
        return
    yield Move(label, _with_phase(noted, index, held, NOTED))
    if world.faults_left and scripts.setup.lost_replies and noted != world:
        yield fault(f"{label}, reply lost", noted)


def _defer_or_give_up(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields that a worker defers a job whose task it does not know, or gives the job up after no other
    worker has known the task for a while.
    """
    job, rules = held.entry.job, scripts.setup.rules
    is_known = scripts.is_task_known(world)
    if rules.defer_unknown_tasks and (is_known or held.entry.deferrals < MOST_DEFERRALS):
        yield Move(f"{held.name}: defers job {job}", _with_phase(world, index, held, DEFERRING))
    if not rules.defer_unknown_tasks or (held.entry.deferrals and not is_known):
        after = questions.given_up(world, job)
        yield Move(
            f"{held.name}: gives job {job} up: no worker knows its task",
            _with_phase(after, index, held, FAILING),
        )


def _run(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields that the body ends, fails, replaces its job, or kills its worker."""
    setup, job = scripts.setup, held.entry.job
    if setup.poison == job:
        yield Move(f"{held.name}: is killed by job {job}", _killed(world, scripts, index))
        return
    yield Move(f"{held.name}: the body of job {job} ends", _with_phase(world, index, held, FINISHING))
    if job == setup.fails:
        yield Move(
            f"{held.name}: the body of job {job} fails for good", _with_phase(world, index, held, FAILING)
        )
    if job == setup.replaced and world.records[-1] is None:
        label = f"{held.name}: the body of job {job} replaces it by a workflow"
        yield Move(label, _with_phase(world, index, held, REPLACING))
    if job == 0 and held.entry.retries < setup.retries:
        yield Move(f"{held.name}: the body of job {job} fails", _with_phase(world, index, held, RETRYING))


def _see_signal(world: World, index: int, held: Held) -> Iterator[Move]:
    """Yields that the beat's answer names a revoked job that this worker session holds."""
    worker = world.workers[index]
    if (
        worker.lease == FRESH
        and held.name == worker.name
        and Signal(held.name, held.entry.job) in world.signals
    ):
        label = f"{held.name}: its beat says that job {held.entry.job} was revoked"
        yield Move(label, _with_phase(world, index, held, REVOKING))


def _queue_for_executor(world: World, scripts: Scripts, index: int, held: Held) -> Iterator[Move]:
    """Yields that a worker without a thread for a job puts the job into an executor queue. It reads that
    queue only if it has a thread, so this happens once for each entry.
    """
    worker = world.workers[index]
    may_queue = (
        held.phase == HELD and not held.entry.in_executor_queue and not _is_last_attempt(scripts, held)
    )
    if scripts.setup.executor_queues and may_queue and worker.lease == FRESH and not worker.stopping:
        label = f"{held.name}: has no thread for job {held.entry.job}, and puts it into an executor queue"
        yield Move(label, _with_phase(world, index, held, QUEUEING_FOR_EXECUTOR))


def _release_job(world: World, index: int, held: Held) -> Iterator[Move]:
    """Yields that a stopping worker gives a job back: one that has not started, or that runs too long."""
    if world.workers[index].stopping:
        label = f"{held.name}: is stopping and gives job {held.entry.job} back"
        yield Move(label, _with_phase(world, index, held, RELEASING))


def _call(
    world: World, scripts: Scripts, index: int, held: Held, *, call: str, sent: World | None
) -> Iterator[Move]:
    """Yields a call about an entry, which the worker then holds no more. `sent` is the world after the
    script, or None if the script refused.
    """
    rest = _rest(world, index, held)
    label = f"{held.name}: {call} job {held.entry.job} (entry {held.entry.id})"
    if sent is None:
        yield Move(f"{label} -> refused", world.with_held_entries(index, rest))
        return
    yield Move(f"{label} -> accepted", sent.with_held_entries(index, rest))
    if world.faults_left and scripts.setup.lost_replies and not held.again:
        yield fault(f"{label}, reply lost", sent.with_held_entries(index, (*rest, held._replace(again=True))))


# --- faults ---------------------------------------------------------------------------------------


def _faults(world: World, scripts: Scripts, index: int) -> Iterator[Move]:
    """Yields the faults of a worker: a crash, a pause, a request to stop."""
    setup, worker = scripts.setup, world.workers[index]
    if not world.faults_left:
        return
    matters = bool(worker.held_entries or worker.unknown) or _has_claim_or_second_call(world, worker.name)
    if setup.crashes and (matters or setup.orphan_reads):
        killed = _killed(world, scripts, index)
        yield fault(f"{worker.name}: crashes", killed)
        if setup.orphan_reads:
            orphans = tuple(sorted((*killed.orphans, worker.name)))
            yield fault(
                f"{worker.name}: crashes, its read still blocked at the server",
                killed._replace(orphans=orphans),
            )
    if setup.pauses and worker.held_entries and worker.lease == FRESH:
        paused = world.with_worker(index, worker._replace(lease=PAUSED))
        yield fault(f"{worker.name}: is stopped for longer than its lease", paused)
    if setup.stops and not worker.stopping and worker.lease == FRESH:
        stopping = world.with_worker(index, worker._replace(stopping=True))
        yield fault(f"{worker.name}: is asked to stop", stopping)


def _has_claim_or_second_call(world: World, name: int) -> bool:
    return any(claim.name == name for claim in world.pending) or any(
        second.by == name for second in world.second_calls
    )


def _killed(world: World, scripts: Scripts, index: int) -> World:
    """Kills a worker process. What it held and its second calls are lost. Its keys stay, and another process
    replaces it.
    """
    name = world.workers[index].name
    world = world._replace(second_calls=tuple(second for second in world.second_calls if second.by != name))
    return _new_session(world, scripts, index)
