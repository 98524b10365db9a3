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
    for index, forwarder in enumerate(world.forwarders):
        if forwarder in world.forwarders[:index]:
            continue  # an equal forwarder comes before it, and has the same moves
        if not forwarder.messages:
            yield from _read(world, index)
            continue
        yield from _deliver_or_delete(world, scripts, index)
        if world.faults_left and scripts.setup.crashes:
            yield fault(
                f"a forwarder dies with {_named(forwarder)}", world.with_forwarder(index, Forwarder())
            )


def _read(world: World, index: int) -> Iterator[Move]:
    for shard, messages in enumerate(world.outboxes):
        if messages:
            forwarder = Forwarder(shard, messages)
            yield Move(f"a forwarder reads {_named(forwarder)}", world.with_forwarder(index, forwarder))


def _deliver_or_delete(world: World, scripts: Scripts, index: int) -> Iterator[Move]:
    """Yields the next step for the first entry: to deliver it, or to delete it."""
    forwarder, setup = world.forwarders[index], scripts.setup
    delivers = forwarder.half != setup.rules.delivered_before_deleted
    message = forwarder.messages[0]
    what = f"{message.id} of shard {forwarder.shard}"
    after = forwarder._replace(half=True) if not forwarder.half else _rest(forwarder)
    if not delivers:
        kept = tuple(other for other in world.outboxes[forwarder.shard] if other.id != message.id)
        yield Move(
            f"a forwarder deletes {what}",
            world.with_outbox(forwarder.shard, kept).with_forwarder(index, after),
        )
        return
    delivered = scripts.deliver(world, forwarder.shard, message)
    yield Move(f"a forwarder delivers {what}", delivered.with_forwarder(index, after))
    if world.faults_left and setup.lost_replies:
        yield fault(f"a forwarder delivers {what}, reply lost", delivered)
        failed = Forwarder() if setup.rules.forwarder_in_order else _rest(forwarder)
        yield fault(f"a forwarder cannot deliver {what}", world.with_forwarder(index, failed))


def _rest(forwarder: Forwarder) -> Forwarder:
    rest = forwarder.messages[1:]
    return Forwarder(forwarder.shard, rest) if rest else Forwarder()


def _named(forwarder: Forwarder) -> str:
    return f"{[message.id for message in forwarder.messages]} of shard {forwarder.shard}"
