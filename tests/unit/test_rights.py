"""The rights of the server's user: the code checks the rights that the docs grant, and an error says what to
add.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asyncq.broker.preflight import rights
from asyncq.broker.schema.keys import Keys

TEMPLATES = Path(__file__).parents[2] / "docs" / "acl"
KEYS = Keys("shop")
STREAMS = (KEYS.stream("default"), KEYS.stream("default!"))
WORKER = rights.of_worker(KEYS, STREAMS)
USED_TO_ASK = {"evalsha", "script|load"}
"""The check itself needs these rights. The server refuses a user who lacks one."""
DEAD_LETTERS = {"xrevrange"}


def _template(name):
    return set(re.findall(r" \+(\S+)", (TEMPLATES / f"{name}.acl").read_text()))


def test_what_is_asked_for_is_what_the_templates_allow():
    optional = USED_TO_ASK | {"client|setname"}
    assert _template("producer") - optional - DEAD_LETTERS == rights.CLIENT
    assert _template("worker") - optional == rights.WORKER


def test_every_right_is_asked_for_and_every_kind_of_key():
    assert {call.right for call in WORKER} == rights.WORKER
    assert {call.right for call in rights.of_client(KEYS)} == rights.CLIENT
    kinds = {KEYS.records, KEYS.delayed, KEYS.messages, KEYS.beats, KEYS.signals, KEYS.dead, *STREAMS}
    assert {call.pattern[1:] for call in WORKER if call.right == "mget"} >= kinds


def _complaint(refused):
    return rights.complaint(
        "me", KEYS.namespace, WORKER, {call.words for call in WORKER if refused(call)}
    ).split("\n")


@pytest.mark.parametrize("right", sorted(rights.WORKER))
def test_one_right_is_named_and_given(right):
    assert _complaint(lambda call: call.right == right) == [
        f"NOPERM user 'me' lacks +{right}",
        f"ACL SETUSER me +{right}",
    ]


@pytest.mark.parametrize("pattern", sorted({call.pattern for call in WORKER} - {""}))
def test_a_key_or_channel_out_of_reach_is_named_and_the_namespace_opened(pattern):
    assert _complaint(lambda call: call.pattern == pattern) == [
        f"NOPERM user 'me' lacks {pattern}",
        f"ACL SETUSER me {pattern[0]}{{shop:*",
    ]


def test_of_many_the_first_are_named_and_all_are_given():
    problem, mend = _complaint(lambda _: True)
    assert " more" in problem
    assert mend == "ACL SETUSER me &{shop:* ~{shop:* +info +ping +time +unsubscribe"


def test_keys_that_may_only_be_read_are_opened_too():
    reading = {"hget", "hgetall", "hmget", "mget", "smembers", "xlen", "xpending", "xrange", "zrange"}
    _, mend = _complaint(lambda call: call.pattern.startswith("~") and call.right not in reading)
    assert mend.startswith("ACL SETUSER me ~{shop:* +append +del ")
