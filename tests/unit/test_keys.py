"""Key names: all keys of a shard have one hash tag, and no two keys have the same name."""

from __future__ import annotations

import dataclasses

from asyncq.broker.schema.keys import Keys


def test_every_key_of_a_shard_has_the_same_hash_tag():
    for number in (0, 3):
        keys = Keys("shop", number)
        names = {field.name for field in dataclasses.fields(keys)} - {"namespace", "shard"}
        values = [getattr(keys, name) for name in names]
        assert all(value.startswith(f"{{shop:{number}}}") for value in [*values, keys.stream("q")])


def test_keys_of_different_kinds_never_have_the_same_name():
    keys = Keys("shop")
    prefixes = [keys.records, keys.queues, keys.signals, keys.replies]
    names = [
        keys.beats,
        keys.dead,
        *(prefix + suffix for prefix in prefixes for suffix in ("w", "dlq", "x:1", "")),
    ]
    assert len(set(names)) == len(names)


def test_different_namespaces_have_different_keys():
    assert Keys("a").stream("q") != Keys("b").stream("q")
    assert Keys("a").stream("q") == Keys("a").queues + "q" == "{a:0}:q:q"
