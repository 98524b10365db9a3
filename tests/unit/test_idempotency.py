"""The id and the request id of a call with a key: equal for equal calls, and for no others."""

from __future__ import annotations

import inspect
import itertools
from datetime import UTC, datetime

import pytest
from msgpack import packb

from asyncq.serializers import PLAIN_ARGUMENTS
from asyncq.serializers.trees import SET
from asyncq.tasks.idempotency import LENGTH, check_key, job_id, request_id


def add(x, y=1, *rest, **more):
    return x + y


def hashed(*args, task="add", **kwargs) -> str:
    body = PLAIN_ARGUMENTS.dumps(args, kwargs)
    call, _, random = request_id(task, inspect.signature(add), body, "random").partition(".")
    assert random == "random"
    assert len(call) == 16
    return call


@pytest.mark.parametrize("key", ["a", "k" * LENGTH, "ü 漢\n\0", "\ud800", " ", "{a}:b"])
def test_any_text_can_be_a_key_and_its_id_is_valid(key):
    check_key(key)
    id_ = job_id("ns", "task", key)
    assert len(id_) == 34
    assert set(id_[2:]) <= set("0123456789abcdef")
    assert id_ == job_id("ns", "task", key)


@pytest.mark.parametrize("key", ["", "k" * (LENGTH + 1), b"a", 7, ("a",)])
def test_an_invalid_key_is_refused(key):
    with pytest.raises(ValueError, match="1 to 512"):
        check_key(key)


def test_ids_differ_when_namespace_task_or_key_differ():
    parts = ["", "a", "aa", "1:a", "a1:"]
    ids = [job_id(*names) for names in itertools.product(parts, repeat=3)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (hashed(1, 2), hashed(x=1, y=2)),
        (hashed(1, y=2), hashed(1, 2)),
        (hashed(1, b=1, c=2), hashed(1, c=2, b=1)),
        (hashed({"a": 1, "b": [2]}), hashed({"b": [2], "a": 1})),
        (hashed({1: "x", 2: "y"}), hashed({2: "y", 1: "x"})),
        (hashed([{"a", "b", "c"}]), hashed([{"c", "b", "a"}])),
        (hashed(datetime(2030, 1, 1, tzinfo=UTC)), hashed(datetime(2030, 1, 1, tzinfo=UTC))),
    ],
)
def test_equal_calls_have_equal_hashes_however_they_are_written(one, other):
    assert one == other


def test_the_hash_of_a_set_does_not_depend_on_its_order():
    names = [f"name{n}" for n in range(8)]
    # Two processes may iterate over a set in different orders. Here, sets that were filled differently do so.
    orders = [[*names], [*reversed(names)]]
    bodies = [packb([[[SET.ext, *order]], {}]) for order in orders]
    assert bodies[0] != bodies[1]
    signature = inspect.signature(add)
    assert len({request_id("add", signature, body, "r") for body in bodies}) == 1


def test_other_calls_have_other_hashes():
    calls = [
        hashed(1),
        hashed(2),
        hashed(1, 2),
        hashed(1.0),
        hashed(True),
        hashed("1"),
        hashed(b"1"),
        hashed(None),
        hashed([1]),
        hashed((1,)),
        hashed({1}),
        hashed(frozenset({1})),
        hashed([1, 2]),
        hashed([2, 1]),
        hashed([[1], 2]),
        hashed({"a": 1}),
        hashed({"a": 2}),
        hashed(["a", 1]),
        hashed({1: 2}),
        hashed({2: 1}),
        hashed(1, z=2),
        hashed(1, task="other"),
    ]
    assert len(set(calls)) == len(calls)
