"""Whoever relays: reads an outbox, tells its letters one by one, and deletes each when that was answered.

A client, a worker, any process; how long it takes, and what happens meanwhile, is left open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.move import Move, fault
from model.world import Relay, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.scripts import Scripts


def moves(world: World, scripts: Scripts) -> Iterator[Move]:
    """Every move of those that relay."""
    for place, relay in enumerate(world.relays):
        if relay in world.relays[:place]:
            continue  # it could do no more than the other
        if not relay.letters:
            yield from _read(world, place)
            continue
        yield from _carry(world, scripts, place)
        if world.faults_left and scripts.setup.crashes:
            yield fault(f"a relay dies with {_named(relay)} in hand", world.with_relay(place, Relay()))


def _read(world: World, place: int) -> Iterator[Move]:
    for shard, letters in enumerate(world.outboxes):
        if letters:
            relay = Relay(shard, letters)
            yield Move(f"a relay reads {_named(relay)}", world.with_relay(place, relay))


def _carry(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """The next half of the first letter: tell it, delete it."""
    relay, setup = world.relays[place], scripts.setup
    tells = relay.half != setup.rules.told_before_deleted
    letter = relay.letters[0]
    what = f"{letter.id} of shard {relay.shard}"
    after = relay._replace(half=True) if not relay.half else _rest(relay)
    if not tells:
        kept = tuple(other for other in world.outboxes[relay.shard] if other.id != letter.id)
        yield Move(f"a relay deletes {what}", world.with_outbox(relay.shard, kept).with_relay(place, after))
        return
    told = scripts.tell(world, relay.shard, letter)
    yield Move(f"a relay tells {what}", told.with_relay(place, after))
    if world.faults_left and setup.lost_replies:
        yield fault(f"a relay tells {what}, reply lost", told)
        failed = Relay() if setup.rules.relay_in_order else _rest(relay)
        yield fault(f"a relay cannot tell {what}", world.with_relay(place, failed))


def _rest(relay: Relay) -> Relay:
    rest = relay.letters[1:]
    return Relay(relay.shard, rest) if rest else Relay()


def _named(relay: Relay) -> str:
    return f"{[letter.id for letter in relay.letters]} of shard {relay.shard}"
