"""Line charts as SVG, without a library: `chart` for growth and rates, `quantile_chart` for distributions.

Colours come from the page's style sheet by class (`c0`, `c1`, ...), so a chart suits a light and a dark page.
Each point says its values when the pointer is over it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncq.cli.bench.markup import Markup, element, with_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq.cli.bench.histogram import Histogram

COLOURS = 14
"""How many colours the style sheet has. The first is grey."""

_WIDTH, _HEIGHT = 400.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 380.0, 30.0, 226.0
_X_GAP, _Y_GAP = 38.0, 22.0
"""The least distance between two labels of an axis."""
_SHARES = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Args:
        name: in the legend.
        points: pairs of x and y.
        colour: the number of its colour, from 0 to `COLOURS` - 1.
        dashed: drawn with gaps.
        strong: drawn thicker.
        hollow: the x of points that are drawn as a ring, such as a rate that was not kept up.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False
    strong: bool = False
    hollow: frozenset[float] = frozenset()


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its title with the unit, whether it is logarithmic, and its labels if they are given."""

    title: str
    log: bool = False
    labels: tuple[tuple[float, str], ...] = ()


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Markup:
    """Returns a chart with its title and its legend, as a `figure` element.

    On a logarithmic axis, a value of zero is drawn at the axis and labelled `0`. Lines without points are
    left out; without any point the answer says that nothing was measured.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return element("figure", _caption(title), element("p", "Nothing was measured.", class_="note"))
    xs = [point[0] for line in drawn for point in line.points]
    ys = [point[1] for line in drawn for point in line.points]
    across = _Scale(xs, x, _LEFT, _RIGHT, _X_GAP)
    up = _Scale(ys, y, _BOTTOM, _TOP, _Y_GAP)
    names = ", ".join(line.name for line in drawn)
    image = element(
        "svg",
        *_grid(across, up, x, y),
        *(_line(line, across, up, x, y) for line in sorted(drawn, key=lambda line: line.strong)),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=f"{title}: {names}",
    )
    return element("figure", _caption(title), image, _legend(drawn))


def quantile_chart(title: str, lines: Sequence[tuple[Line, Histogram]]) -> Markup:
    """Returns a chart of distributions: how long the share of jobs on the x axis took at most.

    The x axis gives each further nine (90 %, 99 %, 99.9 %) the same width, because the tail is what differs.
    The points of the given lines are replaced by those of the histograms.
    """
    drawn = []
    for line, times in lines:
        if not times.count:
            continue
        # A quantile beyond the last record would be a guess.
        most = min(4.0, math.log10(times.count))
        places = [step / 10 for step in range(int(most * 10) + 1)]
        points = [(place, times.ms(1 - 10.0**-place)) for place in places]
        drawn.append(Line(line.name, points, line.colour, line.dashed, line.strong))
    labels = tuple((-math.log10(1 - share), label) for share, label in _SHARES)
    return chart(title, Axis("share of the jobs, %", labels=labels), Axis("at most, ms", log=True), drawn)


class _Scale:
    """Places values between two pixels."""

    def __init__(self, values: Sequence[float], axis: Axis, low: float, high: float, gap: float) -> None:
        self._pixels = low, high
        self._log = axis.log and any(value > 0 for value in values)
        positive = [value for value in values if value > 0]
        self._zero = self._log and len(positive) < len(values)
        if self._log:
            least, most = min(positive), max(positive)
            self._least = least * 0.999
            self._ends = math.log10(least / (4 if self._zero else 1.1)), math.log10(most * 1.1)
        else:
            least, most = min(0.0, *values), max(values)
            self._ends = least, (most if most > least else least + 1.0)
        self.ticks: list[tuple[float, str]] = self._labels(axis, gap)

    def place(self, value: float) -> float:
        """Returns the pixel of a value."""
        start, end = self._ends
        if self._log:
            value = math.log10(value) if value > 0 else start
        low, high = self._pixels
        return low + (high - low) * (value - start) / (end - start)

    def _labels(self, axis: Axis, gap: float) -> list[tuple[float, str]]:
        if axis.labels:
            end = self._ends[1]
            return [(self.place(value), label) for value, label in axis.labels if value <= end * 1.001]
        room = max(2, int(abs(self._pixels[1] - self._pixels[0]) / gap))
        values = self._powers(room) if self._log else _steps(*self._ends, room)
        if self._log and len(values) < 2:
            start, end = (10**each for each in self._ends)
            values = [value for value in _steps(start, end, room) if start <= value <= end]
        zero = []
        if self._zero:
            zero = [(self._pixels[0], "0")]
            # Between zero and the smallest value, a logarithmic axis has no scale.
            values = [value for value in values if value >= self._least]
        return zero + [(self.place(value), short(value)) for value in values]

    def _powers(self, room: int) -> list[float]:
        """Returns round values for a logarithmic axis: 1, 2, 5, 10, or fewer where there is little room."""
        start, end = self._ends
        decades = range(math.floor(start), math.ceil(end) + 1)
        found: list[float] = []
        for digits, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
            found = [digit * 10.0**power for power in decades if power % every == 0 for digit in digits]
            found = [value for value in found if start <= math.log10(value) <= end]
            closest = math.log10(2 if len(digits) > 2 else 3 if len(digits) > 1 else 10) * every
            if (end - start) / closest <= room:
                break
        return found


def _steps(start: float, end: float, room: int) -> list[float]:
    """Returns round values with the same distance, at most `room` and one more."""
    rough = (end - start) / room
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(start / step - 1e-9)
    return [number * step for number in range(first, math.floor(end / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Returns a number as the label of an axis: `0.2`, `500`, `20k`, `1M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis) -> list[Markup]:
    parts = [
        element("text", y.title, x=2, y=14, class_="axis"),
        element("text", x.title, x=_RIGHT, y=_HEIGHT - 6, text_anchor="end", class_="axis"),
    ]
    for pixel, label in up.ticks:
        parts.append(element("line", x1=_LEFT, x2=_RIGHT, y1=pixel, y2=pixel, class_="grid"))
        parts.append(element("text", label, x=_LEFT - 6, y=pixel + 4, text_anchor="end"))
    for pixel, label in across.ticks:
        parts.append(element("line", x1=pixel, x2=pixel, y1=_TOP, y2=_BOTTOM, class_="grid"))
        parts.append(element("text", label, x=pixel, y=_BOTTOM + 16, text_anchor="middle"))
    return parts


def _line(line: Line, across: _Scale, up: _Scale, x: Axis, y: Axis) -> Markup:
    places = [(across.place(a), up.place(b)) for a, b in line.points]
    path = "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    kinds = f"line c{line.colour}" + " dashed" * line.dashed + " strong" * line.strong
    say = _label_of(x)
    dots = []
    for (a, b), (value, measured) in zip(places, line.points, strict=True):
        words = f"{line.name}: {measured:.4g} ({y.title}) at {say(value)} ({x.title})"
        ring = value in line.hollow
        dots.append(
            element(
                "circle",
                element("title", words + ", not kept up" * ring),
                cx=a,
                cy=b,
                r=4 if ring else 2.5 + line.strong,
                class_=f"{'ring' if ring else 'dot'} c{line.colour}",
            )
        )
    # A distribution has so many points that dots would hide the line: there they show only on hover.
    crowd = "dots crowd" if len(places) > 15 else "dots"
    return element("g", element("path", d=path, class_=kinds), element("g", *dots, class_=crowd))


def _label_of(axis: Axis) -> Callable[[float], str]:
    if not axis.labels:
        return lambda value: f"{value:,.6g}"
    return lambda value: f"{(1 - 10.0**-value) * 100:.4g}"


def _caption(title: str) -> Markup:
    return element("figcaption", with_code(title))


def _legend(lines: Sequence[Line]) -> Markup:
    entries = []
    for line in lines:
        kinds = f"line c{line.colour}" + " dashed" * line.dashed + " strong" * line.strong
        key = element("svg", element("path", d="M0 6 L22 6", class_=kinds), viewBox="0 0 22 12", class_="key")
        entries.append(element("li", key, line.name, class_="strong" if line.strong else None))
    return element("ul", *entries, class_="legend")
