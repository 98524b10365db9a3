"""Ticks of a schedule: each makes one job, none is lost, and each rule is needed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from model.schedules import Rules, Setting, explore

PLAIN = Setting()
JUMPS = replace(PLAIN, deaths=1, lost_replies=0, jumps=1)

SETTINGS = {
    "two workers, two deaths, a lost reply": PLAIN,
    "three workers": replace(PLAIN, workers=3, ticks=2),
    "the server's clock is set back": JUMPS,
}

BROKEN = {
    "compares_version": ("two jobs", PLAIN, {"compares_version": False}),
    "makes_job_in_the_same_step": ("two jobs", PLAIN, {"makes_job_in_the_same_step": False}),
    "moves_first": ("lost", PLAIN, {"makes_job_in_the_same_step": False, "moves_first": True}),
    "hands_out_again": ("lost", PLAIN, {"hands_out_again": False}),
    "refuses_early": ("before its tick", PLAIN, {"refuses_early": False}),
    "remembers_ticks_given_out": ("two jobs", JUMPS, {"remembers_ticks_given_out": False}),
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_each_tick_makes_one_job(setting: Setting) -> None:
    assert explore(setting) == ""


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_a_broken_rule_is_noticed(rule: str) -> None:
    expected, setting, changes = BROKEN[rule]
    assert expected in explore(replace(setting, rules=replace(Rules(), **changes)))
