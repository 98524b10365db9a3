"""Builds the call of the script `revoke`, which ends a job without its worker: the job is revoked or expired,
or its message is lost. A pure function; clients (`Broker`) and workers (`Consumer`) send the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import wire
from asyncq.broker.schema.keys import DAY_MS, GROUP, result_ttl_ms

if TYPE_CHECKING:
    from asyncq.broker.schema.keys import Keys


class EarlyEnd(NamedTuple):
    """The KEYS and ARGV of one call of the script."""

    keys: tuple[str | bytes, ...]
    arguments: tuple[Any, ...]


def early_end(
    keys: Keys,
    id: bytes,
    letter: str,
    outcome: bytes,
    result_ttl: float,
    *,
    signal: str,
    reason: str = "",
    parents: bool = False,
) -> EarlyEnd:
    """Makes the call that ends a job.

    Args:
        keys: of its shard.
        id: of the job; the bytes may be no text.
        letter: the status code with which it ends.
        outcome: its outcome, encoded.
        result_ttl: how long the outcome is kept, in seconds.
        signal: the revocation signal for a job that a worker has; empty: such a job goes on.
        reason: why, for whoever waits for the job.
        parents: whether to answer also which jobs it waits for.
    """
    return EarlyEnd(
        (keys.records.encode() + id, keys.delayed),
        (
            *(keys.key_prefix, id, GROUP, letter, outcome, result_ttl_ms(result_ttl), wire.PUSH_LIMIT),
            *(keys.signals, signal, DAY_MS, reason.encode("utf-8", "replace"), "1" if parents else ""),
        ),
    )
