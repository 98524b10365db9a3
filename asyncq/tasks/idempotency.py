"""Idempotency keys (`key=`): equal calls with one key are one job, whoever makes them and however often.

The id of such a job is a hash of its key, so every caller finds the same record, and no index of keys exists.
The request id tells whether two calls are equal: calls with the same arguments share the part before the
point, and the server takes them for one. Everything here is plain computation in the caller's thread.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import msgpack

from asyncq.serializers.fingerprints import base_of
from asyncq.serializers.trees import FROZENSET, INSTANCE, PAIRS, SET
from asyncq.short_repr import brief

if TYPE_CHECKING:
    import inspect

LENGTH = 512
"""The largest number of characters in a key."""

_SETS = (SET.ext, FROZENSET.ext)


def check_key(key: object) -> None:
    """Refuses a value that cannot be a key.

    Raises:
        ValueError: not a text of 1 to 512 characters.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= LENGTH:
        raise ValueError(f"key={brief(key)} cannot be a key: give a text of 1 to {LENGTH} characters")


def job_id(namespace: str, task: str, key: str) -> str:
    """Returns the id of the job that a key stands for: 34 characters, whatever the key is."""
    # With the lengths in front, no two triples give the same text.
    text = f"{len(namespace)}:{namespace}{len(task)}:{task}{key}"
    return "k." + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def request_id(task: str, signature: inspect.Signature, body: bytes, random: str) -> str:
    """Returns the request id of a call with a key: `<hash of the call>.<random>`.

    The hash is the same for `add(1, 2)` and `add(x=1, y=2)`. It does not depend on the order of a dict or of
    a set, which may differ between two processes. Of an instance it covers the class's name and the values
    that the instance holds, but not the annotations of the fields: two releases of a program may differ in
    those.

    Args:
        task: the task's name.
        signature: of the task's function.
        body: the encoded arguments, which fit that function.
        random: tells this call from other equal calls.
    """
    args, kwargs = msgpack.unpackb(body)
    bound = signature.bind(*args, **kwargs)
    call = _packed([task, list(bound.args), bound.kwargs])
    return f"{hashlib.blake2b(call, digest_size=8).hexdigest()}.{random}"


def _packed(tree: Any) -> bytes:
    """Returns the bytes of a tree. Trees that differ only in an order without meaning give the same bytes."""
    if type(tree) is dict:
        return _pack({"m": sorted((_packed(key), _packed(value)) for key, value in tree.items())})
    if type(tree) is not list:
        return _pack(tree)
    if tree and tree[0] == INSTANCE.ext:
        container_tag, tag, _, *held = tree
        tree = [container_tag, base_of(tag), *held]
    items = [_packed(item) for item in tree]
    if tree and tree[0] in _SETS:
        items[1:] = sorted(items[1:])
    elif tree and tree[0] == PAIRS.ext:
        items[1:] = [half for pair in sorted(zip(items[1::2], items[2::2], strict=True)) for half in pair]
    return _pack(items)


def _pack(tree: Any) -> bytes:
    return cast("bytes", msgpack.packb(tree))  # by its type it may return None, which it never does
