"""The HTML page of one `asyncq bench` measurement, drawn from the tree that `--save` writes alone."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from asyncq.cli.bench.chart import Axis, Line, chart, quantile_chart
from asyncq.cli.bench.comparison import LEAST, LEVEL, SLOWER
from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.markup import Markup, element
from asyncq.cli.bench.page import described, page, table
from asyncq.cli.bench.report import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TITLES = {"enqueue": "enqueue", "result": "enqueue to result", "in_flight_times": "100 in flight"}
_METHOD = (
    "Verdicts come from the two-sided Mann-Whitney U test on the blocks, exact, with Holm's correction for "
    f"the number of figures: p below {LEVEL:g}. The ratio is that of the medians. "
    f"A difference below {LEAST:.0%} is not reported: two runs of the same code differ by so "
    "much."
)


def draw(tree: Mapping[str, Any]) -> str:
    """Returns the page of a measurement."""
    about = dict(tree["about"])
    if isinstance(others := about.get("others"), float):
        about["others"] = f"used {others:.1%} of the machine meanwhile"
    words = {key.replace("_", " "): _plain(value) for key, value in tree["parameters"].items()}
    return page(
        f"asyncq bench {tree['command']}",
        [described([*((key, _plain(value)) for key, value in about.items()), *words.items()])],
        [
            ("Compared", _comparison(tree)),
            ("Figures", [_figures(tree["figures"])]),
            ("Latency by rate of arrivals", _steps(tree)),
            ("Distributions", _distributions(tree)),
            ("The blocks", _blocks(tree)),
        ],
    )


def number(value: float) -> str:
    """Formats a figure: three digits, or whole numbers from 1,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _figures(figures: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        [
            each["title"],
            f"{number(each['median'])} {each['unit']}",
            f"{number(min(each['blocks']))} - {number(max(each['blocks']))}",
        ]
        for each in figures
    ]
    return table(["", "median of the blocks", "smallest - largest block"], rows)


def _comparison(tree: Mapping[str, Any]) -> list[Markup]:
    comparison = tree.get("comparison")
    if comparison is None:
        return []
    base = comparison["base"]
    rows = []
    for each in comparison["verdicts"]:
        mood = "bad" if each["verdict"] == SLOWER else "good" if each["verdict"] == "faster" else "note"
        ratio = "-" if each["ratio"] is None else f"{each['ratio']:.3f}"
        medians = [f"{number(statistics.median(each[key]))} {each['unit']}" for key in ("base", "now")]
        rows.append(
            [
                each["title"],
                *medians,
                ratio,
                f"{each['p']:.2g}",
                element("span", each["verdict"], class_=mood),
            ]
        )
    parts = [
        element("p", f"Against {base['name']}, of {base['about'].get('date', 'an unknown day')}."),
        table(["", "then", "now", "now / then", "p", "verdict"], rows, texts=frozenset({5})),
        element("p", _METHOD, class_="note"),
    ]
    if notes := comparison["notes"]:
        parts.insert(1, element("ul", *(element("li", note) for note in notes)))
    return parts


def _steps(tree: Mapping[str, Any]) -> list[Markup]:
    steps = tree.get("steps", [])
    if not steps:
        return []
    most = max(step["blocks"] for step in steps)
    missed = frozenset(float(step["rate"]) for step in steps if step["kept_up_blocks"] < most)
    lines = [
        Line(
            name,
            [
                (step["rate"], step["result"][f"{name}_ms"])
                for step in steps
                if f"{name}_ms" in step["result"]
            ],
            colour,
            hollow=missed,
        )
        for colour, (name, _) in enumerate(QUANTILES[:-1], 1)
    ]
    rows = [
        [
            f"{step['rate']:,}/s",
            f"{step['kept_up_blocks']} of {most}",
            f"{step['lost']:,}",
            *(number(step["result"].get(f"{name}_ms", 0.0)) for name, _ in QUANTILES),
        ]
        for step in steps
    ]
    return [
        element("p", f"Kept up with: {tree['kept_up_per_s']:,} jobs/s in at least half of the blocks."),
        element(
            "div",
            chart(
                "from the due time to the result (a ring: not kept up in every block)",
                Axis("arrivals per second", log=True),
                Axis("ms", log=True),
                lines,
            ),
            class_="tiles",
        ),
        table(["arrivals", "kept up, blocks", "lost", *(f"{name}, ms" for name, _ in QUANTILES)], rows),
    ]


def _distributions(tree: Mapping[str, Any]) -> list[Markup]:
    lines = [
        (Line(title, [], number), Histogram.from_json(tree[key]["histogram"]))
        for number, (key, title) in enumerate(_TITLES.items(), 1)
        if key in tree and isinstance(tree[key], dict)
    ]
    lines += [
        (Line(f"{step['rate']:,}/s", [], number), Histogram.from_json(step["result"]["histogram"]))
        for number, step in enumerate(tree.get("steps", []), 1)
    ]
    if not lines:
        return []
    return [element("div", quantile_chart("how long the jobs took at most", lines), class_="tiles")]


def _blocks(tree: Mapping[str, Any]) -> list[Markup]:
    verdicts = {each["key"]: each for each in tree.get("comparison", {}).get("verdicts", [])}
    charts = []
    for figure in tree["figures"]:
        lines = [Line("now", _numbered(figure["blocks"]), 1, strong=True)]
        if (verdict := verdicts.get(figure["key"])) is not None:
            lines.append(Line("then", _numbered(verdict["base"]), 0, dashed=True))
        charts.append(chart(figure["title"], Axis("block"), Axis(figure["unit"]), lines))
    return [element("div", *charts, class_="tiles")]


def _numbered(blocks: Sequence[float]) -> list[tuple[float, float]]:
    return [(float(number), value) for number, value in enumerate(blocks, 1)]
