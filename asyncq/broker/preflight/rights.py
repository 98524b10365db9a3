"""What the server's user must be allowed: asked when an app opens and when a worker starts.

What a user may not do is refused in the middle of the work otherwise, and a script that is refused half-way
keeps what it wrote. The server is asked by a script, with `redis.acl_check_cmd`: that needs no right of its
own, calls nothing and leaves no line in ACL LOG. `docs/acl` says the same as this file, for an administrator.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from asyncq.broker.transport.server_error import ServerError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys

_CLIENT = (
    "append del hgetall hincrby hmget hset mget pexpire ping publish sadd set setrange smembers subscribe "
    "time unsubscribe xadd xdel xinfo|consumers xlen xpending xrange zadd zcard zrange zrem"
)
_WORKER = (
    "hdel hget hlen info srem xack xgroup|create xgroup|delconsumer xreadgroup xrevrange xtrim "
    "zcount zmscore zrangebyscore zscore"
)

CLIENT: frozenset[str] = frozenset(_CLIENT.split())
"""Rights without which a client cannot do its work. EVALSHA and SCRIPT LOAD need no question: the question is
a script. Looking at dead letters needs more, and says so when it is done."""

WORKER: frozenset[str] = CLIENT | frozenset(_WORKER.split())

_EVERYWHERE = ("mget", "del")
"""Asked of every kind of key, for reading and for writing; any other command of one kind only."""
_NO_KEY = {"info", "ping", "time", "unsubscribe"}
_CHANNEL = {"publish", "subscribe"}


@dataclass(frozen=True, slots=True)
class RequiredCommand:
    """A call that must be allowed.

    Attributes:
        right: what allows it, as ACL SETUSER names it.
        place: the key or channel, with the `~` or `&` of ACL SETUSER before it; empty if it has none.
    """

    right: str
    place: str

    @property
    def words(self) -> str:
        """The command and as many of its arguments as the server needs to find the key."""
        name = self.right.upper().replace("|", " ")
        if self.right == "xreadgroup":
            return f"{name} GROUP g c STREAMS {self.place[1:]} >"
        return f"{name} {self.place[1:] or '0'}"


def of_client(keys: Keys) -> list[RequiredCommand]:
    """What every client does. Of no particular queue: which it will need nobody knows yet."""
    return _calls(CLIENT, _kept(keys), (keys.replies, keys.events))


def of_worker(keys: Keys, streams: Iterable[str]) -> list[RequiredCommand]:
    """What a worker of these streams does; its tasks may be clients, too."""
    return _calls(
        WORKER, (*_kept(keys), *streams), (keys.replies, keys.wake, keys.new_levels, keys.marks, keys.events)
    )


def _kept(keys: Keys) -> list[str]:
    """A key of every kind, but for the queues."""
    others = {"namespace", "shard", "tag", "space", "queues", "replies", "wake", "new_levels", "events"}
    return [getattr(keys, field.name) for field in fields(keys) if field.name not in others]


def _calls(rights: frozenset[str], kept: Sequence[str], channels: tuple[str, ...]) -> list[RequiredCommand]:
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
    """Sees to it that the user may make these calls.

    Raises:
        ServerError: NOPERM. The first line says what the user lacks, the second what mends it.
        BrokerUnavailable: no answer within the operation timeout.
    """
    refused = await commands.run(commands.shards[0], "rights", (), [call.words for call in calls])
    if refused:
        user = commands.address.options.get("username") or "default"
        words = {call.decode() for call in refused}
        raise ServerError(complaint(user, commands.settings.namespace, calls, words))


def complaint(user: str, namespace: str, calls: Collection[RequiredCommand], refused: Collection[str]) -> str:
    """What the user lacks, in one line, and in another what mends it.

    Args:
        user: its name at the server.
        namespace: of the app.
        calls: those that were asked for.
        refused: the words of those that are not allowed; at least one.
    """
    granted = [call for call in calls if call.words not in refused]
    denied = [call for call in calls if call.words in refused]
    held = {call.right for call in granted}
    # A place where nothing is allowed is closed, whatever the command. One where a command is refused that is
    # allowed elsewhere is closed to it (a pattern for reading only).
    closed = {call.place for call in calls} - {call.place for call in granted} - {""}
    closed |= {call.place for call in denied if call.right in held}
    lacking = [f"+{right}" for right in sorted({call.right for call in denied if call.place not in closed})]
    signs = {place[0] for place in closed}
    if len(lacking) > 1:
        signs.add("~")  # all that write, say: then it is the keys that may only be read
    patterns = [f"{sign}{{{namespace}:*" for sign in sorted(signs)]
    shown = [*lacking, *sorted(closed)]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return (
        f"NOPERM user {user!r} lacks {' '.join(shown[:4])}{more}\n"
        f"ACL SETUSER {user} {' '.join([*patterns, *lacking])}"
    )
