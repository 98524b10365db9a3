"""A move: what happened, in words, and the world after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from model.world import World


class Move(NamedTuple):
    """One step."""

    label: str
    world: World
    is_fault: bool = False


def fault(label: str, world: World) -> Move:
    """A step that costs the world one of its faults."""
    return Move(label, world._replace(faults_left=world.faults_left - 1), is_fault=True)
