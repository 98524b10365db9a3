"""A dead worker's jobs, taken by another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.claiming import ClaimingConsumer


async def take(consumer: ClaimingConsumer, stream: str, dead: str, seen: str | None) -> tuple[int, int, bool]:
    """Takes what a dead worker session held: how many jobs go back, how many end, whether there are more."""
    taken = await consumer.claims.take(stream, dead, seen)
    return taken.put_back, taken.revoked + len(taken.lost), taken.has_more
