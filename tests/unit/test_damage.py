"""Damaged data is logged once per kind and minute. The next record says how many were left out."""

from __future__ import annotations

import logging

import pytest
from helpers.inside import log_damage_again

from asyncq.broker.schema import damaged_data

log = logging.getLogger("asyncq.test")


@pytest.fixture(autouse=True)
def _forget_earlier_damage(monkeypatch, caplog):
    log_damage_again(monkeypatch)
    caplog.set_level(logging.WARNING, "asyncq.test")


def test_the_first_damage_of_each_kind_is_logged_and_more_within_a_minute_is_counted(monkeypatch, caplog):
    now = 1000.0
    monkeypatch.setattr(damaged_data.time, "monotonic", lambda: now)
    for kind in ("mark", "beat", "mark", "mark"):
        damaged_data.warn(log, kind, f"a {kind} was dropped", "no text")
    assert caplog.messages == ["a mark was dropped (no text)", "a beat was dropped (no text)"]
    now += damaged_data.REPEAT
    damaged_data.warn(log, "mark", "a mark was dropped", "no text")
    assert caplog.messages[2:] == ["a mark was dropped (no text); 2 more of this kind since the last warning"]
