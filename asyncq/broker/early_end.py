"""The end of a job that its worker does not bring about: what the script `revoke` is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import wire
from asyncq.broker.schema.keys import DAY_MS, GROUP, result_ttl_ms

if TYPE_CHECKING:
    from asyncq.broker.schema.keys import Keys


class EarlyEnd(NamedTuple):
    """One call of the script."""

    keys: tuple[str | bytes, ...]
    arguments: tuple[Any, ...]


def early_end(
    keys: Keys,
    id: bytes,
    letter: str,
    outcome: bytes,
    result_ttl: float,
    *,
    mark: str,
    reason: str = "",
    parents: bool = False,
) -> EarlyEnd:
    """Makes the call that ends a job.

    Args:
        keys: of its shard.
        id: of the job; it may be no text.
        letter: of the state in which it ends.
        outcome: its outcome.
        result_ttl: how long that is kept, in seconds.
        mark: of the job, if a worker has it; empty: then it goes on.
        reason: why, for whoever waits.
        parents: whether to answer also which jobs it waits for.
    """
    return EarlyEnd(
        (keys.records.encode() + id, keys.delayed),
        (
            *(keys.space, id, GROUP, letter, outcome, result_ttl_ms(result_ttl), wire.PUSH_LIMIT),
            *(keys.marks, mark, DAY_MS, reason.encode("utf-8", "replace"), "1" if parents else ""),
        ),
    )
