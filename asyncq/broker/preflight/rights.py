"""Checks that the server has all commands that asyncq needs, and that its user may call them. Runs on the
session's loop, when an app opens (`of_client`) and when a worker starts (`of_worker`).

Without this check, the server would refuse a command in the middle of the work, and a script that is refused
half-way keeps what it wrote. A script asks the server, with `redis.acl_check_cmd`: that needs no right of its
own, calls nothing and leaves no line in ACL LOG. A new command in Python or in a script must be added here
and to `docs/acl`, which says the same for an administrator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from asyncq.broker.transport.server_error import ServerError, Unfit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.transport.connection import Address

_CLIENT = (
    "append del hgetall hincrby hmget hset mget pexpire ping publish sadd set setrange smembers subscribe "
    "time unsubscribe xadd xdel xinfo|consumers xlen xpending xrange zadd zcard zrange zrem"
)
_WORKER = (
    "hdel hget hlen info srem xack xgroup|create xgroup|delconsumer xreadgroup xrevrange xtrim "
    "zcount zrangebyscore zscore"
)

CLIENT: frozenset[str] = frozenset(_CLIENT.split())
"""The rights without which a client cannot work. EVALSHA and SCRIPT LOAD need no check: the check itself is a
script. Reading dead letters needs more rights, and its own error names them."""

DEAD_LETTERS: frozenset[str] = frozenset({"xrevrange"})
"""What reading dead letters needs beside the rights of a client."""

REPLICAS: frozenset[str] = frozenset({"exists", "wait"})
"""What every app with the setting `replicas` needs beside the rights of a client."""

_OPERATOR = "dbsize getrange hlen scan zcount zrandmember zrank zscore"
OPERATOR: frozenset[str] = frozenset(_OPERATOR.split())
"""What `app.control` needs beside these. A call that lacks one is refused, and says which."""

WORKER: frozenset[str] = CLIENT | frozenset(_WORKER.split())
"""The rights without which a worker cannot work; its tasks may be clients, too."""

_SHARDED = {"publish": "spublish", "subscribe": "ssubscribe", "unsubscribe": "sunsubscribe"}
"""What a Cluster has in place of some commands."""
_TOPOLOGY: frozenset[str] = frozenset({"cluster|info", "cluster|nodes", "cluster|slots"})
"""What everybody needs on a Cluster, to find the nodes."""
CLUSTER_WORKER: frozenset[str] = frozenset({"scan"})
"""What a worker needs besides on a Cluster, to find jobs whose parents were lost."""
SENTINEL: frozenset[str] = frozenset({"sentinel|get-master-addr-by-name", "subscribe"})
"""The rights without which a client cannot ask a Sentinel."""
SENTINEL_CHANNEL = "+switch-master"
"""The channel of a Sentinel that asyncq listens to."""

_EVERYWHERE = ("mget", "del")
"""Checked for every kind of key, one for reading and one for writing. Any other command is checked for one
key only."""
_NO_KEY = {"info", "ping", "time", "unsubscribe", "sunsubscribe", "scan", "wait", *_TOPOLOGY}
_CHANNEL = {"publish", "subscribe", "spublish", "ssubscribe"}
_UNKNOWN = "?"
"""Stands before a call of a command that the server does not know, in the answer of the script."""


def on_cluster(rights: frozenset[str]) -> frozenset[str]:
    """Returns what takes the place of some rights on a Cluster."""
    return frozenset(_SHARDED.get(right, right) for right in rights) | _TOPOLOGY


@dataclass(frozen=True, slots=True)
class RequiredCommand:
    """A call that the user must be allowed to make.

    Attributes:
        right: the right that it needs, as ACL SETUSER names it.
        pattern: the key or channel, with the `~` or `&` of ACL SETUSER before it; empty if it has none.
    """

    right: str
    pattern: str

    @property
    def words(self) -> str:
        """The command and as many of its arguments as the server needs to find the key."""
        name = self.right.upper().replace("|", " ")
        if self.right == "xreadgroup":
            return f"{name} GROUP g c STREAMS {self.pattern[1:]} >"
        return f"{name} {self.pattern[1:] or '0'}"


def of_client(keys: Keys, *, replicas: bool = False, is_cluster: bool = False) -> list[RequiredCommand]:
    """Returns the calls that every client makes. Names no queue: nobody knows yet which it will need.

    Args:
        keys: of a shard.
        replicas: whether it waits for replicas.
        is_cluster: whether the server is a Cluster.
    """
    needed = CLIENT | REPLICAS if replicas else CLIENT
    return _calls(on_cluster(needed) if is_cluster else needed, _kept(keys), (keys.replies, keys.events))


def of_worker(keys: Keys, streams: Iterable[str], *, is_cluster: bool = False) -> list[RequiredCommand]:
    """Returns the calls that a worker of these streams makes."""
    return _calls(
        on_cluster(WORKER) | CLUSTER_WORKER if is_cluster else WORKER,
        (*_kept(keys), *streams),
        (keys.replies, keys.wake, keys.new_levels, keys.signals, keys.events, keys.schedules_wake),
    )


def _kept(keys: Keys) -> list[str]:
    """Returns a key of every kind but the queues."""
    channels = {"replies", "wake", "new_levels", "events", "schedules_wake"}
    others = {"namespace", "shard", "tag", "key_prefix", "queues", *channels}
    return [getattr(keys, field.name) for field in fields(keys) if field.name not in others]


def _calls(rights: frozenset[str], kept: Sequence[str], channels: tuple[str, ...]) -> list[RequiredCommand]:
    """Returns a call for each right, for each kind of key as `_EVERYWHERE` says, and for each channel."""
    keyed = rights - _NO_KEY - _CHANNEL
    return [
        *(RequiredCommand(right, "") for right in sorted(rights & _NO_KEY)),
        *(RequiredCommand(right, f"~{kept[-1]}") for right in sorted(keyed.difference(_EVERYWHERE))),
        *(RequiredCommand(right, f"~{key}") for right in _EVERYWHERE for key in kept),
        *(
            RequiredCommand(right, f"&{channel}")
            for right in sorted(rights & _CHANNEL)
            for channel in channels
        ),
    ]


async def require(commands: Commands, calls: Sequence[RequiredCommand]) -> None:
    """Checks that the user may make these calls.

    Raises:
        Unfit: the server does not know a command.
        ServerError: NOPERM. The first line says what the user lacks, the second which command grants it.
        BrokerUnavailable: no answer within the operation timeout.
    """
    refused = await commands.run(commands.shards[0], "rights", (), [call.words for call in calls])
    words = {call.decode() for call in refused}
    if unknown := {call.words for call in calls} & {word[1:] for word in words if word[0] == _UNKNOWN}:
        names = sorted({call.right.upper().replace("|", " ") for call in calls if call.words in unknown})
        raise _without(commands.address, names)
    if refused:
        user = _user(commands.address)
        raise ServerError(complaint(user, commands.settings.namespace, calls, words))


def explained(error: ServerError, address: Address) -> ServerError:
    """Returns an error of a command without which nothing can be checked (EVALSHA, SCRIPT LOAD, SUBSCRIBE),
    with what to do about it in a second line. Returns any other error as it is.
    """
    if found := re.search(r"unknown (?:sub)?command ['`]([\w|]+)", str(error)):
        return _without(address, [found[1].upper()])
    if found := re.search(r"has no permissions to run the '([\w|]+)' command", str(error)):
        return ServerError(f"{error}\nACL SETUSER {_user(address)} +{found[1]}")
    return error


def _without(address: Address, names: Sequence[str]) -> Unfit:
    """Makes the error for a server that does not know some commands."""
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return Unfit(
        f"{address.safe_url}: the server does not know {shown}, which asyncq needs\n"
        "Remove the rename-command line for it from the server's configuration, or use a service that has it"
    )


def _user(address: Address) -> str:
    return str(address.options.get("username") or "default")


def complaint(user: str, namespace: str, calls: Collection[RequiredCommand], refused: Collection[str]) -> str:
    """Returns what the user lacks, in one line, and in another the command that grants it.

    Args:
        user: its name at the server.
        namespace: of the app.
        calls: all calls that were checked.
        refused: the `words` of those that are not allowed; at least one.
    """
    granted = [call for call in calls if call.words not in refused]
    denied = [call for call in calls if call.words in refused]
    held = {call.right for call in granted}
    # A key is closed if no command is allowed on it, or if a command is refused on it that is allowed on
    # another key (a key pattern for reading only). For a closed key the user lacks the pattern and not the
    # command.
    closed = {call.pattern for call in calls} - {call.pattern for call in granted} - {""}
    closed |= {call.pattern for call in denied if call.right in held}
    lacking = [f"+{right}" for right in sorted({call.right for call in denied if call.pattern not in closed})]
    signs = {pattern[0] for pattern in closed}
    if len(lacking) > 1:
        signs.add("~")  # several commands, all that write, say: the key pattern may be for reading only
    patterns = [f"{sign}{{{namespace}:*" for sign in sorted(signs)]
    shown = [*lacking, *sorted(closed)]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return (
        f"NOPERM user {user!r} lacks {' '.join(shown[:4])}{more}\n"
        f"ACL SETUSER {user} {' '.join([*patterns, *lacking])}"
    )
