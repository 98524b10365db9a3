"""The rights of the server's user: the code checks the rights that the docs grant, and an error says what to
add.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asyncq.broker.preflight import rights
from asyncq.broker.schema.keys import Keys
from asyncq.cli.doctor import acl

TEMPLATES = Path(__file__).parents[2] / "docs" / "acl"
KEYS = Keys("shop")
STREAMS = (KEYS.stream("default"), KEYS.stream("default!"))
WORKER = rights.of_worker(KEYS, STREAMS)
USED_TO_ASK = {"evalsha", "script|load"}
"""The check itself needs these rights. The server refuses a user who lacks one."""


def _template(name):
    return set(re.findall(r" \+(\S+)", (TEMPLATES / f"{name}.acl").read_text()))


def test_the_rights_that_asyncq_checks_are_those_of_the_templates():
    optional = USED_TO_ASK | {"client|setname"}
    assert _template("producer") - optional - rights.DEAD_LETTERS == rights.CLIENT
    assert _template("worker") - optional == rights.WORKER
    assert _template("operator") == _template("producer") | rights.OPERATOR


@pytest.mark.parametrize(("kind", "folder"), [("", "."), ("cluster", "cluster"), ("sentinel", "sentinel")])
def test_the_templates_are_the_users_that_the_command_line_prints(kind, folder):
    printed = [line.split() for line in acl.users("asyncq", kind)]
    if kind == "sentinel":
        assert printed[:-1] == [line.split() for line in acl.users("asyncq")], (
            "the server's users are the same"
        )
        printed = printed[-1:]
    for words in printed:
        name = words[1].removeprefix("asyncq-")
        assert sorted(words) == sorted((TEMPLATES / folder / f"{name}.acl").read_text().split()), name
    assert len(printed) == len(list((TEMPLATES / folder).glob("*.acl")))


def test_on_a_cluster_messages_go_through_the_sharded_commands_alone():
    on_cluster = {call.right for call in rights.of_worker(KEYS, STREAMS, is_cluster=True)}
    assert {"spublish", "ssubscribe", "sunsubscribe", "scan"} <= on_cluster
    assert {"cluster|info", "cluster|nodes", "cluster|slots"} <= on_cluster
    assert not on_cluster & {"publish", "subscribe", "unsubscribe"}
    assert {call.right for call in rights.of_client(KEYS, is_cluster=True)} == rights.on_cluster(
        rights.CLIENT
    )


def test_every_right_and_every_kind_of_key_is_checked():
    assert {call.right for call in WORKER} == rights.WORKER
    assert {call.right for call in rights.of_client(KEYS)} == rights.CLIENT
    kinds = {KEYS.records, KEYS.delayed, KEYS.messages, KEYS.beats, KEYS.signals, KEYS.dead, *STREAMS}
    assert {call.pattern[1:] for call in WORKER if call.right == "mget"} >= kinds


def _complaint(refused):
    return rights.complaint(
        "me", KEYS.namespace, WORKER, {call.words for call in WORKER if refused(call)}
    ).split("\n")


@pytest.mark.parametrize("right", sorted(rights.WORKER))
def test_a_missing_right_is_named_with_the_command_that_grants_it(right):
    assert _complaint(lambda call: call.right == right) == [
        f"NOPERM user 'me' lacks +{right}",
        f"ACL SETUSER me +{right}",
    ]


@pytest.mark.parametrize("pattern", sorted({call.pattern for call in WORKER} - {""}))
def test_a_forbidden_key_or_channel_is_named_with_the_command_that_allows_the_namespace(pattern):
    assert _complaint(lambda call: call.pattern == pattern) == [
        f"NOPERM user 'me' lacks {pattern}",
        f"ACL SETUSER me {pattern[0]}{{shop:*",
    ]


def test_of_many_missing_rights_the_first_are_named_and_all_are_granted():
    problem, fix = _complaint(lambda _: True)
    assert " more" in problem
    assert fix == "ACL SETUSER me &{shop:* ~{shop:* +info +ping +time +unsubscribe"


def test_the_command_also_opens_keys_that_the_user_may_only_read():
    reading = {"hget", "hgetall", "hmget", "mget", "smembers", "xlen", "xpending", "xrange", "zrange"}
    _, fix = _complaint(lambda call: call.pattern.startswith("~") and call.right not in reading)
    assert fix.startswith("ACL SETUSER me ~{shop:* +append +del ")
