"""The dashboard and the alert rules of docs/monitoring use metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from asyncq.integrations import prometheus

FOLDER = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((FOLDER / "prometheus-alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PAGE = (FOLDER.parent / "howto" / "monitoring.md").read_text(encoding="utf-8")

LABELS = {
    "asyncq_jobs_total": {"task", "queue", "state"},
    "asyncq_queue_depth": {"queue"},
    "asyncq_queue_oldest_seconds": {"queue"},
    "asyncq_workers": set(),
    "asyncq_dead_jobs": set(),
    "asyncq_embedded": set(),
    **{
        f"asyncq_{name}_seconds{suffix}": {"task", "queue", *({"le"} if suffix == "_bucket" else ())}
        for name in ("job_wait", "job_run", "result_latency")
        for suffix in ("_bucket", "_sum", "_count")
    },
}


def _expressions() -> list[str]:
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*shown, *(rule["expr"] for rule in RULES)]


def _names(text: str) -> set[str]:
    return set(re.findall(r"\basyncq_\w+", text))


def test_the_labels_here_are_those_of_the_metrics():
    registry = CollectorRegistry()
    metrics = prometheus._Metrics.made(registry, prometheus.BUCKETS)
    metrics.jobs.labels("t", "q", "SUCCESS").inc()
    for histogram in (metrics.wait, metrics.run, metrics.latency):
        histogram.labels("t", "q").observe(1)
    figures = prometheus.Figures({"q": prometheus.QueueFigures(1, 2.0, 3)}, prometheus.NamespaceFigures(1, 0))
    measured = [prometheus._Measured(figures, 0.0, is_embedded=True, keeps=1.0)]
    families = [*registry.collect(), *prometheus._families(measured)]
    samples = [sample for family in families for sample in family.samples]
    shown = {sample.name: set(sample.labels) for sample in samples if not sample.name.endswith("_created")}
    assert shown == LABELS


@pytest.mark.parametrize("expression", _expressions())
def test_an_expression_uses_metrics_and_labels_that_there_are(expression):
    names = _names(expression)
    assert names
    assert names <= set(LABELS)
    selectors = "".join(re.findall(r"\{([^}]*)\}", expression))
    used = set(re.findall(r"(\w+)(?:=|!)", selectors)) | {
        label.strip() for found in re.findall(r"\bby \(([^)]*)\)", expression) for label in found.split(",")
    }
    assert used <= set.union(*(LABELS[name] for name in names))
    assert expression.count("(") == expression.count(")")


def test_every_metric_is_on_the_dashboard_or_in_a_rule_and_on_the_page():
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for each in _expressions() for name in _names(each)}
    there = {re.sub(r"_(bucket|sum|count)$", "", name) for name in LABELS}
    assert used == there
    assert there <= _names(PAGE)


def test_the_variables_of_the_dashboard_are_labels_of_their_metric():
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()
            assert label in LABELS[metric]
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) <= defined


def test_the_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [cell for panel in panels for cell in _cells(panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    return [
        (x, y)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["alert"] in PAGE


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", str(FOLDER / "prometheus-alerts.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
