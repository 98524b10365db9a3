"""What every scenario is: a frozen description of the work, run against one system, giving named figures."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from system import System

from asyncq.cli.bench.histogram import Histogram


@dataclass(frozen=True)
class Measured:
    """The outcome of one run: figures by name, the histograms behind the percentiles, remarks."""

    figures: dict[str, float]
    histograms: dict[str, Histogram] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a plain tree."""
        histograms = {name: histogram.to_json() for name, histogram in self.histograms.items()}
        return {"figures": self.figures, "histograms": histograms, "notes": self.notes}


class Scenario(ABC):
    """One kind of load.

    Attributes:
        features: whether it measures what only asyncq has, and of its versions only this one.
    """

    features: ClassVar[bool] = False

    @abstractmethod
    async def run(self, system: System, url: str) -> Measured:
        """Do it, on a server that holds nothing, in this process; start and end the worker."""
