"""Forwarders: each reads an outbox, delivers its entries in order, and deletes an entry after its answer.

A forwarder may be part of a client or a worker. How long it takes, and what happens meanwhile, is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.move import Move, fault
from model.world import Forwarder, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.scripts import Scripts


def moves(world: World, scripts: Scripts) -> Iterator[Move]:
    """Yields every move of the forwarders."""
    for place, forwarder in enumerate(world.forwarders):
        if forwarder in world.forwarders[:place]:
            continue  # an equal forwarder comes before it, and has the same moves
        if not forwarder.letters:
            yield from _read(world, place)
            continue
        yield from _carry(world, scripts, place)
        if world.faults_left and scripts.setup.crashes:
            yield fault(
                f"a forwarder dies with {_named(forwarder)} in hand", world.with_forwarder(place, Forwarder())
            )


def _read(world: World, place: int) -> Iterator[Move]:
    for shard, letters in enumerate(world.outboxes):
        if letters:
            forwarder = Forwarder(shard, letters)
            yield Move(f"a forwarder reads {_named(forwarder)}", world.with_forwarder(place, forwarder))


def _carry(world: World, scripts: Scripts, place: int) -> Iterator[Move]:
    """Yields the next step for the first entry: to deliver it, or to delete it."""
    forwarder, setup = world.forwarders[place], scripts.setup
    tells = forwarder.half != setup.rules.told_before_deleted
    letter = forwarder.letters[0]
    what = f"{letter.id} of shard {forwarder.shard}"
    after = forwarder._replace(half=True) if not forwarder.half else _rest(forwarder)
    if not tells:
        kept = tuple(other for other in world.outboxes[forwarder.shard] if other.id != letter.id)
        yield Move(
            f"a forwarder deletes {what}",
            world.with_outbox(forwarder.shard, kept).with_forwarder(place, after),
        )
        return
    told = scripts.tell(world, forwarder.shard, letter)
    yield Move(f"a forwarder tells {what}", told.with_forwarder(place, after))
    if world.faults_left and setup.lost_replies:
        yield fault(f"a forwarder tells {what}, reply lost", told)
        failed = Forwarder() if setup.rules.forwarder_in_order else _rest(forwarder)
        yield fault(f"a forwarder cannot tell {what}", world.with_forwarder(place, failed))


def _rest(forwarder: Forwarder) -> Forwarder:
    rest = forwarder.letters[1:]
    return Forwarder(forwarder.shard, rest) if rest else Forwarder()


def _named(forwarder: Forwarder) -> str:
    return f"{[letter.id for letter in forwarder.letters]} of shard {forwarder.shard}"
