"""deploy/alerts.yaml against what a running Tollgate shows: an alert that names no metric never wakes anybody."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.core import errors
from tests.patience import PATIENCE_S
from tests.up import Stack

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNBOOK = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
METRIC = re.compile(r"\btollgate_[a-z_]+")


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


RULES = tuple(_rules())


@pytest.fixture(scope="module")
def shown(stack: Stack) -> set[str]:
    """The names of all series that are or can be there."""
    with urllib.request.urlopen(f"{stack.ops_url}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return {
        f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    }


def test_every_metric_of_an_alert_is_on_metrics(shown: set[str]) -> None:
    named = {name for rule in RULES for name in METRIC.findall(rule["expr"])}
    assert named
    assert named - shown == set()


def test_every_metric_of_the_runbook_is_on_metrics(shown: set[str]) -> None:
    assert set(METRIC.findall(RUNBOOK)) - {"tollgate_service"} - shown == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_page_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert f"| {rule['alert']} |" in RUNBOOK


def test_every_refusal_that_an_alert_counts_exists() -> None:
    codes = {each.code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "code")}
    named = {
        code for rule in RULES for wanted in re.findall(r'code=~?"([^"]+)"', rule["expr"]) for code in wanted.split("|")
    }
    assert named
    assert named - codes == set()
