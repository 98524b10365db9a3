"""Classes that travel, in a module of their own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclasses.dataclass
class Order:
    """Its annotation is imported for type checkers only."""

    number: int
    at: datetime
