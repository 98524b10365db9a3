"""Draws the HTML page of a run from the stored JSON alone: `python benchmarks/report.py FILE.json`.

One section says how asyncq stands against its goals and the others, the next where it is not first; then come
the curves, every figure of every system, and what became of the jobs whose worker was killed.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import report
from histogram import Histogram
from report import Figure, floor_of, number

from asyncq.cli.bench.chart import COLOURS, Axis, Line, chart, quantile_chart
from asyncq.cli.bench.markup import Markup, element, joined, with_code
from asyncq.cli.bench.page import described, page, table

OURS = "asyncq"
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


@dataclass(frozen=True)
class Standing:
    """How asyncq stands in one figure.

    Args:
        figure: which.
        value: the median of the rounds.
        ratio: to the floor of the same round.
        better: the systems that keep jobs and are better, the best one first, with their values.
        of: how many systems that keep jobs have the figure.
        better_but_lose: the better ones that lost jobs when their worker was killed.
    """

    figure: Figure
    value: float
    ratio: float | None
    better: list[tuple[str, float]]
    of: int
    better_but_lose: list[tuple[str, float]]


class Results:
    """The stored results, as questions of the page.

    Args:
        tree: what `report.stored` returns.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.about: Mapping[str, Any] = tree["about"]
        self.described: dict[str, Mapping[str, Any]] = {row["name"]: row for row in tree["systems"]}
        self.guarantees: Mapping[str, Mapping[str, Any]] = tree["guarantees"]
        self.runs: list[dict[str, Any]] = tree["runs"]
        known = {field.name for field in fields(Figure)}
        self.figures = [Figure(**{key: row[key] for key in row if key in known}) for row in tree["figures"]]
        measured = {run["system"] for run in self.runs}
        self.systems = [name for name in self.described if name in measured]
        self.floor: str = self.about.get("floor") or next(iter(self.systems), "raw")

    @property
    def peers(self) -> list[str]:
        """The systems that asyncq is compared with: no floor, no variant, no other checkout of asyncq."""
        given = self.about.get("peers", ())
        return [name for name in self.systems if name in given and "@" not in name]

    def rounds(self, name: str, figure: Figure) -> dict[int, float]:
        return report.rounds_of(self.runs, name, figure.key)

    def ratio(self, name: str, figure: Figure) -> float | None:
        floor = floor_of(name, self.floor)
        if not figure.compared or name == floor:
            return None
        return report.ratio(self.rounds(name, figure), self.rounds(floor, figure))

    def keeps_jobs(self, name: str) -> bool | None:
        """Returns whether all jobs of a killed worker ended. None if no worker was killed."""
        found = self.guarantees.get(name)
        return None if found is None else not found["lost"]

    def colour(self, name: str) -> int:
        """Returns the colour of a system: grey for the floor, the next one for asyncq. Variants share it."""
        place = self._place(name)
        return place if place < COLOURS else 2 + (place - 2) % (COLOURS - 2)

    def line(self, name: str, points: Iterable[tuple[float, float]], hollow: Iterable[float] = ()) -> Line:
        dashed = "@" in name or self.colour(name) != self._place(name)
        strong = name == OURS
        return Line(name, list(points), self.colour(name), dashed, strong, frozenset(hollow))

    def _place(self, name: str) -> int:
        plain = [self.floor, OURS, *(each for each in self.systems if "@" not in each)]
        return list(dict.fromkeys(plain)).index(name.partition("@")[0])

    def histograms(self) -> dict[str, dict[str, Histogram]]:
        """Returns all rounds' durations together, by kind of load and by system."""
        merged: dict[str, dict[str, Histogram]] = {}
        for run in self.runs:
            for key, tree in run.get("histograms", {}).items():
                of_key = merged.setdefault(key, {})
                of_key.setdefault(run["system"], Histogram()).merge(Histogram.from_json(tree))
        return {
            key: {name: held[name] for name in self.systems if name in held} for key, held in merged.items()
        }

    def standings(self) -> list[Standing]:
        """Returns how asyncq stands in each figure that it has."""
        return [
            self._standing(figure, statistics.median(ours.values()))
            for figure in self.figures
            if (ours := self.rounds(OURS, figure))
        ]

    def _standing(self, figure: Figure, value: float) -> Standing:
        ratio = self.ratio(OURS, figure)
        rows = []
        for name in self.peers:
            if rounds := self.rounds(name, figure):
                median = statistics.median(rounds.values())
                # By the ratios to the floor of the same rounds, if there are some: no hour changes them.
                other = self.ratio(name, figure)
                pair = (other, ratio) if other is not None and ratio is not None else (median, value)
                is_better = pair[0] > pair[1] if figure.more_is_better else pair[0] < pair[1]
                rows.append((name, median, is_better))
        rows.sort(key=lambda row: row[1], reverse=figure.more_is_better)
        keeping = [row for row in rows if self.keeps_jobs(row[0]) is not False]
        losing = [row for row in rows if self.keeps_jobs(row[0]) is False]
        return Standing(
            figure,
            value,
            ratio,
            [(name, median) for name, median, is_better in keeping if is_better],
            1 + len(keeping),
            [(name, median) for name, median, is_better in losing if is_better],
        )


def draw(tree: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
        tree: what `report.stored` returns.
    """
    results = Results(tree)
    standings = results.standings()
    return page(
        f"Benchmarks of asyncq, {results.about['date']}",
        _head(results),
        [
            ("How asyncq stands", _overview(results, standings)),
            ("Where asyncq is not first", _not_first(results, standings)),
            ("Open loop: latency by rate of arrivals", _by_rate(results)),
            ("How the durations are distributed", _distributions(results)),
            ("How figures grow", _curves(results)),
            ("Every figure of every system", _tables(results)),
            ("What each system guarantees", _promises(results)),
            ("All percentiles", _percentiles(results)),
            ("Remarks", _remarks(results)),
        ],
    )


def _head(results: Results) -> list[Markup]:
    about = results.about
    libraries = ", ".join(f"{name} {each}" for name, each in about["libraries"].items() if each)
    others = [run["others"] for run in results.runs if "others" in run]
    busy = (
        f"{statistics.median(others):.1%} of it at the median, {max(others):.1%} at most" if others else "?"
    )
    pairs = [
        ("command", element("code", about["command"])),
        (
            "machine",
            f"{about['cores']} cores ({about['cpu']}), {about['system']}; one worker, TCP on loopback",
        ),
        ("used by others", busy),
        ("server", about["server"]),
        ("versions", f"Python {about['python']}, {libraries}"),
        ("rounds", str(max((run["round"] for run in results.runs), default=0))),
    ]
    if about.get("commit"):
        pairs.append(("code", element("code", about["commit"])))
    if not about.get("complete", True):
        pairs.append(("state", element("span", "unfinished: some cells are missing", class_="bad")))
    note = (
        f"The floor ({results.floor}) does the same steps on the same server without any feature. A ratio is "
        "the median of the ratios to the floor of the same round and the same variant (name@variant). "
        "Figures are medians of the rounds, with the smallest and the largest."
    )
    return [described(pairs), element("p", note, class_="note")]


def _value(figure: Figure, value: float) -> str:
    return f"{number(value)} {figure.unit}".strip()


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _verdict(met: bool | None) -> str:
    if met is None:
        return ""
    return element("span", "met" if met else "missed", class_="good" if met else "bad")


def _overview(results: Results, standings: list[Standing]) -> list[Markup]:
    if not standings:
        return []
    rows = []
    for each in standings:
        figure, place = each.figure, len(each.better) + 1
        first = ""
        if each.of > 1:
            first = f"{place} of {each.of}"
        if each.better:
            name, value = each.better[0]
            first = joined(first, " ", element("small", f"{name} {_value(figure, value)}"))
        rows.append(
            [
                with_code(figure.title),
                _value(figure, each.value),
                _ratio(each.ratio),
                joined(figure.goal_text, " ", _verdict(figure.met(each.value, each.ratio))),
                first,
            ]
        )
    goals = [each.figure.met(each.value, each.ratio) for each in standings]
    known = [met for met in goals if met is not None]
    summary = f"{sum(known)} of {len(known)} goals are met."
    if results.peers:
        summary += (
            " Places are among the systems that kept every job when their worker was killed, by the ratios."
        )
    heads = ["", "asyncq", "/ floor", "goal", "place; who is first"]
    return [element("p", summary), table(heads, rows, texts=frozenset({3, 4}), long=True)]


def _not_first(results: Results, standings: list[Standing]) -> list[Markup]:
    if not results.peers:
        return [element("p", "No other system was measured in this run.")]
    rows = []
    for each in standings:
        if not each.better:
            continue
        best, value = each.better[0]
        others = f"; before it {len(each.better)} of {each.of - 1} others" if len(each.better) > 1 else ""
        rows.append(
            element(
                "li",
                with_code(each.figure.title),
                f": asyncq {_value(each.figure, each.value)}, {best} {_value(each.figure, value)}{others}.",
            )
        )
    compared = sum(each.of > 1 for each in standings)
    said = f"In {len(rows)} of {compared} figures, another system that kept every job is better:"
    parts = [element("p", said), element("ul", *rows)] if rows else []
    if not rows:
        parts.append(element("p", f"asyncq is first in all {compared} figures that another system has, too."))
    losing = [
        element(
            "li",
            with_code(each.figure.title),
            ": " + ", ".join(f"{name} {_value(each.figure, value)}" for name, value in each.better_but_lose),
            f" (asyncq {_value(each.figure, each.value)}).",
        )
        for each in standings
        if each.better_but_lose
    ]
    if losing:
        parts.append(element("p", "Better, but they lost jobs when their worker was killed:"))
        parts.append(element("ul", *losing))
    unknown = [name for name in results.peers if results.keeps_jobs(name) is None]
    if unknown:
        parts.append(
            element("p", f"No worker of these was killed in this run: {', '.join(unknown)}.", class_="note")
        )
    return parts


def _by_rate(results: Results) -> list[Markup]:
    ladder = {
        int(key.removeprefix("open")): held
        for key, held in results.histograms().items()
        if key.removeprefix("open").isdecimal() and key.startswith("open")
    }
    if not ladder:
        return []
    charts = []
    for name, q in QUANTILES:
        lines = []
        for system in results.systems:
            points = [(rate, held[system].ms(q)) for rate, held in sorted(ladder.items()) if system in held]
            hollow = [rate for rate, _ in points if not _kept_up(results, system, rate)]
            lines.append(results.line(system, points, hollow))
        charts.append(
            chart(
                f"{name}, from the due time",
                Axis("arrivals per second", log=True),
                Axis("ms", log=True),
                lines,
            )
        )
    note = "A ring is a rate that the system did not keep up with. Higher rates were not tried then."
    return [element("p", note, class_="note"), element("div", *charts, class_="tiles")]


def _kept_up(results: Results, system: str, rate: int) -> bool:
    """Returns whether the system kept up in most rounds."""
    rounds = report.rounds_of(results.runs, system, f"open{rate}.kept_up")
    return not rounds or statistics.median(rounds.values()) >= 0.5


def _distributions(results: Results) -> list[Markup]:
    charts = []
    for key, held in _sorted(results.histograms()):
        lines = [(results.line(name, []), times) for name, times in held.items()]
        charts.append(quantile_chart(_load_title(results, key), lines))
    if not charts:
        return []
    note = "Read: this share of the jobs took so long at most. All rounds together."
    return [element("p", note, class_="note"), element("div", *charts, class_="tiles")]


def _load_title(results: Results, key: str) -> str:
    """Returns what the titles of a load's figures have in common, the key if they have nothing."""
    titles = [figure.title for figure in results.figures if figure.key.partition(".")[0] == key]
    return (_common(titles)[0] if len(titles) > 1 else "") or key


def _sorted(held: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Sorts kinds of load: closed loops, then open ones by their rate, then the others as they are."""
    closed = ["closed", "inflight100"]

    def place(item: tuple[str, Any]) -> tuple[int, int]:
        rate = item[0].removeprefix("open")
        if rate.isdecimal():
            return len(closed), int(rate)
        return (closed.index(item[0]) if item[0] in closed else len(closed) + 1), 0

    return sorted(held.items(), key=place)


def _curves(results: Results) -> list[Markup]:
    found: dict[str, dict[str, Any]] = {}
    points: dict[str, dict[str, dict[float, list[float]]]] = {}
    for run in results.runs:
        for curve in run.get("curves", ()):
            key = curve["key"]
            found.setdefault(key, curve)
            of_system = points.setdefault(key, {}).setdefault(run["system"], {})
            for x, y in curve["points"]:
                of_system.setdefault(float(x), []).append(float(y))
    charts = []
    for key, curve in found.items():
        lines = [
            results.line(name, [(x, statistics.median(ys)) for x, ys in sorted(points[key][name].items())])
            for name in results.systems
            if name in points[key]
        ]
        ys = [y for line in lines for _, y in line.points]
        positive = [y for y in ys if y > 0]
        wide = bool(positive) and max(positive) > 30 * min(positive)
        charts.append(
            chart(curve["title"], Axis(curve["x"], log=curve["log_x"]), Axis(curve["y"], log=wide), lines)
        )
    return [element("div", *charts, class_="tiles")] if charts else []


def _tables(results: Results) -> list[Markup]:
    groups: dict[str, list[Figure]] = {}
    for figure in results.figures:
        if any(results.rounds(name, figure) for name in results.systems):
            groups.setdefault(figure.key.partition(".")[0], []).append(figure)
    tables = [_group(results, key, figures) for key, figures in groups.items()]
    note = (
        "The ratio to the floor stands behind the figure, the range of the rounds below it. Systems that "
        "lost jobs when their worker was killed are marked."
    )
    return [element("p", note, class_="note"), element("div", *tables, class_="tables")] if tables else []


def _group(results: Results, key: str, figures: list[Figure]) -> Markup:
    title, heads = _common([figure.title for figure in figures])
    columns = []
    for figure, head in zip(figures, heads, strict=True):
        words = [word for word in (head, figure.unit) if word]
        goal = [element("br"), element("small", f"goal {figure.goal_text}")] if figure.goal_text else []
        columns.append(joined(with_code(", ".join(words) or "count"), *goal))
    rows: list[list[str]] = []
    ours: frozenset[int] = frozenset()
    for name in results.systems:
        cells = [_cell(results, name, figure) for figure in figures]
        if any(cells):
            if name == OURS:
                ours = frozenset({len(rows)})
            rows.append([_named(results, name), *(cell or "-" for cell in cells)])
    return table(["", *columns], rows, caption=with_code(title or key), strong=ours)


def _named(results: Results, name: str) -> str:
    """Returns the name of a system, and that it lost jobs if it did."""
    if results.keeps_jobs(name.partition("@")[0]) is not False:
        return name
    return joined(name, element("br"), element("small", "lost jobs", class_="bad"))


def _cell(results: Results, name: str, figure: Figure) -> str:
    rounds = results.rounds(name, figure)
    if not rounds:
        return ""
    middle, ratio = statistics.median(rounds.values()), results.ratio(name, figure)
    parts: list[str] = [number(middle)]
    if ratio is not None:
        parts += [" ", element("small", f"x {ratio:.2f}")]
    # The goals are those of asyncq on the usual server and Python.
    if name == OURS and (met := figure.met(middle, ratio)) is not None:
        parts += [" ", _verdict(met)]
    least, most = min(rounds.values()), max(rounds.values())
    if least != most:
        parts += [element("br"), element("small", f"{number(least)} - {number(most)}")]
    return joined(*parts)


def _common(titles: list[str]) -> tuple[str, list[str]]:
    """Returns what the titles begin with in common, up to a comma or a colon, and the rest of each."""
    if len(titles) == 1:
        return titles[0], [""]
    ends = [index for index, letter in enumerate(titles[0]) if letter in ",:"] + [len(titles[0])]
    for end in sorted(ends, reverse=True):
        start = titles[0][:end]
        # A comma inside of a number, such as 1,000, ends nothing.
        if start and all(
            title == start or title.startswith((f"{start}: ", f"{start}, ")) for title in titles
        ):
            return start, [title[end:].lstrip(",: ") for title in titles]
    return "", titles


def _promises(results: Results) -> list[Markup]:
    cards = [
        _card(results, name, row)
        for name, row in results.described.items()
        if "@" not in name and len(row) > 1
    ]
    if not cards:
        return []
    note = (
        "Found by killing: SIGKILL ended the worker and its children in the middle of their jobs, and "
        "another worker started at once. The jobs themselves wrote down when they began and ended. What a "
        "system promises is what its adapter says."
    )
    return [element("p", note, class_="note"), element("div", *cards, class_="cards")]


def _card(results: Results, name: str, row: Mapping[str, Any]) -> Markup:
    parts = [element("h3", name)]
    if row.get("missing"):
        return element("div", *parts, element("p", f"Not measured: {row['missing']}"), class_="card")
    parts.append(element("p", *_found(results, name)))
    for word, key in (("Promises", "promise"), ("Set for the kill", "recovery"), ("Settings", "settings")):
        if row.get(key):
            parts.append(element("p", element("b", f"{word}: "), with_code(row[key])))
    versions = ", ".join(f"{each} {found}" for each, found in row.get("versions", {}).items() if found)
    parts.append(element("p", f"Python {row.get('python', '?')}; {versions}", class_="note"))
    return element("div", *parts, class_="card")


def _found(results: Results, name: str) -> list[Markup]:
    found = results.guarantees.get(name)
    if found is None:
        return [element("span", "Its worker was not killed in this run.", class_="note")]
    lost = found["lost"]
    jobs = f"{found['jobs']:,} jobs" if "jobs" in found else "its jobs"
    first = (
        element("span", f"{lost:,.0f} of {jobs} had not ended when the time was up.", class_="bad")
        if lost
        else element("span", f"Lost none of {jobs}.", class_="good")
    )
    words = ""
    if "interrupted" in found:
        words += f" {found['redelivered']:,} of {found['interrupted']:,} interrupted jobs began again"
        if "redelivered_s" in found:
            words += f", after {found['redelivered_s']:g} s at the median"
            words += f", the last one after {found['last_redelivered_s']:g} s"
        words += "."
    words += f" Ran to their end twice: {found.get('run_twice', 0):,.0f}."
    words += f" Ended without a stored result: {found.get('no_result', 0):,.0f}."
    return [first, joined(words)]


def _percentiles(results: Results) -> list[Markup]:
    rows = [
        [
            with_code(_load_title(results, key)),
            name,
            f"{times.count:,}",
            *(f"{times.ms(q):.2f}" for _, q in (*QUANTILES, ("largest", 1.0))),
        ]
        for key, held in _sorted(results.histograms())
        for name, times in held.items()
        if times.count
    ]
    heads = ["all rounds together, ms", "system", "count", *(name for name, _ in QUANTILES), "largest"]
    return [table(heads, rows, texts=frozenset({1}))] if rows else []


def _remarks(results: Results) -> list[Markup]:
    def cell(run: Mapping[str, Any]) -> str:
        return f"{run['system']}, {run['scenario']}, round {run['round']}: "

    skipped = dict.fromkeys(
        f"{run['system']}, {run['scenario']}: {run['skipped']}" for run in results.runs if "skipped" in run
    )
    disturbed = [
        f"{cell(run)}others used {run['others']:.0%}" for run in results.runs if run.get("disturbed")
    ]
    failed = [f"{cell(run)}{run['error']}" for run in results.runs if "error" in run]
    return [
        *_listed("Failed", failed),
        *_listed("Not measured", skipped),
        *_listed(
            "Calls raised in the open loop; higher rates were not tried",
            report.raised_under_load(results.runs),
        ),
        *_listed("Measured while others used the machine, at the quietest try", disturbed),
    ]


def _listed(title: str, lines: Iterable[str]) -> list[Markup]:
    shown: list[Markup] = [element("li", line) for line in lines]
    return [element("h3", title), element("ul", *shown)] if shown else []
