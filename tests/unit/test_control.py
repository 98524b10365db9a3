"""Cursors of pages, statuses of workers, orders and their answers: pure functions."""

from __future__ import annotations

import pytest

from asyncq import DecodeError, Page, wire
from asyncq.broker import order_messages as orders
from asyncq.broker.worker_orders import OrderAnswer
from asyncq.control.pages import decode_cursor, encode_cursor

STATUS = wire.WorkerStatus(
    "host", 7, 1_795_385_154_261, ["a", "b"], 100, 3, 20, 1, "0.1.0", 15_000, is_quiet=True
)


def test_a_cursor_says_which_fields_it_was_made_of():
    cursor = encode_cursor(1, "mail", 0, "mail^5", "1795-0")
    assert decode_cursor(cursor, int, str, int, str, str) == [1, "mail", 0, "mail^5", "1795-0"]


@pytest.mark.parametrize("cursor", ["", "x", "!!", "kAAA", encode_cursor(1), encode_cursor("a", "b"), "é"])
def test_a_text_that_is_no_cursor_is_refused(cursor):
    with pytest.raises(ValueError, match="cursor="):
        decode_cursor(cursor, int, str)


def test_a_page_is_iterated_and_counted_as_its_items():
    page = Page([1, 2, 3], None, 10)
    assert (list(page), len(page)) == ([1, 2, 3], 3)


def test_a_status_is_decoded_as_it_was_encoded():
    assert wire.decode_status(wire.encode_status(STATUS)) == STATUS


def test_what_a_later_version_adds_to_a_status_is_left_out():
    fields = tuple(STATUS)
    assert wire.decode_status(wire.packed((wire.SCHEMA, *fields, "more", 7))) == STATUS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        wire.packed(1),
        wire.packed(()),
        wire.packed((wire.SCHEMA,)),
        wire.packed((wire.SCHEMA + 1, *tuple(STATUS))),
        wire.packed((wire.SCHEMA, *tuple(STATUS)[:-1])),
        wire.packed((wire.SCHEMA, *tuple(STATUS._replace(pid="7")))),
        wire.packed((wire.SCHEMA, *tuple(STATUS._replace(queues=[1])))),
    ],
)
def test_bytes_that_are_no_status_are_refused(data):
    with pytest.raises(DecodeError):
        wire.decode_status(data)


def test_an_order_names_the_channel_of_its_answer():
    assert orders.order_in(b"!ping {ns:0}:c:1", "{ns:0}:c:") == ("ping", "{ns:0}:c:1")


@pytest.mark.parametrize("data", [b"", b"tjob-1", b"!", b"!ping", b"!ping elsewhere", b"ping {ns:0}:c:1"])
def test_a_message_that_is_no_order_is_none(data):
    assert orders.order_in(data, "{ns:0}:c:") is None


@pytest.mark.parametrize("text", ["", "short", "x" * 8192, "x" * 8193, "é" * 50_000])
def test_a_long_answer_comes_in_parts_in_any_order(text):
    parts = list(orders.parts_of("w1-0123456789abcdef", text))
    assert all(len(part) < 9000 for part in parts)
    answer = OrderAnswer()
    for part in reversed(parts):
        head, _, rest = part.partition(b"\n")
        session_id, number, count = head.split()
        assert session_id == b"w1-0123456789abcdef"
        assert not answer.is_complete()
        answer.count = int(count)
        answer.parts[int(number)] = rest
    assert answer.is_complete()
    assert answer.text == text


def test_an_answer_that_is_too_long_is_cut():
    parts = list(orders.parts_of("w1", "x" * 10_000_000))
    assert len(parts) == orders.MOST_PARTS
