"""Builds the call of the script `revoke`, which ends a job without its worker: the job is revoked or expired,
or its message is lost. A pure function; clients (`Broker`) and workers (`Consumer`) send the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import wire
from asyncq.broker.schema.keys import DAY_MS, GROUP, name_to, result_ttl_ms

if TYPE_CHECKING:
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.signing.seal import Seal


class EarlyEnd(NamedTuple):
    """The KEYS and ARGV of one call of the script."""

    keys: tuple[str | bytes, ...]
    arguments: tuple[Any, ...]


def early_end(
    keys: Keys,
    id: str,
    letter: str,
    outcome: bytes,
    result_ttl: float,
    *,
    signal: str,
    reason: str = "",
    parents: bool = False,
    seal: Seal | None,
) -> EarlyEnd:
    """Makes the call that ends a job.

    Args:
        keys: of its shard.
        id: of the job, which `name_to` makes bytes of: they may be no text.
        letter: the status code with which it ends.
        outcome: its outcome, encoded.
        result_ttl: how long the outcome is kept, in seconds.
        signal: the revocation signal for a job that a worker has; empty: such a job goes on.
        reason: why, for whoever waits for the job.
        parents: whether to answer also which jobs it waits for.
        seal: of the session.
    """
    key, why = name_to(id), reason.encode("utf-8", "replace")
    if seal is not None:
        outcome = seal.outcome(id, letter, outcome)
        why = seal.reason(id, why) if why else why
    return EarlyEnd(
        (keys.records.encode() + key, keys.delayed),
        (
            *(keys.key_prefix, key, GROUP, letter, outcome, result_ttl_ms(result_ttl), wire.PUSH_LIMIT),
            *(keys.signals, signal, DAY_MS, why, "1" if parents else ""),
        ),
    )
