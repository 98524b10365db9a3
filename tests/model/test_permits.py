"""Permits of limited tasks: never too many bodies run, no job waits for ever, each rule is needed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from model.permits import Rules, Setting, explore

PLAIN = Setting()
NESTED = replace(PLAIN, nested=True)
DEATH = replace(PLAIN, jobs=2, deaths=1)
REVOKED = replace(PLAIN, workers=1, revocations=1)

SETTINGS = {
    "no worker dies, and no deferred job has to return by itself": PLAIN,
    "two permits": replace(PLAIN, permits=2),
    "a job waits for another job of its task": NESTED,
    "a worker dies": DEATH,
    "a worker dies, and a job waits for another job of its task": replace(DEATH, nested=True),
    "a waiting job is revoked": REVOKED,
}

MUTANTS = {
    "checks_after_defer": (replace(PLAIN, jobs=2), "cannot come to rest"),
    "drops_permits_of_dead_workers": (DEATH, "cannot come to rest"),
    "releases_permit_during_wait": (NESTED, "cannot come to rest"),
    "releases_before_it_reacquires": (replace(NESTED, jobs=4, permits=2, workers=1), "bodies run at once"),
    "wakes_next_if_one_is_gone": (REVOKED, "cannot come to rest"),
    "returns_by_itself": (DEATH, "cannot come to rest"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_permits_are_never_exceeded_and_no_job_waits_for_ever(name: str) -> None:
    assert explore(SETTINGS[name]) == ""


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_a_broken_rule_of_the_permits_is_noticed(rule: str) -> None:
    setting, why = MUTANTS[rule]
    assert why in explore(replace(setting, rules=replace(Rules(), **{rule: False})))
