"""Shards: the shard of a job follows from its id, and is the same for every process."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, strategies as st

from asyncq.broker.schema.shards import RUN, Shards

IDS = st.text("abcXYZ019_.:-", min_size=1, max_size=40)


@given(IDS, st.integers(1, 256))
def test_every_id_belongs_to_the_same_shard_in_every_process(id, count):
    number = Shards("shop", count).number(id)
    assert 0 <= number < count
    assert number == Shards("shop", count).number(id)
    assert Shards("shop", count).of(id).shard == number


@given(st.text("0123456789abcdef", min_size=24, max_size=24), st.integers(2, 256), st.data())
def test_an_id_made_for_a_shard_belongs_to_that_shard(digits, count, data):
    shard = data.draw(st.integers(0, count - 1))
    shards = Shards("shop", count)
    assert shards.number(shards.new_id(digits, shard)) == shard


def test_with_one_shard_ids_do_not_name_it():
    assert Shards("shop", 1).new_id("0" * 24) == "0" * 24


def test_new_ids_are_spread_evenly_over_the_shards_in_runs():
    shards = Shards("shop", 3)
    numbers = [shards.number(shards.new_id("0" * 24)) for _ in range(6 * RUN)]
    assert Counter(numbers) == {0: 2 * RUN, 1: 2 * RUN, 2: 2 * RUN}
    assert numbers[:RUN] == [numbers[0]] * RUN


def test_ids_of_users_are_spread_over_the_shards_by_their_text():
    shards = Shards("shop", 4)
    counts = Counter(shards.number(f"order-{n}") for n in range(4000))
    assert all(900 < count < 1100 for count in counts.values())


@pytest.mark.parametrize("id", ["0" * 24 + ".x", "0" * 24 + ".", "0" * 24 + ".²", "0" * 24, "short.1"])
def test_an_id_that_only_resembles_a_generated_one_gets_its_shard_from_its_text(id):
    assert 0 <= Shards("shop", 5).number(id) < 5


def test_an_id_that_names_a_shard_above_the_current_count_still_has_a_shard():
    assert Shards("shop", 2).number("0" * 24 + ".7") == 1


def test_processes_start_with_different_shards():
    """Otherwise processes that make few jobs, such as a command or a cron job, would make all of them in
    shard 0.
    """
    assert {Shards("shop", 3).next() for _ in range(100)} == {0, 1, 2}
