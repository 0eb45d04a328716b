"""Alerts and the dashboard query existing metrics, and the page says what to do."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from deployment.manifests import DEPLOY, ROOT
from pacesetter_service.api.access import route_of
from serving import RunningService, open_http

RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/pacesetter.json").read_text())
PANELS: list[dict[str, Any]] = [each for each in BOARD["panels"] if each["type"] != "row"]

OF_PROMETHEUS = {"up": {"job", "instance"}}
"""Labels that Prometheus adds itself, by metric, and to each series."""

WORDS = frozenset(
    re.findall(
        r"\w+",
        "by without on ignoring and or unless bool offset sum max min avg count topk rate increase"
        " changes absent histogram_quantile predict_linear vector",
    )
)


@dataclass(frozen=True)
class Asked:
    """What an expression selects of one metric, or groups by: names of labels, and their values."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


TOKEN = re.compile(
    r"""(?P<matchers>\{(?:[^"{}]|"[^"]*")*\})
      | (?P<window>\[[^\]]*\])
      | (?P<grouping>(?:by|without|on|ignoring)\s*\([^()]*\))
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<other>\d+(?:\.\d+)?|[()+*/<>=!,-]|\s+)""",
    re.VERBOSE,
)
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def asked(expression: str) -> Iterator[Asked]:
    """Extract the metrics and labels of a PromQL expression; refuse what is not PromQL."""
    place, depth, metric = 0, 0, ""
    found: list[Asked] = []
    while place < len(expression):
        token = TOKEN.match(expression, place)
        assert token is not None, expression[place:]
        place = token.end()
        text = token[0]
        depth += (text == "(") - (text == ")")
        assert depth >= 0, expression
        if token["grouping"]:
            names = re.findall(r"\w+", text.partition("(")[2])
            found.append(Asked("", tuple((name, "by", "") for name in names)))
        elif token["matchers"]:
            matchers = tuple(MATCHER.findall(text))
            assert "{" + ",".join(f'{a}{b}"{c}"' for a, b, c in matchers) + "}" == text
            found[-1] = Asked(metric, matchers)
        elif token["name"] and text not in WORDS:
            metric = text
            found.append(Asked(metric, ()))
    assert depth == 0, expression
    yield from found


def expressions() -> Iterator[tuple[str, str]]:
    """Return all expressions with where they are."""
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.fixture(name="exported", scope="module")
def _exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the labels of each series, by its name, of a real service that was called."""
    database = tmp_path_factory.mktemp("monitored") / "pacesetter.db"
    with RunningService(database) as service, open_http(service.url) as http:
        http.get("/livez")
        text = http.get("/metrics").text
    found = {name: set(labels) for name, labels in OF_PROMETHEUS.items()}
    families: list[Metric] = list(text_string_to_metric_families(text))
    for sample in (each for family in families for each in family.samples):
        labels = found.setdefault(sample.name, {"job", "instance"})
        labels |= set(sample.labels)
    return found


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_is_exported(
    where: str, expression: str, exported: dict[str, set[str]]
) -> None:
    """An alert on a name that the service does not export would never fire."""
    parts = list(asked(expression))
    metrics = [part.metric for part in parts if part.metric]
    assert metrics
    labels: set[str] = set()
    for metric in metrics:
        assert metric in exported, metric
        labels |= exported[metric]
    for part in parts:
        known = exported[part.metric] if part.metric else labels
        assert {name for name, *_ in part.matchers} <= known
        for name, operator, value in part.matchers:
            if name == "route" and operator in ("=", "!="):
                assert route_of("POST", value) == value or route_of("GET", value) == value
            if operator in ("=~", "!~") and not value.startswith("$"):
                assert any(re.fullmatch(value, each) for each in ROUTES), value


ROUTES = ("/v1/sessions/{name}/sync", "/v1/sessions/{name}/export", "/v1/import")


@pytest.mark.parametrize("broken", ["sum(rate(x[5m])", "x{a=b}", 'x{a="1" b="2"}', "x @ 3", "x)"])
def test_a_broken_expression_is_noticed(broken: str) -> None:
    """An expression that is not PromQL is refused, and not skipped."""
    with pytest.raises(AssertionError):
        list(asked(broken))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    """It has a severity, a summary, the first thing to do, and a section of the page."""
    assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[sm]", alert["for"])
    assert alert["labels"] in ({"severity": "warning"}, {"severity": "critical"})
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, section = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.M)
    assert alert["alert"] in headings
    assert section == alert["alert"].lower()
    for template in re.findall(r"\{\{(.*?)\}\}", str(alert["annotations"])):
        assert re.fullmatch(
            r" \$(labels\.instance|value)( \| humanize(Percentage|Duration))? ", template
        )


def test_alerts_and_their_page_agree() -> None:
    """Each alert has one rule and one section, in one order."""
    text = (ROOT / "docs/observability.md").read_text()
    section = text.partition("## Alerts")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.M) == [each["alert"] for each in ALERTS]


def test_the_dashboard_is_whole() -> None:
    """Panels have distinct ids and do not overlap; each queries the chosen source."""
    ids = [each["id"] for each in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert [each["name"] for each in BOARD["templating"]["list"]] == ["datasource", "instance"]
    for panel in PANELS:
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        assert panel["fieldConfig"]["defaults"]["unit"]
    for one, other in combinations((each["gridPos"] for each in BOARD["panels"]), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
        assert one["x"] + one["w"] <= 24


def test_every_metric_of_ours_is_looked_at(exported: dict[str, set[str]]) -> None:
    """A metric that no alert and no panel queries would be measured in vain."""
    named = {part.metric for _, expression in expressions() for part in asked(expression)}
    named |= {"pacesetter_build_info"}  # which the dashboard's list of replicas queries
    ours = {name for name in exported if name.startswith("pacesetter_")}
    suffixes = ("_bucket", "_count", "_sum")
    assert not {
        name
        for name in ours - named
        if not name.endswith(suffixes) or f"{name.rpartition('_')[0]}_bucket" not in ours
    }
