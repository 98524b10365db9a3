"""How many examples a property-based test tries."""

from __future__ import annotations

import os

ARE_ALL = os.environ.get("TEST_EXAMPLES") == "all"
"""Whether all examples are tried, as `make trials` does. `make test` tries a fifth, others each time."""


def examples(count: int = 100) -> int:
    """Returns how many of `count` examples are tried in this run."""
    return count if ARE_ALL else max(15, count // 5)
