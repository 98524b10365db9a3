"""The protocol holds in every scenario, and breaks as soon as one of its rules is broken.

This is the quick form; `python tests/model/run.py --full` explores all faults and takes minutes. To learn the
protocol from the model, read `rules.py`, then `scripts.py`, then `workers.py`.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from model.explorer import BROKEN, HOLDS, TooLargeError, explore
from model.mutants import MUTANTS, Mutant
from model.rules import Rules
from model.scenarios import SCENARIOS, Scenario
from model.setup import ALONE, Setup


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_protocol_holds(scenario: Scenario) -> None:
    result = explore(scenario.quick)
    assert result.verdict == HOLDS, result.report()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_noticed(mutant: Mutant) -> None:
    result = explore(mutant.setup)
    assert mutant.caught_by(result), result.report()


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if "(no poll)" in mutant.name], ids=lambda mutant: mutant.name
)
def test_a_mutant_without_polling_is_caught_for_its_other_rule(mutant: Mutant) -> None:
    result = explore(mutant.unbroken)
    assert result.verdict == HOLDS, result.report()


def test_every_rule_is_broken_by_some_mutant() -> None:
    broken = {
        rule.name for rule in fields(Rules) for mutant in MUTANTS if not getattr(mutant.rules, rule.name)
    }
    assert broken == {rule.name for rule in fields(Rules)}


def test_a_counterexample_is_the_shortest_way_to_the_broken_promise() -> None:
    rules = replace(Rules(), revoke_checks_pending=False)
    result = explore(Setup(rules, faults=0, parents=ALONE, waiters=0, workers=1, revoke=0))
    assert result.verdict == BROKEN
    assert result.report().splitlines() == [
        'broken: job 0 starts after revoke answered "revoked"',
        "  1. client: enqueue job 0",
        "  2. 1: XREADGROUP is given entry 1 (job 0)",
        "  3. client: revoke job 0 -> revoked",
        "  4. 1: the reply with entry 1 arrives",
        "  5. 1: starts job 0 (entry 1, 0 crashes)",
    ]


def test_an_exploration_that_is_too_large_says_so() -> None:
    with pytest.raises(TooLargeError, match="more than 100 states"):
        explore(Setup(faults=1), limit=100)
