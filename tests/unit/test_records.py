"""Records of jobs are parsed and formatted."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asyncq import wire
from asyncq.broker.schema.records import LINKS, SIGNALS, STATES, WISHES, Flags, Record, RequestId
from asyncq.errors import DecodeError

pytestmark = pytest.mark.hypothesis

WORD = st.text("abcdefgh0123456789", min_size=1, max_size=8)
FLAGS = st.tuples(*map(st.sampled_from, map(list, (STATES, SIGNALS, WISHES, LINKS)))).map("".join).map(Flags)
REQUEST = st.builds(
    RequestId,
    WORD,
    st.just("") | WORD,
    st.booleans(),
    st.none() | st.integers(0, wire.LATEST),
)


@given(FLAGS, WORD, WORD, REQUEST, st.lists(WORD, max_size=3), st.binary(max_size=20))
def test_a_record_is_parsed_as_it_was_formatted(flags, entry, holder, request, channels, outcome):
    live, tombstone = flags.is_live, flags[0] == wire.TOMBSTONE
    record = Record(
        flags,
        entry,
        holder if live else "",
        "" if live else holder,
        request.format(),
        tuple(channels) if live else (),
        b"" if live or tombstone else outcome,
    )
    assert Record.parse(record.format()) == record
    assert RequestId.parse(record.request_id) == request


@given(st.binary(max_size=60))
def test_an_invalid_record_is_a_decode_error(data):
    try:
        record = Record.parse(data)
    except DecodeError:
        return
    record.flags.words()
    assert Record.parse(record.format()) == record


def test_the_flags_of_a_record_give_its_state_and_its_properties():
    for letter in STATES:
        assert Flags(f"{letter}---").is_live == (letter in "LDRPW")
    assert Flags("L-i-").is_ignored
    assert not Flags("L-f-").is_ignored
    assert Flags("L-f-").is_forgotten
    assert [Flags(f"W--{one}").has_dependents for one in LINKS] == [False, True, False, True]
    assert Flags("Lcid").words() == [STATES["L"], SIGNALS["c"], WISHES["i"], LINKS["d"]]
    assert Flags("Lz--").words() == [STATES["L"], "unknown letter 'z'"]


@pytest.mark.parametrize("text", ["997f~", "997f~x", "997f~-1", "997f~9999999999999999"])
def test_a_request_id_with_an_impossible_time_is_an_error(text):
    with pytest.raises(DecodeError, match="is not a valid time"):
        RequestId.parse(text)
