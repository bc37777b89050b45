"""Alerts and recorded series: valid, and raised when they should be and not otherwise."""

import subprocess

import pytest

from tests.needed_tools import need
from tools.deploy.render_manifests import RULES


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")]
)
def test_promtool_is_content_with_the_rules(arguments: tuple[str, ...]) -> None:
    promtool = need("promtool", package="prometheus")
    done = subprocess.run(
        [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test_that_raises_it() -> None:
    alerts = [line.split(": ")[1] for line in RULES.read_text().splitlines() if "alert:" in line]
    tests = (RULES.parent / "rules_test.yml").read_text()
    for alert in alerts:
        raised = [part for part in tests.split("alertname: ") if part.startswith(alert)]
        assert any("exp_alerts:" in part for part in raised), alert
