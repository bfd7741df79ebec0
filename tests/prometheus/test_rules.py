"""Rules, thresholds and alerts: tested by promtool, and written in Prometheus's style."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from exporter.publish.families import FAMILIES, sample_names
from exporter.publish.selfmetrics import SelfMetrics
from scripts import prometheusrule, stack
from tests.programs import require

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = REPOSITORY / "prometheus"
RULE_FILES = sorted((FOLDER / "rules").glob("*.yml"))
TEST_FILES = sorted((FOLDER / "tests").glob("*.yml"))
GENERATIONS = pytest.mark.parametrize("generation", [3, 2], ids=["prometheus-3", "prometheus-2.42"])

Generation = Literal[2, 3]
Rule = dict[str, Any]


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _rules(kind: Literal["alert", "record"]) -> list[Rule]:
    return [rule for path in RULE_FILES for group in _load(path)["groups"] for rule in group["rules"] if kind in rule]


def _run(*command: str | Path) -> str:
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


ALERTS = {rule["alert"]: rule for rule in _rules("alert")}
RECORDED = {rule["record"]: rule for rule in _rules("record")}
THRESHOLDS = {name for name in RECORDED if name.startswith("hms:threshold:")}


RUNBOOKS = dict(
    re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^##+ |\Z)", (REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")),
)
"""The sections of docs/alerts.md by alert."""


@GENERATIONS
def test_promtool_and_amtool_accept_every_file(generation: Generation) -> None:
    promtool = require("promtool", generation=generation)
    _run(promtool, "check", "rules", *RULE_FILES)
    _run(promtool, "check", "config", FOLDER / "prometheus.yml")
    _run(require("amtool", generation=generation), "check-config", FOLDER / "alertmanager.yml")


def _asked_for(value: object, names: Collection[str]) -> set[str]:
    """The alerts and records that a rule or a test refers to: by name, by a pattern or through `ALERTS`."""
    text = yaml.safe_dump(value, width=10**6).replace('\\"', '"')
    found = {*re.findall(r"[a-zA-Z_:][\w:]*", text)} & {*names}
    for pattern in re.findall(r'__name__=~"([^"]*)"', text):
        found |= {name for name in names if re.fullmatch(pattern, name)}
    for matchers in re.findall(r"\bALERTS\b(?:\{([^}]*)\})?", text):
        wanted = re.findall(r'(alertname|severity)=(~?)"([^"]*)"', matchers)
        found |= {
            name
            for name, rule in ALERTS.items()
            if all(
                re.fullmatch(value if pattern else re.escape(value), {"alertname": name, **rule["labels"]}[label])
                for label, pattern, value in wanted
            )
        }
    return found


def _concerning(tests: Any) -> set[str]:
    """The alerts and records on which these tests depend, directly or through other rules."""
    groups = [group for path in RULE_FILES for group in _load(path)["groups"]]
    rules = {rule.get("alert", rule.get("record")): rule for group in groups for rule in group["rules"]}
    found, new = set[str](), _asked_for(tests, rules)
    while new:
        found |= new
        new = set().union(*(_asked_for(rules[name], rules) for name in new)) - found
    return found


def _keep(path: Path, names: set[str]) -> None:
    """Leaves only these rules in a file."""
    groups = _load(path)["groups"]
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert", rule.get("record")) in names]
    path.write_text(yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}))


@GENERATIONS
@pytest.mark.slow  # it evaluates weeks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_each_alert_fires_when_it_should_and_only_then(file: Path, generation: Generation, tmp_path: Path) -> None:
    """On a copy with the default links, so that the tests hold after `make generate RUNBOOKS=...` too.

    Rules that no test of the file depends on are left out: most of the time would go into evaluating them.
    """
    for folder in ("rules", "tests"):
        shutil.copytree(FOLDER / folder, tmp_path / folder)
    alerts = tmp_path / "rules" / "hms-alerts.yml"
    alerts.write_text(prometheusrule.linked(alerts.read_text(), prometheusrule.RUNBOOKS))
    names = _concerning(_load(file)["tests"])
    for path in (tmp_path / "rules").glob("*.yml"):
        _keep(path, names)
    _run(require("promtool", generation=generation), "test", "rules", tmp_path / "tests" / file.name)


def test_each_alert_is_tested_firing_and_at_rest() -> None:
    firing, resting = set(), set()
    for path in TEST_FILES:
        for test in _load(path)["tests"]:
            for case in test.get("alert_rule_test", []):
                # Series other than those of the expected alert must not fire.
                quiet = not case["exp_alerts"] or len(test["input_series"]) > len(case["exp_alerts"])
                resting |= {case["alertname"]} if quiet else set()
                firing |= {case["alertname"]} if case["exp_alerts"] else set()
    assert firing == resting == set(ALERTS)


LIVES = {
    "restart": r"\brestart",
    "rollout": r"\brollout|rolled out",
    "two exporters": r"\btwo exporters|\bboth exporters",
    "scrape gap": r"\bgap\b",
}
"""Events of exporters, as named in the tests of rules."""


@pytest.mark.slow
@pytest.mark.parametrize("life", LIVES)
def test_each_alert_is_seen_firing_through_what_happens_to_exporters(life: str) -> None:
    seen = set()
    for path in TEST_FILES:
        for test in _load(path)["tests"]:
            if re.search(LIVES[life], test["name"]):
                seen |= {case["alertname"] for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
                samples = [sample["labels"] for case in test.get("promql_expr_test", ()) for sample in case["exp_samples"]]
                seen |= {name for labels in samples for name in re.findall(r'alertname="(\w+)"', labels)}
    # Missing rules do not depend on exporters.
    assert set(ALERTS) - seen == {"HmsThresholdsMissing"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_how_bad_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Hms([A-Z][a-z]+)+", name)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["summary"].endswith(".")
    assert "{{" in annotations["description"], "names neither what it is about nor how much"
    page, _, anchor = annotations["runbook_url"].partition("#")
    assert page.startswith("https://"), "dead in a message"
    assert anchor == name.lower()
    assert name in RUNBOOKS


def test_an_alert_about_a_room_names_it() -> None:
    for name in ("HmsSessionNearLimit", "HmsSessionForgotten"):
        assert "$labels.room " in ALERTS[name]["annotations"]["summary"]
        assert "$labels.room " in ALERTS[name]["annotations"]["description"]


def test_the_documentation_lists_every_alert_with_its_severity_and_no_other() -> None:
    text = (REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"(?m)^\| \[(\w+)\]\(#\w+\) \| (\w+) \|", text))
    assert listed == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    assert re.findall(r"(?m)^## (\w+)$", text) == list(listed)


def test_every_threshold_is_used_and_every_used_one_exists() -> None:
    """A missing threshold would silently disable its alert."""
    expressions = [rule["expr"] for rule in (*ALERTS.values(), *RECORDED.values())]
    used = {name for expr in expressions for name in re.findall(r"hms:threshold:\w+", expr)}
    assert used == THRESHOLDS
    set_in_one_place = [rule["record"] for group in _load(FOLDER / "rules" / "hms-thresholds.yml")["groups"] for rule in group["rules"]]
    assert sorted(set_in_one_place) == sorted(THRESHOLDS)
    assert all(re.fullmatch(r"vector\([0-9.]+\)", RECORDED[name]["expr"]) for name in THRESHOLDS)


def test_a_threshold_that_exists_twice_is_still_one_number() -> None:
    """`scalar` of two series, from federation or a second ruler, would be NaN and disable the alert."""
    for rule in (*ALERTS.values(), *RECORDED.values()):
        bare = re.sub(r"scalar\(max\(hms:threshold:\w+\)\)", "", rule["expr"])
        assert not re.search(r"hms:threshold:\w", bare), rule


def test_the_alert_about_missing_thresholds_knows_how_many_there_are() -> None:
    rule = ALERTS["HmsThresholdsMissing"]
    assert f"< {len(THRESHOLDS)}\n" in rule["expr"] + "\n" or f"< {len(THRESHOLDS)} " in rule["expr"]
    assert f"of the {len(THRESHOLDS)} series" in rule["annotations"]["description"]


def test_alerts_compare_with_thresholds_and_not_with_numbers() -> None:
    """Only 0 and 1 are allowed, where they have a meaning: down, refused, used up, projected to be used up."""
    states = {
        "HmsExporterDown", "HmsWorkspaceMissing", "HmsConfigReloadFailed", "HmsBudgetUsedUp", "HmsBudgetNearlyUsed", "HmsBudgetPaceTooHigh",
        "HmsCredentialsRejected", "HmsDataStale", "HmsTokenExpiring", "HmsSessionForgotten", "HmsWebhooksSilent",
        "HmsCollectorDown", "HmsExporterRestarting", "HmsEverybodyGone", "HmsPeersDropping", "HmsLargeRoomDropping",
    }  # fmt: skip
    for name, rule in ALERTS.items():
        if name == "HmsThresholdsMissing":
            continue
        expr = re.sub(r"(interval_seconds|day_of_week\(\)) *(>|<=|==|>=) *(bool )?\d+( <= \d+)?", "", rule["expr"])
        numbers = set(re.findall(r"[<>=]=? *(\d[\d.]*)(?! *\*)", expr))
        assert numbers <= ({"0", "1"} if name in states else set()), (name, numbers)


def test_the_documentation_names_every_threshold_by_its_alert() -> None:
    for name, rule in ALERTS.items():
        for threshold in re.findall(r"hms:threshold:(\w+)", rule["expr"]):
            assert f"`{threshold}`" in RUNBOOKS[name], (name, threshold)
    for threshold in THRESHOLDS:
        assert any(f"`{threshold.rpartition(':')[2]}`" in text for text in RUNBOOKS.values()), threshold


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_has_steps_a_query_an_end_false_alarms_and_a_dashboard(name: str) -> None:
    text = RUNBOOKS[name]
    assert "\n1. " in text
    assert "```promql\n" in text
    for part in ("Over when", "False alarms", "Dashboard"):
        assert f"\n- **{part}:** " in text, part
    (uid,) = re.findall(r"`/d/([\w-]+)`", text)
    assert (REPOSITORY / "grafana" / "dashboards" / f"{uid}.json").exists()


@GENERATIONS
def test_the_queries_of_the_runbooks_are_promql_and_know_only_series_that_exist(generation: Generation, tmp_path: Path) -> None:
    queries = [query for text in RUNBOOKS.values() for query in re.findall(r"(?s)```promql\n(.*?)\n```", text)]
    rules = [{"record": "a:b:c", "expr": query, "labels": {"number": str(number)}} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    _run(require("promtool", generation=generation), "check", "rules", file)
    for query in queries:
        assert _asked(query) <= _known(), query


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    for name in RECORDED.keys() - THRESHOLDS:
        assert re.fullmatch(
            r"(instance|job|workspace|workspace_role|workspace_code|workspace_period|workspace_meter|room|room_meter|budget):hms_[a-z_]+:[a-z0-9_]+",
            name,
        ), name


def test_rules_know_only_metrics_that_exist() -> None:
    for rule in (*ALERTS.values(), *RECORDED.values()):
        assert _asked(rule["expr"]) <= _known(), rule


def test_the_shipped_configuration_scrapes_the_job_that_the_alert_watches() -> None:
    jobs = {job["job_name"] for job in _load(FOLDER / "prometheus.yml")["scrape_configs"]}
    (pattern,) = re.findall(r'up\{job=~"([^"]+)"', RECORDED["instance:hms_exporter_up:known"]["expr"])
    assert any(re.fullmatch(pattern, job) for job in jobs)


def test_links_to_runbooks_lead_to_the_given_page() -> None:
    text = (FOLDER / "rules" / "hms-alerts.yml").read_text(encoding="utf-8")
    elsewhere = prometheusrule.linked(text, "https://wiki.example.org/hms")
    links = [
        rule["annotations"]["runbook_url"] for group in yaml.safe_load(elsewhere)["groups"] for rule in group["rules"] if "alert" in rule
    ]
    assert links == [f"https://wiki.example.org/hms#{name.lower()}" for name in ALERTS]
    assert prometheusrule.linked(elsewhere, prometheusrule.RUNBOOKS) == prometheusrule.linked(text, prometheusrule.RUNBOOKS)


def test_a_link_that_would_be_dead_in_a_message_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert prometheusrule.main(["docs/alerts.md"]) == 2
    assert "expected the address of a page" in capsys.readouterr().err


def test_alertmanager_quiets_only_alerts_that_exist() -> None:
    for rule in _load(FOLDER / "alertmanager.yml")["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            (pattern,) = re.findall(r'"(.+)"', matcher)
            assert any(re.fullmatch(pattern, name) for name in ALERTS), matcher


def test_local_programs_get_the_shipped_configuration_with_other_addresses() -> None:
    """The configuration of `make stack` differs from that of compose only in addresses."""
    shipped = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    for address, local in (("hms-exporter:10100", "h:1"), ("localhost:9090", "h:2"), ("alertmanager:9093", "h:3"), ("rules/*.yml", "R")):
        assert shipped.count(address) == 1
        shipped = shipped.replace(address, local)
    assert stack.prometheus_config("h:1", "h:2", "h:3", "R") == yaml.safe_load(shipped)


def _sample_names(name: str, kind: str) -> tuple[str, ...]:
    if kind == "counter":
        return (f"{name}_total",)
    if kind == "histogram":
        return (f"{name}_bucket", f"{name}_count", f"{name}_sum")
    return (name,)


def _asked(expr: str) -> set[str]:
    """The exporter's series that an expression uses."""
    return set(re.findall(r"(?<![:\w])(?:\w+:)?hms[\w:]*", re.sub(r'"[^"]*"|\{[^}]*\}', "", expr)))


def _known() -> set[str]:
    own = {name for metric in SelfMetrics("0", "0").registry.collect() for name in _sample_names(metric.name, metric.type)}
    return own | {name for family in FAMILIES for name in sample_names(family)} | set(RECORDED)
