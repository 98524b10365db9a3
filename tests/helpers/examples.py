"""How many examples a property is tried with."""

from __future__ import annotations

import os

ARE_ALL = os.environ.get("TEST_EXAMPLES") == "all"
"""Whether there is time: `make trials` says so. `make test` tries a fifth of them, and others each time."""


def examples(count: int = 100) -> int:
    """Of so many examples, those that there is time for."""
    return count if ARE_ALL else max(15, count // 5)
