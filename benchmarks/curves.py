"""How a curve looks in the results: how a figure grows with a size."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Points = Iterable[tuple[float, float]]


def curve(key: str, title: str, x: str, y: str, points: Points) -> dict[str, Any]:
    """Returns a curve for `Measured.curves`, with a logarithmic x axis.

    Args:
        key: of the curve. Systems have the same key for the same curve.
        title: of the chart.
        x: the title of the x axis, with its unit.
        y: the title of the y axis, with its unit.
        points: pairs of numbers.
    """
    return {"key": key, "title": title, "x": x, "y": y, "log_x": True, "points": [[*pair] for pair in points]}


def medians(measured: Mapping[int, Sequence[float]], digits: int = 2) -> list[tuple[int, float]]:
    """Returns the median of what was measured at each size, as the points of a curve."""
    return [(size, round(statistics.median(values), digits)) for size, values in measured.items() if values]


def growth(points: Sequence[tuple[int, float]]) -> float:
    """Returns how many times as large the last point of a curve is as its first.

    >>> growth([(0, 10.0), (1_000, 9.0), (1_000_000, 12.0)])
    1.2
    """
    return round(points[-1][1] / points[0][1], 3)


def paired_growth(smaller: Sequence[float], larger: Sequence[float]) -> float:
    """Returns the median ratio of measurements that were made in turn at a smaller and at a larger size.

    >>> paired_growth([10.0, 20.0, 10.0], [11.0, 24.0, 30.0])
    1.2
    """
    return round(statistics.median(b / a for a, b in zip(smaller, larger, strict=True)), 3)
