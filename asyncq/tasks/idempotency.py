"""Keys: calls that are one job, however often and from wherever they are made.

The id of such a job is made of its key, so that every caller finds the same record. Its request id says which
call it is: calls with the same arguments have the part before the point in common, and the server takes them
for one.
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
"""Most characters of a key."""

_SETS = (SET.ext, FROZENSET.ext)


def check_key(key: object) -> None:
    """Refuses what cannot be a key.

    Raises:
        ValueError: not a text of 1 to 512 characters.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= LENGTH:
        raise ValueError(f"key={brief(key)} cannot be a key: give a text of 1 to {LENGTH} characters")


def job_id(namespace: str, task: str, key: str) -> str:
    """The id of the job that a key stands for: 34 characters, whatever the key is."""
    # The lengths in front keep apart what would run together.
    text = f"{len(namespace)}:{namespace}{len(task)}:{task}{key}"
    return "k." + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def request_id(task: str, signature: inspect.Signature, body: bytes, random: str) -> str:
    """`<hash of the call>.<random>`.

    The hash is the same for `add(1, 2)` and `add(x=1, y=2)`, and does not know the order of a dict or of a
    set, which two processes need not share. Of an instance it knows the class's name and what the instance
    holds, and not how the fields are annotated: two releases of a program may differ in that.

    Args:
        task: the task's name.
        signature: of its function.
        body: the encoded arguments, which fit it.
        random: tells this call from another that is the same.
    """
    args, kwargs = msgpack.unpackb(body)
    bound = signature.bind(*args, **kwargs)
    call = _packed([task, list(bound.args), bound.kwargs])
    return f"{hashlib.blake2b(call, digest_size=8).hexdigest()}.{random}"


def _packed(tree: Any) -> bytes:
    """The bytes of a tree, the same for all orders that mean the same."""
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
    return cast("bytes", msgpack.packb(tree))  # its own types allow None, which it never answers
