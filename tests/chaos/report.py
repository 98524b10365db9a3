"""The report of a trial: its figures, each with its limit, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.stopwatch import Took


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: str
    limit: str
    good: bool


@dataclass
class Report:
    """The figures of one trial. Each method adds one."""

    trial: str
    figures: list[Figure] = field(default_factory=list)

    def equal(self, name: str, value: object, expected: object) -> None:
        self.figures.append(Figure(name, str(value), f"= {expected}", value == expected))

    def below(self, name: str, value: float | Took, limit: float, unit: str = "") -> None:
        self.figures.append(Figure(name, f"{value:.4g}{unit}", f"<= {limit:.4g}{unit}", value <= limit))

    def above(self, name: str, value: float, limit: float, unit: str = "") -> None:
        self.figures.append(Figure(name, f"{value:.4g}{unit}", f">= {limit:.4g}{unit}", value >= limit))

    def fact(self, name: str, value: object) -> None:
        """Adds a figure without a limit."""
        self.figures.append(
            Figure(name, f"{value:.4g}" if isinstance(value, float) else str(value), "", good=True)
        )

    @property
    def good(self) -> bool:
        return bool(self.figures) and all(figure.good for figure in self.figures)

    def complaint(self) -> str:
        """Returns which limits were not kept, as a text."""
        bad = [
            f"{figure.name}: {figure.value}, not {figure.limit}" for figure in self.figures if not figure.good
        ]
        return f"{self.trial}: {'; '.join(bad) or 'nothing was measured'}"

    def rows(self) -> str:
        """Returns the figures as rows of a Markdown table."""
        rows = []
        for number, each in enumerate(self.figures):
            name, verdict = "" if number else self.trial, "" if each.good else "**no**"
            rows.append(f"| {name} | {each.name} | {each.value} | {each.limit} | {verdict} |")
        return "\n".join(rows)
