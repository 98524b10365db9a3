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
    "nobody dies, and nobody has to come by himself": PLAIN,
    "two places": replace(PLAIN, places=2),
    "a job waits for one of its kind": NESTED,
    "a worker dies": DEATH,
    "a worker dies, and a job waits for one of its kind": replace(DEATH, nested=True),
    "who waits is revoked": REVOKED,
}

MUTANTS = {
    "looks_after_postpone": (replace(PLAIN, jobs=2), "cannot come to rest"),
    "drops_claims_of_the_dead": (DEATH, "cannot come to rest"),
    "gives_its_place_while_it_waits": (NESTED, "cannot come to rest"),
    "gives_before_it_takes_again": (replace(NESTED, jobs=4, places=2, workers=1), "bodies run at once"),
    "calls_the_next_if_one_is_gone": (REVOKED, "cannot come to rest"),
    "comes_by_itself": (DEATH, "cannot come to rest"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_places_hold(name: str) -> None:
    assert explore(SETTINGS[name]) == ""


@pytest.mark.parametrize("rule", [field.name for field in fields(Rules)])
def test_each_rule_is_needed(rule: str) -> None:
    setting, why = MUTANTS[rule]
    assert why in explore(replace(setting, rules=replace(Rules(), **{rule: False})))
