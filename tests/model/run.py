"""Explores every scenario and every mutant, and prints the results as tables.

    python tests/model/run.py            the small form that pytest runs, in seconds
    python tests/model/run.py --full     all faults: half an hour and 2 to 3 GB
    python tests/model/run.py flush      only those with this word in their names

It prints Markdown. If a scenario does not hold, or a mutant is not caught, it also prints the counterexample,
and the exit code is 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this folder is the package `model`

from model.explorer import HOLDS, Result, explore  # noqa: E402  the path must be set first
from model.mutants import MUTANTS, Mutant  # noqa: E402  as above
from model.scenarios import SCENARIOS, Scenario  # noqa: E402  as above

if TYPE_CHECKING:
    from model.setup import Setup


def main() -> int:
    """Prints the tables and returns the exit code."""
    full = "--full" in sys.argv[1:]
    words = [word for word in sys.argv[1:] if word != "--full"]
    mutants = [mutant for mutant in MUTANTS if _named(mutant.name, words)]
    wrong = _scenarios([scenario for scenario in SCENARIOS if _named(scenario.name, words)], full=full)
    wrong += _mutants(mutants)
    if full:
        wrong += _worlds_of(mutants)
    for name, result in wrong:
        _print(f"\nNOT AS IT MUST BE: {name}\n{result.report()}")
    return 1 if wrong else 0


def _named(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def _scenarios(scenarios: list[Scenario], *, full: bool) -> list[tuple[str, Result]]:
    _print("| Scenario | faults | states | edges | result | s |\n|---|---|---|---|---|---|")
    wrong = []
    for scenario in scenarios:
        setup = scenario.full if full else scenario.quick
        result = explore(setup)
        _print(f"| {scenario.name} | {setup.faults} | {_counts(result)} |")
        if result.verdict != HOLDS:
            wrong.append((scenario.name, result))
    return wrong


def _mutants(mutants: list[Mutant]) -> list[tuple[str, Result]]:
    _print("\n| Mutant | caught as | states | moves to it |\n|---|---|---|---|")
    wrong = []
    for mutant in mutants:
        result = explore(mutant.setup)
        _print(
            f"| {mutant.name} | {result.verdict}: {result.why} | {result.states:,} | {len(result.trace)} |"
        )
        if not mutant.caught_by(result):
            wrong.append((mutant.name, result))
    return wrong


def _worlds_of(mutants: list[Mutant]) -> list[tuple[str, Result]]:
    """Explores each mutant's world with no rule broken. It must hold: the rule makes the difference."""
    _print("\n| World of the mutant, unbroken | faults | states | edges | result | s |")
    _print("|---|---|---|---|---|---|")
    explored: set[Setup] = set()
    wrong = []
    for mutant in mutants:
        if mutant.unbroken in explored:
            continue
        explored.add(mutant.unbroken)
        result = explore(mutant.unbroken)
        _print(f"| {mutant.name} | {mutant.unbroken.faults} | {_counts(result)} |")
        if result.verdict != HOLDS:
            wrong.append((mutant.name, result))
    return wrong


def _counts(result: Result) -> str:
    return f"{result.states:,} | {result.edges:,} | {result.verdict} | {result.seconds:.1f}"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
