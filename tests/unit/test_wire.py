"""Every byte that crosses Redis: round trips, bytes of older and newer versions, and forged bytes."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given, strategies as st

from asyncq import wire
from asyncq.broker.schema.records import Record
from asyncq.errors import DecodeError
from asyncq.states import State

JOB = wire.Job("id", "shop.charge", "default", b"body", "nonce", "{a:0}:c:1", 1_700_000_000_000, 3_600_000)
GOLDEN_JOB = bytes.fromhex(
    "9802ab73686f702e636861726765c404626f6479a56e6f6e6365a97b613a307d3a633a31cf0000018bcfe56800ce0036ee80c0"
)
ENDED = wire.Ended("S", b"\x08", 1, 2, 1, "w", "shop.charge", "default", 0, ["child"])
GOLDEN_ENDED = bytes.fromhex("9a02c40108010201a177ab73686f702e636861726765a764656661756c740091a56368696c64")

letters = st.sampled_from(["S", "F", "C", "E", "X"])
moments = st.none() | st.integers(0, wire.LATEST)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = st.text("abc:-_.{}09", min_size=1, max_size=30)


def test_a_message_written_by_this_version_stays_readable():
    assert wire.encode_job(JOB) == GOLDEN_JOB
    assert wire.decode_job("id", "default", GOLDEN_JOB) == JOB


def test_an_outcome_written_by_this_version_stays_readable():
    assert wire.encode_ended(ENDED) == GOLDEN_ENDED
    assert wire.decode_ended("S", GOLDEN_ENDED) == ENDED


@given(
    name=names,
    body=st.binary(max_size=100),
    request_id=words,
    channel=words,
    enqueued=st.integers(0, 2**62),
    ttl=st.integers(1, 2**40),
    expires=moments,
    ignore=st.booleans(),
    parent=st.none() | words,
    headers=st.none()
    | st.dictionaries(names, st.none() | st.integers(-(2**63), 2**64 - 1) | names, min_size=1, max_size=3),
)
def test_every_job_is_decoded_as_it_was_encoded(
    name, body, request_id, channel, enqueued, ttl, expires, ignore, parent, headers
):
    job = wire.Job(
        "id", name, "q", body, request_id, channel, enqueued, ttl, expires, ignore, parent, parent, headers
    )
    assert wire.decode_job("id", "q", wire.encode_job(job)) == job


def test_the_ancestors_in_a_message_are_ids_with_the_nearest_first():
    job = wire.decode_job("id", "q", wire.encode_job(JOB))
    job.parent_id, job.ancestors = "parent", ["above", "top"]
    assert wire.decode_job("id", "default", wire.encode_job(job)).ancestors == ["above", "top"]
    for wrong in ("above", [1], {"above": 1}):
        job.ancestors = wrong
        with pytest.raises(DecodeError):
            wire.decode_job("id", "default", wire.encode_job(job))


@pytest.mark.parametrize("extra", wire.EXTRAS, ids=lambda extra: extra.field)
def test_each_optional_field_of_a_job_is_written_and_read_under_its_key(extra):
    values = {int: 7, bool: True, str: "parent", dict: {"a": 1}, list: ["id"]}
    value = values[extra.kinds[0]]
    job = wire.decode_job("id", "default", GOLDEN_JOB)
    setattr(job, extra.field, value)
    message = wire.encode_job(job)
    assert msgpack.unpackb(message)[-1] == {extra.key: value}
    assert wire.decode_job("id", "default", message) == job
    wrong = msgpack.packb([*msgpack.unpackb(GOLDEN_JOB)[:-1], {extra.key: 1.5}])
    with pytest.raises(DecodeError, match="wrong type"):
        wire.decode_job("id", "default", wrong)


def test_a_message_has_its_optional_fields_in_the_order_of_the_table():
    job = wire.decode_job("id", "default", GOLDEN_JOB)
    for extra in wire.EXTRAS:
        setattr(
            job, extra.field, {bool: True, str: "up", dict: {"a": 1}, list: ["id"]}.get(extra.kinds[0], 7)
        )
    assert list(msgpack.unpackb(wire.encode_job(job))[-1]) == [extra.key for extra in wire.EXTRAS]


def test_a_priority_is_encoded_and_must_be_a_valid_level():
    job = wire.decode_job("id", "default", GOLDEN_JOB)
    assert job.priority == 0
    for level in (-9, 9):
        job.priority = level
        assert wire.decode_job("id", "default", wire.encode_job(job)) == job
    for wrong in (10, -10, "1", 1.0, True):
        job.priority = wrong
        with pytest.raises(DecodeError):
            wire.decode_job("id", "default", wire.encode_job(job))


@given(
    letters,
    st.binary(max_size=100),
    moments,
    moments,
    st.integers(0, 9),
    names,
    names,
    st.lists(words, max_size=3),
)
def test_every_outcome_is_decoded_as_it_was_encoded(
    letter, payload, started, finished, attempts, worker, name, children
):
    ended = wire.Ended(letter, payload, started, finished, attempts, worker, name, "q", started, children)
    outcome = wire.encode_ended(ended)
    assert wire.decode_ended(letter, outcome) == ended
    record = f"{letter}--- 1-1 consumer nonce ".encode() + outcome
    assert Record.parse(record).ended() == ended


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data):
    for read in (
        lambda: wire.decode_job("id", "q", data),
        lambda: wire.decode_ended("S", data),
        lambda: Record.parse(data).ended(),
        lambda: list(wire.split_notification(data)),
    ):
        try:
            read()
        except (DecodeError, ValueError):  # ValueError: a bad length or text, from split_notification
            continue


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
_trees = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(_trees, min_size=7, max_size=7))
def test_a_message_of_the_right_length_has_the_right_types_or_is_refused(fields):
    try:
        job = wire.decode_job("id", "q", msgpack.packb([wire.SCHEMA, *fields]))
    except DecodeError:
        return
    assert isinstance(job.name, str)
    assert isinstance(job.body, bytes)
    assert isinstance(job.result_ttl, int)
    assert job.result_ttl > 0
    assert job.expires is None or type(job.expires) is int
    assert isinstance(job.ignore_result, bool)
    assert job.parent_id is None or isinstance(job.parent_id, str)
    assert job.headers is None or isinstance(job.headers, dict)


def test_an_option_that_this_version_does_not_know_is_ignored():
    fields = msgpack.unpackb(wire.encode_job(JOB))
    newer = msgpack.packb([*fields[:7], {"priority?": 5, "h": {"a": 1}}])
    job = wire.decode_job("id", "default", newer)
    assert job.headers == {"a": 1}


@pytest.mark.parametrize("schema", [0, 1, "2", None])
def test_the_error_about_another_schema_names_it(schema):
    with pytest.raises(DecodeError, match=f"schema {schema!r}"):
        wire.decode_job("id", "q", msgpack.packb([schema, *msgpack.unpackb(GOLDEN_JOB)[1:]]))
    with pytest.raises(DecodeError, match=f"schema {schema!r}"):
        wire.decode_ended("S", msgpack.packb([schema, *msgpack.unpackb(GOLDEN_ENDED)[1:]]))


@pytest.mark.parametrize("channel", ["a b", " "])
def test_a_channel_that_would_break_the_record_is_refused(channel):
    with pytest.raises(DecodeError):
        wire.decode_job("id", "q", msgpack.packb([wire.SCHEMA, "n", b"", "nonce", channel, 1, 1, None]))


@pytest.mark.parametrize("letter", ["L", "T", "?", "", "SS"])
def test_only_outcomes_with_final_letters_are_decoded(letter):
    with pytest.raises(DecodeError):
        wire.decode_ended(letter, GOLDEN_ENDED)


def test_an_empty_outcome_has_only_its_letter():
    assert wire.decode_ended("X", b"") == wire.Ended("X")
    assert Record.parse(b"C--- 1-1 - nonce").ended() == wire.Ended("C")


def test_a_long_failure_has_a_short_form_before_it_and_is_decoded_in_full():
    long = ENDED._replace(letter="F", payload=b"x" * wire.MOST_HANDED_ON, children=["child"] * 1_000)
    outcome = wire.encode_bad_end(long, lambda: b"short")
    assert wire.decode_ended("F", outcome) == long
    length, _, rest = outcome[1:].partition(b" ")
    assert wire.decode_ended("F", rest[: int(length)]) == long._replace(payload=b"short", children=[])
    assert wire.decode_ended("F", b"^parent " + rest[: int(length)]).payload == b"short"


def test_values_of_parents_are_split_at_kept_values():
    inline = wire.frame("p", "S", b"x S @no\n")
    values = inline + b"q S @nonce\n" + inline + b"r S @other\n"
    first, second, third, fourth = wire.pieces_of(values)
    assert (first, third) == (inline, inline)
    assert second == wire.Kept("q:nonce", "q", "S", b"q S @nonce\n")
    assert fourth == wire.Kept("r:other", "r", "S", b"r S @other\n")
    assert wire.pieces_of(inline) == [inline]
    assert [outcome for *_, outcome in wire.split_notification(values)] == [b"x S @no\n", None] * 2


@pytest.mark.parametrize("values", [b" @", b"p S @n", b"p @n\n", b"p S 9\n @", b"p S -1\n @", b"\xff S @n\n"])
def test_values_with_broken_frames_are_an_error(values):
    with pytest.raises((DecodeError, UnicodeDecodeError)):
        wire.pieces_of(values)


def test_a_short_failure_has_no_short_form():
    assert wire.encode_bad_end(ENDED, lambda: b"short") == wire.encode_ended(ENDED)


@pytest.mark.parametrize("head", [b"", b"-1", b"9", b"x", b"1" * 100])
def test_a_short_form_with_an_impossible_length_is_a_decode_error(head):
    with pytest.raises(DecodeError):
        wire.decode_ended("F", b"~" + head + b" abc")


@pytest.mark.parametrize(
    ("letter", "state"),
    [
        ("S", State.SUCCESS),
        ("F", State.FAILURE),
        ("X", State.FAILURE),
        ("C", State.REVOKED),
        ("E", State.REVOKED),
    ],
)
def test_each_letter_means_one_final_state(letter, state):
    assert wire.Ended(letter).state is state


@given(st.lists(st.tuples(words, letters, st.none() | st.binary(max_size=50)), max_size=5))
def test_a_notification_is_split_as_it_was_joined(parts):
    data = b"".join(
        f"{id_} {letter} -\n".encode() if body is None else f"{id_} {letter} {len(body)}\n".encode() + body
        for id_, letter, body in parts
    )
    assert list(wire.split_notification(data)) == parts


@pytest.mark.parametrize("data", [b"x", b"a b\n", b"a b c d\n", b"a S 1"])
def test_a_broken_notification_is_refused(data):
    with pytest.raises(DecodeError):
        list(wire.split_notification(data))


@pytest.mark.parametrize(
    "data",
    [
        b"a S -5\n",
        b"a S -9\nb S 1\nx",
        b"a S 5\nxx",
        b"a S +1\nx",
        b"a S 1_0\n0123456789",
        b"a S 99999999999\n",
    ],
)
def test_an_impossible_length_in_a_notification_is_a_decode_error(data):
    with pytest.raises(DecodeError):
        list(wire.split_notification(data))


@pytest.mark.parametrize("count", [b"", b"-1", b"1_0", b" 1", b"1e3", b"\xff", b"9" * 30])
def test_an_impossible_count_is_a_decode_error(count):
    with pytest.raises(DecodeError):
        wire.count_of(count)


@given(st.binary(max_size=60))
def test_splitting_a_notification_of_any_bytes_ends(data):
    with contextlib.suppress(DecodeError, UnicodeDecodeError):
        assert len(list(wire.split_notification(data))) <= len(data)


@given(
    st.lists(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary() | names | st.lists(names), max_size=11
    )
)
def test_an_outcome_of_random_fields_is_a_decode_error_or_has_the_right_types(fields):
    try:
        ended = wire.decode_ended("S", msgpack.packb([wire.SCHEMA, *fields]))
    except DecodeError:
        return
    assert type(ended.attempts) is int
    assert all(type(child) is str for child in ended.children)
