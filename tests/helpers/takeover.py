"""Recovery at the level of the scripts: a consumer takes the jobs of a dead worker session."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.claiming import ClaimingConsumer


async def take(consumer: ClaimingConsumer, stream: str, dead: str, seen: str | None) -> tuple[int, int, bool]:
    """Takes a dead session's claims. Returns how many jobs go back, how many end, and if more are left."""
    taken = await consumer.claims.take(stream, dead, seen)
    return taken.put_back, taken.revoked + len(taken.lost), taken.has_more
