"""Users of the server with the least rights, for `asyncq doctor --acl`, filled in for a namespace."""

from __future__ import annotations

from asyncq.broker.preflight import rights

_EVERY = ("client|setname", "evalsha", "script|load")


def users(namespace: str, kind: str = "", *, replicas: bool = False) -> list[str]:
    """Returns an `ACL SETUSER` line for each kind of user: producer, worker and operator; with Sentinels also
    the user with which asyncq asks them.

    Args:
        namespace: of the app.
        kind: `cluster`, `sentinel`, or empty for one server.
        replicas: whether its enqueues wait for replicas.
    """
    more = rights.REPLICAS if replicas else frozenset[str]()
    needed_by = {
        "producer": rights.CLIENT | rights.DEAD_LETTERS | more,
        "worker": rights.WORKER | more,
        "operator": rights.CLIENT | rights.DEAD_LETTERS | rights.OPERATOR | more,
    }
    if kind == "cluster":
        needed_by = {user: rights.on_cluster(needed) for user, needed in needed_by.items()}
        needed_by["worker"] |= rights.CLUSTER_WORKER
    patterns = f"resetchannels &{{{namespace}:* ~{{{namespace}:*"
    lines = [_line(f"{namespace}-{user}", patterns, needed, *_EVERY) for user, needed in needed_by.items()]
    if kind == "sentinel":
        channel = f"resetchannels &{rights.SENTINEL_CHANNEL}"
        lines.append(_line(f"{namespace}-sentinel", channel, rights.SENTINEL, "client|setname", "ping"))
    return lines


def _line(user: str, patterns: str, needed: frozenset[str], *more: str) -> str:
    return f"user {user} on >PASSWORD {patterns} -@all " + " ".join(
        f"+{right}" for right in sorted({*needed, *more})
    )
