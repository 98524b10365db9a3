"""Key names: one hash tag for a whole namespace, and no two keys alike."""

from __future__ import annotations

import dataclasses

from asyncq.broker.keys import Keys


def test_every_key_of_a_namespace_has_the_same_hash_tag():
    keys = Keys("shop")
    values = [getattr(keys, field.name) for field in dataclasses.fields(keys) if field.name != "namespace"]
    assert all(value.startswith("{shop:0}") for value in [*values, keys.stream("q")])


def test_no_two_kinds_of_key_can_meet():
    keys = Keys("shop")
    prefixes = [keys.records, keys.queues, keys.marks, keys.replies]
    names = [
        keys.beats,
        keys.dead,
        *(prefix + suffix for prefix in prefixes for suffix in ("w", "dlq", "x:1", "")),
    ]
    assert len(set(names)) == len(names)


def test_namespaces_keep_apart():
    assert Keys("a").stream("q") != Keys("b").stream("q")
    assert Keys("a").stream("q") == Keys("a").queues + "q" == "{a:0}:q:q"
