"""What one look of `asyncq doctor` has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        check: what was looked at, in one word or two.
        grade: `ok`; `warning` for what works and may go wrong; `error` for what does not work, or loses jobs.
        text: what was found, for a person.
        fix: what to do; empty if it is `ok`.
    """

    check: str
    grade: Grade
    text: str
    fix: str = ""


def good(check: str, text: str) -> Diagnosis:
    """Returns a finding that is all right."""
    return Diagnosis(check, "ok", text)


def warning(check: str, text: str, fix: str) -> Diagnosis:
    """Returns a finding that works now, and may go wrong."""
    return Diagnosis(check, "warning", text, fix)


def error(check: str, text: str, fix: str) -> Diagnosis:
    """Returns a finding that keeps jobs from running, or loses them."""
    return Diagnosis(check, "error", text, fix)
