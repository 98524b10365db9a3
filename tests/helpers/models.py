"""A class whose annotations can be resolved only where something else has imported their names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclasses.dataclass
class Order:
    """A dataclass. The class in its annotation is imported for type checkers only."""

    number: int
    at: datetime
