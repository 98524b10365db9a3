"""The moves of one worker: it reads, beats, starts bodies and sends calls; it may crash, pause or stop.

Each entry that a worker holds has a phase (`Held.phase`), and `_carry_on` takes the next step from that
phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model import questions
from model.move import Move, fault
from model.scripts import MOST_PUT_OFF
from model.world import (
    FAILING,
    FAILURE,
    FINISHING,
    FRESH,
    HELD,
    IN_FLIGHT,
    LINING_UP,
    NOT_STARTED,
    NOTED,
    PAUSED,
    PUTTING_OFF,
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


def moves(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """Yields every move of the worker with this index."""
    worker = world.workers[place]
    yield from _claim(world, scripts, place)
    yield from _faults(world, scripts, place)
    if worker.lease == PAUSED:
        woken = world.with_worker(place, worker._replace(lease=WOKEN))
        yield Move(f"{worker.name}: wakes, and has not beaten yet", woken)
        return
    yield from _beat(world, scripts, place)
    yield from _own_look(world, scripts, place)
    for held in worker.hands:
        yield from _carry_on(world, scripts, place, held)
    if worker.stopping and not worker.hands and not worker.unknown:
        left = scripts.unregister(world, worker.name)
        label = f"{worker.name}: leaves" if left else f"{worker.name}: leave refused, the process ends"
        yield Move(label, _reborn(left or world, scripts, place))


# --- claims ---------------------------------------------------------------------------------------


def _claim(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """Yields a read, sent while a slot is free. The server also serves the read of a stopped process."""
    worker = world.workers[place]
    in_flight = any(held.phase == IN_FLIGHT for held in worker.hands)
    if worker.lease == WOKEN or (worker.lease == PAUSED and in_flight) or worker.stopping:
        return
    if len(worker.hands) >= scripts.setup.hands or any(_last_try(scripts, held) for held in worker.hands):
        return
    if worker.unknown and scripts.setup.rules.own_look_between_reads:
        return  # the question is on the reader's connection; the next read comes after the answer
    choices = [False]
    if not worker.hands and not scripts.unknown_entries(world, worker.name):
        choices.append(True)  # a last try: with empty hands, and after an own look that found nothing
    for on_last_attempt in choices:
        claimed = scripts.claim(world, worker.name, on_last_attempt=on_last_attempt)
        if claimed:
            after, entry = claimed
            is_strange = not scripts.setup.knows(place, entry.job)
            if is_strange and entry.put_off == MOST_PUT_OFF and scripts.is_task_known(world):
                continue  # sooner or later one that knows it is quicker
            hands = (*worker.hands, Held(entry, worker.name, IN_FLIGHT))
            label = f"{worker.name}: XREADGROUP is given entry {entry.id} (job {entry.job})"
            yield Move(label, after.with_hands(place, hands))


def _last_try(scripts: Scripts, held: Held) -> bool:
    rules = scripts.setup.rules
    return rules.last_try_alone and 0 < scripts.setup.max_crashes - 1 <= held.entry.crashes


def _own_look(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """Yields that a worker asks for its own pending entries, or gets the answer. It then holds the entries
    that it did not hold when it asked and does not hold now.
    """
    worker, rules = world.workers[place], scripts.setup.rules
    if worker.lease != FRESH or not rules.own_look:
        return
    mine = {(held.entry.id, held.entry.job) for held in worker.hands if held.phase != IN_FLIGHT}
    if worker.unknown:
        new = [entry for entry in worker.unknown if (entry.id, entry.job) not in mine]
        hands = (*worker.hands, *(Held(entry, worker.name, HELD) for entry in new))
        after = world.with_worker(place, worker._replace(unknown=())).with_hands(place, hands)
        yield Move(f"{worker.name}: answer of the own look, holds {[entry.id for entry in new]} too", after)
        return
    if rules.own_look_between_reads and any(held.phase == IN_FLIGHT for held in worker.hands):
        return
    answer = scripts.unknown_entries(world, worker.name)
    if rules.own_look_snapshot:
        answer = tuple(entry for entry in answer if (entry.id, entry.job) not in mine)
    if answer:
        after = world.with_worker(place, worker._replace(unknown=answer))
        yield Move(f"{worker.name}: asks what is pending in its name: {[e.id for e in answer]}", after)


# --- the lease ------------------------------------------------------------------------------------


def _beat(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """Yields a beat, if it changes something: the first one after a pause, or one answered `lost`."""
    worker = world.workers[place]
    count = world.beat_of(worker.name)
    if worker.lease == FRESH and count:
        return
    # A counter that nobody saw stand still need not be told from the next one.
    count += Beat(worker.name, count) in world.seen
    beaten = scripts.beat(world, worker.name, max(count, 2))
    if beaten is not None:
        yield Move(f"{worker.name}: beats", beaten.with_worker(place, worker._replace(lease=FRESH)))
        return
    careful = scripts.setup.rules.start_on_fresh_lease
    keep = tuple(held for held in worker.hands if not careful or held.phase not in NOT_STARTED)
    after = _reborn(world, scripts, place, keep, stopping=worker.stopping)
    yield Move(f"{worker.name}: beats, is told it is lost, and goes on under a new name", after)
    if scripts.setup.orphan_reads:
        after = after._replace(orphans=tuple(sorted((*after.orphans, worker.name))))
        yield Move(f"{worker.name}: the same, with its read still blocked at the server", after)


def _reborn(
    world: World, scripts: Scripts, place: int, hands: tuple[Held, ...] = (), *, stopping: bool = False
) -> World:
    """Starts a new worker session with this index: it has a new name, and beats before its first read."""
    old = world.workers[place].name
    if scripts.setup.rules.fresh_names:
        name, count = world.next_name, 1
        # What was seen of a name that is gone decides nothing any more.
        world = world._replace(
            next_name=name + 1, seen=tuple(beat for beat in world.seen if beat.name != old)
        )
    else:
        name, count = old, world.beat_of(old) + 1
    others = (beat for beat in world.beats if beat.name != name)
    world = world._replace(beats=tuple(sorted((*others, Beat(name, count)))))
    if scripts.setup.unknown is not None and scripts.setup.knows(place, scripts.setup.unknown):
        world = world._replace(announced=tuple(sorted({*world.announced, name})))
    return world.with_worker(place, Worker(name, hands=hands, stopping=stopping))


# --- an entry in hand -----------------------------------------------------------------------------


def _carry_on(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields the next steps for one entry, by its phase."""
    if held.phase == IN_FLIGHT:
        yield from _arrive(world, scripts, place, held)
    elif held.phase in {HELD, NOTED}:
        yield from _see_signal(world, place, held)
        yield from _start(world, scripts, place, held)
        yield from _line_up(world, scripts, place, held)
        yield from _give_back(world, place, held)
    elif held.phase == RUNNING:
        if scripts.setup.terminate:
            yield from _see_signal(world, place, held)
        yield from _run(world, scripts, place, held)
        yield from _give_back(world, place, held)
    elif held.phase == RETRYING:
        sent = scripts.retry(world, held)
        yield from _call(world, scripts, place, held, call="retry", sent=sent)
    elif held.phase == PUTTING_OFF:
        sent = scripts.defer(world, held)
        yield from _call(world, scripts, place, held, call="defer", sent=sent)
    elif held.phase == REPLACING:
        sent = scripts.replace(world, held)
        yield from _call(world, scripts, place, held, call="replace", sent=sent)
    elif held.phase in {RELEASING, LINING_UP}:
        sent = scripts.release(world, held)
        call = "release" if held.phase == RELEASING else "release into a line"
        yield from _call(world, scripts, place, held, call=call, sent=sent)
    else:
        outcome = OUTCOMES[held.phase]
        sent = scripts.finish(world, held, outcome)
        yield from _call(world, scripts, place, held, call=f"finish as {outcome}", sent=sent)
        if sent and world.faults_left and scripts.setup.lost_publishes:
            silent = scripts.finish(world, held, outcome, publish=False)
            assert silent
            label = f"{held.name}: finish job {held.entry.job}, PUBLISH lost"
            yield fault(label, silent.with_hands(place, _rest(world, place, held)))


def _rest(world: World, place: int, held: Held) -> tuple[Held, ...]:
    hands = list(world.workers[place].hands)
    hands.remove(held)  # one of it: where a mutant holds an entry twice, the other stays
    return tuple(hands)


def _turn(world: World, place: int, held: Held, phase: str) -> World:
    return world.with_hands(place, (*_rest(world, place, held), held._replace(phase=phase)))


def _arrive(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields the reply of a read. The worker then holds the entry, unless it holds the same one already."""
    rest = _rest(world, place, held)
    known = any(
        (other.entry.id, other.entry.job) == (held.entry.id, held.entry.job)
        for other in rest
        if other.phase != IN_FLIGHT
    )
    after = world.with_hands(place, rest) if known else _turn(world, place, held, HELD)
    yield Move(f"{held.name}: the reply with entry {held.entry.id} arrives", after)
    if world.faults_left and scripts.setup.lost_replies:
        yield fault(
            f"{held.name}: the reply with entry {held.entry.id} is lost", world.with_hands(place, rest)
        )


def _start(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields the start of a body, on a fresh lease. A job past its deadline ends instead."""
    setup, worker = scripts.setup, world.workers[place]
    if worker.stopping or (worker.lease != FRESH and setup.rules.start_on_fresh_lease):
        return
    job = held.entry.job
    if setup.expire == job and world.control != UNSENT:
        yield Move(f"{held.name}: job {job} is past its deadline", _turn(world, place, held, REVOKING))
        return
    if not setup.knows(place, job):
        yield from _leave_to_others(world, scripts, place, held)
        return
    if held.entry.crashes and held.phase == HELD and setup.rules.note_before_body:
        yield from _note(world, scripts, place, held)
        return
    after = questions.body_started(scripts.read_value(world, held), setup, held.entry)
    label = f"{held.name}: starts job {job} (entry {held.entry.id}, {held.entry.crashes} crashes)"
    yield Move(label, _turn(after, place, held, RUNNING))


def _note(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields the note that a body begins. A lost reply changes nothing: the note is sent again."""
    noted = scripts.begin(world, held)
    label = f"{held.name}: notes that job {held.entry.job} begins (entry {held.entry.id})"
    if noted is None:
        yield Move(f"{label} -> refused", world.with_hands(place, _rest(world, place, held)))
        return
    yield Move(label, _turn(noted, place, held, NOTED))
    if world.faults_left and scripts.setup.lost_replies and noted != world:
        yield fault(f"{label}, reply lost", noted)


def _leave_to_others(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields that a worker defers a job whose task it does not know, or gives the job up after no other
    worker has known the task for a while.
    """
    job, rules = held.entry.job, scripts.setup.rules
    is_known = scripts.is_task_known(world)
    if rules.unknown_asks and (is_known or held.entry.put_off < MOST_PUT_OFF):
        yield Move(f"{held.name}: puts job {job} off", _turn(world, place, held, PUTTING_OFF))
    if not rules.unknown_asks or (held.entry.put_off and not is_known):
        after = questions.given_up(world, job)
        yield Move(
            f"{held.name}: gives job {job} up, for nobody knows it", _turn(after, place, held, FAILING)
        )


def _run(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields that the body ends, fails, replaces its job, or kills its worker."""
    setup, job = scripts.setup, held.entry.job
    if setup.poison == job:
        yield Move(f"{held.name}: is killed by job {job}", _killed(world, scripts, place))
        return
    yield Move(f"{held.name}: the body of job {job} ends", _turn(world, place, held, FINISHING))
    if job == setup.fails:
        yield Move(f"{held.name}: the body of job {job} fails for good", _turn(world, place, held, FAILING))
    if job == setup.replaced and world.records[-1] is None:
        label = f"{held.name}: the body of job {job} leaves a workflow in its place"
        yield Move(label, _turn(world, place, held, REPLACING))
    if job == 0 and held.entry.retries < setup.retries:
        yield Move(f"{held.name}: the body of job {job} fails", _turn(world, place, held, RETRYING))


def _see_signal(world: World, place: int, held: Held) -> Iterator[Move]:
    """Yields that the beat's answer names a revoked job that this worker session holds."""
    worker = world.workers[place]
    if (
        worker.lease == FRESH
        and held.name == worker.name
        and Signal(held.name, held.entry.job) in world.signals
    ):
        label = f"{held.name}: its beat says that job {held.entry.job} was revoked"
        yield Move(label, _turn(world, place, held, REVOKING))


def _line_up(world: World, scripts: Scripts, place: int, held: Held) -> Iterator[Move]:
    """Yields that a worker without a thread for a job puts the job into an executor queue. It reads that
    queue only if it has a thread, so this happens once for each entry.
    """
    worker = world.workers[place]
    can_line_up = held.phase == HELD and not held.entry.in_line and not _last_try(scripts, held)
    if scripts.setup.lines and can_line_up and worker.lease == FRESH and not worker.stopping:
        label = f"{held.name}: has no thread for job {held.entry.job}, and puts it in line"
        yield Move(label, _turn(world, place, held, LINING_UP))


def _give_back(world: World, place: int, held: Held) -> Iterator[Move]:
    """Yields that a stopping worker gives a job back: one that has not started, or that runs too long."""
    if world.workers[place].stopping:
        label = f"{held.name}: is stopping and gives job {held.entry.job} back"
        yield Move(label, _turn(world, place, held, RELEASING))


def _call(
    world: World, scripts: Scripts, place: int, held: Held, *, call: str, sent: World | None
) -> Iterator[Move]:
    """Yields a call about an entry, which the worker then holds no more. `sent` is the world after the
    script, or None if the script refused.
    """
    rest = _rest(world, place, held)
    label = f"{held.name}: {call} job {held.entry.job} (entry {held.entry.id})"
    if sent is None:
        yield Move(f"{label} -> refused", world.with_hands(place, rest))
        return
    yield Move(f"{label} -> accepted", sent.with_hands(place, rest))
    if world.faults_left and scripts.setup.lost_replies and not held.again:
        yield fault(f"{label}, reply lost", sent.with_hands(place, (*rest, held._replace(again=True))))


# --- faults ---------------------------------------------------------------------------------------


def _faults(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """Yields the faults of a worker: a crash, a pause, a request to stop."""
    setup, worker = scripts.setup, world.workers[place]
    if not world.faults_left:
        return
    matters = bool(worker.hands or worker.unknown) or _has_a_stake(world, worker.name)
    if setup.crashes and (matters or setup.orphan_reads):
        killed = _killed(world, scripts, place)
        yield fault(f"{worker.name}: crashes", killed)
        if setup.orphan_reads:
            orphans = tuple(sorted((*killed.orphans, worker.name)))
            yield fault(
                f"{worker.name}: crashes, its read still blocked at the server",
                killed._replace(orphans=orphans),
            )
    if setup.pauses and worker.hands and worker.lease == FRESH:
        paused = world.with_worker(place, worker._replace(lease=PAUSED))
        yield fault(f"{worker.name}: is stopped for longer than its lease", paused)
    if setup.stops and not worker.stopping and worker.lease == FRESH:
        stopping = world.with_worker(place, worker._replace(stopping=True))
        yield fault(f"{worker.name}: is told to stop", stopping)


def _has_a_stake(world: World, name: int) -> bool:
    return any(line.name == name for line in world.pending) or any(owed.by == name for owed in world.owed)


def _killed(world: World, scripts: Scripts, place: int) -> World:
    """Kills a worker process with all it held and owed. Its keys stay, and another process replaces it."""
    name = world.workers[place].name
    world = world._replace(owed=tuple(owed for owed in world.owed if owed.by != name))
    return _reborn(world, scripts, place)
