"""Users of the server with the least rights, for `asyncq doctor --acl`, filled in for a namespace."""

from __future__ import annotations

from asyncq.broker.preflight import rights

_EVERY = ("client|setname", "evalsha", "script|load")


def users(namespace: str) -> list[str]:
    """Returns an `ACL SETUSER` line for each kind of user: producer, worker and operator.

    Args:
        namespace: of the app.
    """
    kinds = {
        "producer": rights.CLIENT | rights.DEAD_LETTERS,
        "worker": rights.WORKER,
        "operator": rights.CLIENT | rights.DEAD_LETTERS | rights.OPERATOR,
    }
    patterns = f"resetchannels &{{{namespace}:* ~{{{namespace}:*"
    return [
        f"user {namespace}-{kind} on >PASSWORD {patterns} -@all "
        + " ".join(f"+{right}" for right in sorted({*needed, *_EVERY}))
        for kind, needed in kinds.items()
    ]
