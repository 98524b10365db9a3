"""Finds keys that have no owner and never expire: such a leak would fill the server in time."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from asyncq.broker.schema.keys import GROUP, Keys
from helpers import servers

if TYPE_CHECKING:
    import redis


def find(url: str, namespace: str) -> list[str]:
    """Returns the leaked keys of a namespace, one line each; an empty list if there are none.

    The owner of a live record is its entry in a stream, its member of the delayed set, or a live job that it
    waits for. The owner of a stream is the queue. Every other key must expire.
    """
    with _client(url) as client:
        return _complaints(client, namespace, _keys(client, f"{{{namespace}:"))


def clear(url: str, namespace: str) -> list[str]:
    """Deletes the keys of a namespace, and of namespaces whose names begin with its name. Returns the leaked
    keys of the namespace itself, as `find` does.

    A search for keys visits all keys of the server: without this, each test would be slower than the one
    before.
    """
    with _client(url) as client:
        everything = _keys(client, f"{{{namespace}")
        if not everything:
            return []
        own = [key for key in everything if key.startswith(f"{{{namespace}:")]
        complaints = _complaints(client, namespace, own)
        client.unlink(*everything)
        return complaints


def _client(url: str) -> contextlib.closing[redis.Redis]:
    return contextlib.closing(servers.client(url, decode_responses=True, encoding="latin-1"))


def _complaints(client: redis.Redis, namespace: str, everything: list[str]) -> list[str]:
    shards = {int(key.removeprefix(f"{{{namespace}:").partition("}")[0]) for key in everything}
    kept = [Keys(namespace, shard) for shard in sorted(shards)]
    present = {keys.shard: [key for key in everything if key.startswith(keys.key_prefix)] for keys in kept}
    complaints: list[str] = []
    owned: set[str] = set()
    for keys in kept:
        for key in present[keys.shard]:
            if key.startswith(keys.queues):
                complaints += _entries_without_owner(client, keys, key, owned)
        if keys.delayed in present[keys.shard]:
            owned.update(client.zrange(keys.delayed, 0, -1))  # also what is named behind a space: no id
        if keys.schedules_due in present[keys.shard]:
            owned.update(client.zrange(keys.schedules_due, 0, -1))  # names of schedules
    _own_dependents(client, {keys: present[keys.shard] for keys in kept}, owned)
    suspects = [key for keys in kept for key in present[keys.shard] if not _is_owned(keys, key, owned)]
    if suspects:
        with client.pipeline(transaction=False) as pipeline:
            for key in suspects:
                pipeline.ttl(key)
            lives = pipeline.execute()
        # -2: it has expired already.
        complaints += [
            f"{key}: no owner, and never expires"
            for key, ttl in zip(suspects, lives, strict=True)
            if ttl == -1
        ]
    for keys in kept:
        if keys.outbox in present[keys.shard] and (undelivered := client.xlen(keys.outbox)):
            complaints.append(f"{keys.outbox}: {undelivered} messages are not delivered")
    return complaints


def _keys(client: redis.Redis, start: str) -> list[str]:
    return list(client.scan_iter(match=_escaped(start) + "*", count=10_000))


def _own_dependents(client: redis.Redis, present: dict[Keys, list[str]], owned: set[str]) -> None:
    waited_for = {
        key.removeprefix(keys.dependents): key
        for keys, found in present.items()
        for key in found
        if key.startswith(keys.dependents)
    }
    added = waited_for.keys() & owned
    while added:
        # Only what was found last is asked: a chain that was left in its middle has thousands of steps.
        found = set().union(*(client.hkeys(waited_for[id_]) for id_ in added)) - owned
        owned |= found
        added = waited_for.keys() & found


def _escaped(tag: str) -> str:
    return tag.replace("[", "\\[").replace("*", "\\*").replace("?", "\\?")


def _entries_without_owner(client: redis.Redis, keys: Keys, stream: str, owned: set[str]) -> list[str]:
    complaints = []
    present = set()
    for entry, fields in client.xrange(stream):
        present.add(entry)
        record = client.get(keys.records + fields["i"]) or ""
        if record.split(" ")[1:2] == [entry]:
            owned.add(fields["i"])
        else:
            complaints.append(f"{stream} {entry}: no record names this entry of job {fields['i']}")
    groups = client.xinfo_groups(stream)
    pending = client.xpending_range(stream, GROUP, "-", "+", 10_000) if groups else []
    complaints += [
        f"{stream} {item['message_id']}: pending for {item['consumer']}, but not in the stream"
        for item in pending
        if item["message_id"] not in present
    ]
    return complaints


def _is_owned(keys: Keys, key: str, owned: set[str]) -> bool:
    beats = {keys.beats, keys.beat_observations, keys.observations, keys.observation_ages}
    kept = {keys.dead, keys.delayed, keys.count, keys.inbox, keys.outbox, keys.clock_offset, *beats}
    kept |= {keys.schedules_due, keys.schedules_declared}
    if key.startswith((keys.queues, keys.levels, keys.paused)) or key in {*kept, keys.known_queues}:
        return True
    _, _, id_ = key.removeprefix(keys.tag).lstrip(":").partition(":")
    return id_ in owned
