"""The base class of scenarios. A scenario is a description of work; it runs against one system and returns
figures by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from histogram import Histogram
from system import System


@dataclass(frozen=True)
class Measured:
    """The results of one run: figures by name, the histograms behind the percentiles, remarks, curves.

    A curve is `{"key", "title", "x", "y", "log_x", "points"}`: `x` and `y` are the titles of the axes with
    their units, `points` are pairs of numbers. Curves of one key are drawn in one chart, a line per system.
    """

    figures: dict[str, float]
    histograms: dict[str, Histogram] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns the results as a tree of plain data."""
        histograms = {name: histogram.to_json() for name, histogram in self.histograms.items()}
        tree = {"figures": self.figures, "histograms": histograms, "notes": self.notes}
        return {**tree, "curves": self.curves} if self.curves else tree


class Scenario(ABC):
    """One kind of load.

    Attributes:
        features: whether it measures features that only this version of asyncq has.
        ours: whether it is only for asyncq and the floor.
        once: whether one round is enough.
        limit: after how many seconds a run is given up.
        environment: variables that client and worker get.
    """

    features: ClassVar[bool] = False
    ours: ClassVar[bool] = False
    once: ClassVar[bool] = False
    limit: ClassVar[float] = 90.0
    environment: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    async def run(self, system: System, url: str) -> Measured:
        """Runs the scenario in this process, on an empty server. Starts and stops the worker.

        Raises:
            Skipped: the system cannot do it.
        """
