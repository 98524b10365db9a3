"""A move: one step of the model, with a label in words and the world after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from model.world import World


class Move(NamedTuple):
    """One step of the model."""

    label: str
    world: World
    is_fault: bool = False


def fault(label: str, world: World) -> Move:
    """Makes a move that uses one of the world's faults."""
    return Move(label, world._replace(faults_left=world.faults_left - 1), is_fault=True)
