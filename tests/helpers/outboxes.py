"""The outboxes of all shards, as a test sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq import AsyncQ


async def are_empty(raw: Any, app: AsyncQ) -> bool:
    """Returns whether no shard has anything for another one."""
    return not any([await raw.xlen(keys.outbox) for keys in app.sessions.shards])
