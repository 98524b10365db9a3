"""The data of the fake server, and the commands that asyncq sends or calls in its scripts.

Each command is a method: `SET` is `set_`, `XGROUP CREATE` is `xgroup`. It takes its arguments as bytes and
returns the reply of a server: None, an int, bytes, `OK`, a list, a set or a dict. Commands and options that
asyncq does not use are not here, and sending one gives an error. The caller holds the lock of `scripts.Lua`.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

from helpers.fake_broker.streams import Group, Stream, parse

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Status(bytes):
    """A reply that is no data, such as OK."""


OK = Status(b"OK")


class Scores(list[Any]):
    """Members with their scores. A client gets a pair for each, a script one flat list."""


class ErrorReply(Exception):
    """An error reply of the server. It begins with its code."""


class Data:
    """One database.

    Args:
        publish: takes a channel and a message; returns how many receivers there were.

    Attributes:
        ahead: seconds by which the server's clock is ahead.
        values: by key: bytes, a dict (a hash), a set, a `SortedSet` or a `Stream`.
    """

    def __init__(self, publish: Callable[[bytes, bytes], int]) -> None:
        self.ahead = 0.0
        self.values: dict[bytes, Any] = {}
        self._expire_at: dict[bytes, int] = {}
        self._publish = publish

    def call(self, command: list[bytes]) -> Any:
        """Runs a command.

        Raises:
            ErrorReply: the server refuses it.
        """
        name = command[0].decode().upper()
        method = _COMMANDS.get(name)
        if method is None:
            raise ErrorReply(f"ERR unknown command '{name}'")
        return method(self, *command[1:])

    @property
    def now(self) -> int:
        """The server's time, in ms since the epoch."""
        return int((time.time() + self.ahead) * 1000)

    def living(self) -> list[bytes]:
        """Returns the keys that have not expired."""
        return [key for key in list(self.values) if self._alive(key)]

    # -- any key --

    def _alive(self, key: bytes) -> bool:
        expire_at = self._expire_at.get(key)
        if expire_at is not None and expire_at <= self.now:
            self._drop(key)
        return key in self.values

    def _drop(self, key: bytes) -> bool:
        self._expire_at.pop(key, None)
        return self.values.pop(key, None) is not None

    def _get(self, key: bytes, kind: type[T]) -> T | None:
        value = self.values[key] if self._alive(key) else None
        if value is not None and type(value) is not kind:
            raise ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _make(self, key: bytes, kind: type[T]) -> T:
        value = self._get(key, kind)
        if value is None:
            value = self.values[key] = kind()
        return value

    def _drop_if_empty(self, key: bytes) -> None:
        if not self.values[key]:
            self._drop(key)

    def del_(self, *keys: bytes) -> int:
        return sum(self._drop(key) for key in keys if self._alive(key))

    def pexpire(self, key: bytes, milliseconds: bytes) -> int:
        if not self._alive(key):
            return 0
        self._expire_at[key] = self.now + int(milliseconds)
        return 1

    def dbsize(self) -> int:
        return len(self.living())

    def scan(self, _cursor: bytes, _match: bytes, pattern: bytes, _count: bytes, _number: bytes) -> list[Any]:
        """Returns all keys at once. The pattern must be a text before an asterisk."""
        return [b"0", [key for key in self.living() if key.startswith(pattern.removesuffix(b"*"))]]

    def pttl(self, key: bytes) -> int:
        if not self._alive(key):
            return -2
        expire_at = self._expire_at.get(key)
        return -1 if expire_at is None else expire_at - self.now

    def time(self) -> list[bytes]:
        seconds, rest = divmod(time.time() + self.ahead, 1)
        return [b"%d" % seconds, b"%d" % (rest * 1_000_000)]

    def publish(self, channel: bytes, message: bytes) -> int:
        return self._publish(channel, message)

    def config(self, _get: bytes, *names: bytes) -> dict[bytes, bytes]:
        options = {
            b"maxmemory": b"0",
            b"maxmemory-policy": b"noeviction",
            b"save": b"",
            b"appendonly": b"yes",
        }
        return {name: options[name] for name in names if name in options}

    # -- strings --

    def mget(self, *keys: bytes) -> list[bytes | None]:
        values = [self.values[key] if self._alive(key) else None for key in keys]
        return [value if type(value) is bytes else None for value in values]

    def set_(self, key: bytes, value: bytes, *options: bytes) -> Status | bytes | None:
        answers_old = b"GET" in options
        old = self._get(key, bytes) if answers_old else None
        is_alive = self._alive(key)
        if (b"NX" in options and is_alive) or (b"XX" in options and not is_alive):
            return old
        self._drop(key)
        self.values[key] = value
        if b"PX" in options:
            self._expire_at[key] = self.now + int(options[options.index(b"PX") + 1])
        return old if answers_old else OK

    def append(self, key: bytes, value: bytes) -> int:
        new = (self._get(key, bytes) or b"") + value
        self.values[key] = new
        return len(new)

    def getrange(self, key: bytes, start: bytes, stop: bytes) -> bytes:
        return (self._get(key, bytes) or b"")[int(start) : int(stop) + 1]

    def setrange(self, key: bytes, start: bytes, value: bytes) -> int:
        old, first = self._get(key, bytes) or b"", int(start)
        new = old[:first].ljust(first, b"\0") + value + old[first + len(value) :]
        self.values[key] = new
        return len(new)

    # -- hashes --

    def hset(self, key: bytes, *pairs: bytes) -> int:
        if len(pairs) % 2 or not pairs:
            raise ErrorReply("ERR wrong number of arguments for 'hset' command")
        value = self._make(key, dict)
        before = len(value)
        value.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(value) - before

    def hget(self, key: bytes, name: bytes) -> bytes | None:
        return (self._get(key, dict) or {}).get(name)

    def hmget(self, key: bytes, *names: bytes) -> list[bytes | None]:
        value = self._get(key, dict) or {}
        return [value.get(name) for name in names]

    def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        return dict(self._get(key, dict) or {})

    def hlen(self, key: bytes) -> int:
        return len(self._get(key, dict) or {})

    def hdel(self, key: bytes, *names: bytes) -> int:
        value = self._get(key, dict)
        if value is None:
            return 0
        gone = sum(value.pop(name, None) is not None for name in names)
        self._drop_if_empty(key)
        return gone

    def hincrby(self, key: bytes, name: bytes, by: bytes) -> int:
        value = self._make(key, dict)
        new = int(value.get(name, 0)) + int(by)
        value[name] = b"%d" % new
        return new

    # -- sets --

    def sadd(self, key: bytes, *members: bytes) -> int:
        value = self._make(key, set)
        before = len(value)
        value.update(members)
        return len(value) - before

    def srem(self, key: bytes, *members: bytes) -> int:
        value = self._get(key, set)
        if value is None:
            return 0
        before = len(value)
        value.difference_update(members)
        after = len(value)
        self._drop_if_empty(key)
        return before - after

    def smembers(self, key: bytes) -> set[bytes]:
        return set(self._get(key, set) or ())

    # -- sorted sets --

    def zadd(self, key: bytes, *arguments: bytes) -> int:
        option = arguments[0] if arguments[0] in {b"NX", b"XX"} else None
        pairs = arguments[0 if option is None else 1 :]
        value = self._get(key, SortedSet)
        if value is None:
            if option == b"XX":
                return 0
            value = self._make(key, SortedSet)
        before = len(value)
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            if option is None or (member in value) == (option == b"XX"):
                value[member] = float(score)
        return len(value) - before

    def zrem(self, key: bytes, *members: bytes) -> int:
        value = self._get(key, SortedSet)
        if value is None:
            return 0
        gone = sum(value.pop(member, None) is not None for member in members)
        self._drop_if_empty(key)
        return gone

    def zcard(self, key: bytes) -> int:
        return len(self._get(key, SortedSet) or ())

    def zscore(self, key: bytes, member: bytes) -> float | None:
        return (self._get(key, SortedSet) or {}).get(member)

    def zrank(self, key: bytes, member: bytes) -> int | None:
        members = self.zrange(key, b"0", b"-1")
        return members.index(member) if member in members else None

    def zcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return len(self.zrangebyscore(key, low, high))

    def zrandmember(self, key: bytes, count: bytes) -> list[Any]:
        return self.zrange(key, b"0", b"-1")[: int(count)]

    def zrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> list[Any]:
        ordered = (self._get(key, SortedSet) or SortedSet()).ordered()
        first, last = int(start), int(stop)
        chosen = ordered[first:] if last == -1 else ordered[first : last + 1]
        if options == (b"WITHSCORES",):
            return Scores([member, score] for score, member in chosen)
        return [member for _, member in chosen]

    def zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[Any]:
        ordered = (self._get(key, SortedSet) or SortedSet()).ordered()
        found = [(score, member) for score, member in ordered if _is_between(score, low, high)]
        if b"LIMIT" in options:
            offset, count = options[options.index(b"LIMIT") + 1 :][:2]
            found = found[int(offset) : int(offset) + int(count)]
        if b"WITHSCORES" in options:
            return Scores([member, score] for score, member in found)
        return [member for _, member in found]

    # -- streams --

    def _group(self, key: bytes, name: bytes) -> tuple[Stream, Group]:
        stream = self._get(key, Stream)
        if stream is None or name not in stream.groups:
            text = f"NOGROUP No such key '{key.decode()}' or consumer group '{name.decode()}'"
            raise ErrorReply(text)
        return stream, stream.groups[name]

    def xadd(self, key: bytes, id: bytes, *fields: bytes) -> bytes:
        if not fields or len(fields) % 2:
            raise ErrorReply("ERR wrong number of arguments for 'xadd' command")
        try:
            return self._make(key, Stream).add(id, list(fields), self.now)
        except ValueError as error:
            raise ErrorReply(f"ERR {error}") from error

    def xlen(self, key: bytes) -> int:
        stream = self._get(key, Stream)
        return 0 if stream is None else len(stream.entries)

    def xdel(self, key: bytes, *ids: bytes) -> int:
        stream = self._get(key, Stream)
        return 0 if stream is None else stream.delete(list(ids))

    def xtrim(self, key: bytes, kind: bytes, limit: bytes) -> int:
        stream = self._get(key, Stream)
        return 0 if stream is None else stream.trim(kind, limit)

    def xrange(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[Any]:
        return self._range(key, low, high, options, newest=False)

    def xrevrange(self, key: bytes, high: bytes, low: bytes, *options: bytes) -> list[Any]:
        return self._range(key, low, high, options, newest=True)

    def _range(
        self, key: bytes, low: bytes, high: bytes, options: tuple[bytes, ...], *, newest: bool
    ) -> list[Any]:
        stream = self._get(key, Stream)
        if stream is None:
            return []
        count = int(options[1]) if options else None
        return [stream.entry(id_) for id_ in stream.range(low, high, count, newest=newest)]

    def xgroup(self, action: bytes, key: bytes, name: bytes, *rest: bytes) -> Status | int:
        if action == b"CREATE":
            start, *options = rest
            if not self._alive(key) and b"MKSTREAM" not in options:
                raise ErrorReply("ERR The XGROUP subcommand requires the key to exist")
            stream = self._make(key, Stream)
            if name in stream.groups:
                raise ErrorReply("BUSYGROUP Consumer Group name already exists")
            stream.groups[name] = Group(stream.last if start == b"$" else parse(start))
            return OK
        if action == b"DELCONSUMER":
            (consumer,) = rest
            _, group = self._group(key, name)
            held = [id_ for id_, (holder, _, _) in group.pending.items() if holder == consumer]
            for id_ in held:
                del group.pending[id_]
            group.consumers.discard(consumer)
            return len(held)
        raise ErrorReply(f"ERR unknown subcommand '{action.decode()}'")

    def xinfo(self, _what: bytes, key: bytes, name: bytes) -> list[dict[bytes, Any]]:
        if not self._alive(key):
            raise ErrorReply("ERR no such key")
        _, group = self._group(key, name)
        holders = [holder for holder, _, _ in group.pending.values()]
        return [
            {b"name": consumer, b"pending": holders.count(consumer), b"idle": 0, b"inactive": 0}
            for consumer in sorted(group.consumers)
        ]

    def xack(self, key: bytes, name: bytes, *ids: bytes) -> int:
        stream = self._get(key, Stream)
        group = None if stream is None else stream.groups.get(name)
        if group is None:
            return 0
        return sum(group.pending.pop(parse(id_), None) is not None for id_ in ids)

    def xpending(self, key: bytes, name: bytes, *options: bytes) -> list[Any]:
        stream, group = self._group(key, name)
        if not options:
            return stream.pending_summary(group)
        low, high, count, *consumer = options
        return stream.pending(group, low, high, int(count), *(consumer or [None]), self.now)

    def xreadgroup(self, *arguments: bytes) -> dict[bytes, Any] | None:
        """Returns the entries that there are now. Waiting for more is done by `server.Session`."""
        name, consumer, keys = reads_from(arguments)
        count = int(arguments[arguments.index(b"COUNT") + 1]) if b"COUNT" in arguments else None
        found: dict[bytes, Any] = {}
        groups = [(key, *self._group(key, name)) for key in keys]
        for key, stream, group in groups:
            if entries := stream.read(group, consumer, count, self.now):
                found[key] = entries
        return found or None


class SortedSet(dict[bytes, float]):
    """Members with their scores."""

    def ordered(self) -> list[tuple[float, bytes]]:
        """Returns the members from the lowest score to the highest; equal scores are ordered by bytes."""
        return sorted((score, member) for member, score in self.items())


def _is_between(score: float, low: bytes, high: bytes) -> bool:
    """Returns whether a score lies in a range. An end that begins with a parenthesis is excluded."""
    if (low.startswith(b"(") and score == float(low[1:])) or (
        high.startswith(b"(") and score == float(high[1:])
    ):
        return False
    return float(low.lstrip(b"(")) <= score <= float(high.lstrip(b"("))


def reads_from(arguments: tuple[bytes, ...]) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Returns group, consumer and streams of XREADGROUP. Each stream must be read from `>`."""
    streams = arguments[arguments.index(b"STREAMS") + 1 :]
    half = len(streams) // 2
    if any(start != b">" for start in streams[half:]):
        raise ErrorReply("ERR the fake server reads new entries only")
    return arguments[1], arguments[2], streams[:half]


def number(value: float) -> bytes:
    """Formats a number as the server does."""
    if math.isinf(value):
        return b"inf" if value > 0 else b"-inf"
    return b"%d" % value if value == int(value) else f"{value:.17g}".encode()


_COMMANDS: dict[str, Any] = {
    name.rstrip("_").upper(): method
    for name, method in vars(Data).items()
    if callable(method) and not name.startswith("_") and name not in {"call", "living"}
}
