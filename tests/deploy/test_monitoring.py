"""Rules and dashboard use only metrics that a run really has."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.reporting.metrics import RunMetrics
from pipeline.reporting.output_metrics import OutputMetrics
from pipeline.reporting.tally import Tally
from tools.deploy.render_manifests import ROOT, RULES

DASHBOARD = ROOT / "deploy/grafana/dashboards/dladiff.json"
OTHERS = {"kube_cronjob_status_last_successful_time"}
"""Metrics of kube-state-metrics, which the alerts may use."""
NAME = re.compile(r"\b(?:ray_)?dladiff_\w+|\bkube_\w+|\bdladiff:\w+:\w+")


def driver_metrics() -> set[str]:
    """Names of the driver's series."""
    names = set()
    for family in RunMetrics(Tally(), "a").registry.collect():
        suffixes = {
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
            "info": ["_info"],
        }
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def exporter_metrics() -> set[str]:
    """Names of the series of ``dladiff exporter``."""
    return {family.name for family in OutputMetrics([]).registry.collect()}


def worker_metrics() -> set[str]:
    """Names of the workers' series as Ray exports them, from the source that defines them."""
    names = set()
    for path in (ROOT / "pipeline").rglob("*.py"):
        text = path.read_text()
        if "ray.util.metrics" in text:
            for call in ast.walk(ast.parse(text)):
                names |= exported(call)
    return names


def exported(call: ast.AST) -> set[str]:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args):
        return set()
    if call.func.id != "_counter":
        return set()
    first = call.args[0]
    if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
        return set()
    if not first.value.startswith("dladiff_"):
        return set()
    return {f"ray_{first.value}_total"}


def recorded() -> set[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def expressions(path: Path) -> list[str]:
    """Every PromQL expression of a dashboard or a rule file."""
    tree: Any = yaml.safe_load(path.read_text())  # JSON is YAML

    def find(node: Any) -> list[str]:
        if isinstance(node, list):
            return [text for one in node for text in find(one)]
        if not isinstance(node, dict):
            return []
        own = [node["expr"]] if isinstance(node.get("expr"), str) else []
        return own + [text for one in node.values() for text in find(one)]

    return find(tree)


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_only_metrics_that_exist_are_used(path: Path) -> None:
    used = {name for text in expressions(path) for name in NAME.findall(text)}
    assert len(used) >= 8
    of_runs = driver_metrics() | worker_metrics()
    assert used <= of_runs | exporter_metrics() | recorded() | OTHERS


def test_the_dashboard_is_of_the_outputs_that_are_chosen() -> None:
    for expression in expressions(DASHBOARD):
        for name, braces in re.findall(r"\b((?:ray_)?dladiff[_:][\w:]+)(\{[^}]*\})?", expression):
            assert 'output=~"$output"' in braces, name


def test_every_alert_is_of_one_output_and_has_its_section_in_the_runbook() -> None:
    runbook = (ROOT / "docs/operations.md").read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                assert "by (output" in rule["expr"]
            if "alert" in rule:
                assert "output" in rule["expr"] or "dladiff:" in rule["expr"]
                assert rule["annotations"]["runbook"].endswith(f"#{rule['alert'].lower()}")
                section = runbook.split(f"### {rule['alert']}\n")[1].partition("\n#")[0]
                assert len(section.split()) >= 15, rule["alert"]


def test_every_number_is_shown_somewhere() -> None:
    used = {n for path in (RULES, DASHBOARD) for e in expressions(path) for n in NAME.findall(e)}
    ours = driver_metrics() | exporter_metrics() | worker_metrics()
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    assert stems <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}


def test_the_dashboard_fits_its_grid_and_asks_the_chosen_prometheus() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
