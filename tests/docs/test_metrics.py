"""docs/metrics.md has every metric with its type and labels, and no other. No page names a metric that does not exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.publish.families import FAMILIES
from exporter.publish.selfmetrics import SelfMetrics
from tests.docs.pages import PAGES, ROOT, blocks, page, quoted, rows, section

README = page("README.md")
GOLDEN = page("tests/fixtures/golden.txt")
SAMPLE_SUFFIXES = re.compile(r"_(bucket|count|sum)$")


class Metric(NamedTuple):
    """A published metric: its type and the labels of its series, without `le`."""

    kind: str
    labels: frozenset[frozenset[str]]


def own_metrics() -> dict[str, Metric]:
    """The exporter's own metrics."""
    metrics = SelfMetrics("0", "0")
    found = {}
    for collector in vars(metrics).values():
        for family in getattr(collector, "collect", list)() if hasattr(collector, "_labelnames") else ():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = Metric(family.type, frozenset({frozenset(collector._labelnames)}))
    build = next(family for family in metrics.registry.collect() if family.name == "hms_exporter_build_info")
    return found | {build.name: Metric(build.type, frozenset({frozenset(build.samples[0].labels)}))}


def counted_metrics() -> dict[str, Metric]:
    """The metrics of workspaces, with the labels from an exposition that has a series of each."""
    labels: dict[str, set[frozenset[str]]] = {}
    for family in text_string_to_metric_families(GOLDEN):
        for sample in family.samples:
            name = SAMPLE_SUFFIXES.sub("", sample.name) if family.type == "histogram" else sample.name
            labels.setdefault(name, set()).add(frozenset(sample.labels) - {"le"})
    return {family.name: Metric(family.kind, frozenset(labels[family.name])) for family in FAMILIES}


PUBLISHED = own_metrics() | counted_metrics()
ROWS = [row for row in rows(page("docs/metrics.md")) if "metric" in row]
DESCRIBED = {quoted(row["metric"])[0]: row for row in ROWS}


def test_the_page_describes_every_metric_once_and_no_other() -> None:
    assert sorted(name for row in ROWS for name in quoted(row["metric"])) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_the_page_tells_a_metrics_type_and_labels(name: str) -> None:
    kind, labels = DESCRIBED[name]["type"], DESCRIBED[name]["labels"]
    always, _, sometimes = labels.partition("sometimes ")
    room, own = labels.startswith("room"), set(quoted(always)) - {"workspace"}
    common = own if "no `workspace`" in labels else own | {"workspace"}
    allowed = {frozenset(common | {"room", "room_id"}), frozenset(common | {"room"})} if room else {frozenset(common)}
    allowed |= {more | set(quoted(sometimes)) for more in allowed}
    assert kind == PUBLISHED[name].kind
    assert PUBLISHED[name].labels <= allowed


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_the_page_says_whether_a_metric_is_stable(name: str) -> None:
    assert DESCRIBED[name][""] in {"stable", "may change"}


def test_no_metric_is_hidden_in_the_registry() -> None:
    families = SelfMetrics("0", "0").registry.collect()
    registered = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert {name for name in registered if name.startswith("hms_")} == set(own_metrics())


def test_no_metric_is_hidden_in_the_code() -> None:
    named = {
        node.value
        for path in (ROOT / "exporter").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"hms_[a-z0-9_]+", node.value)
    }
    assert {name for name in named if name not in PUBLISHED and f"{name}_total" not in PUBLISHED} == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_names_a_metric_that_does_not_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w:./-])hms_[a-z_]+[a-z](?![\w*:-])", text))
    assert {name for name in named if name not in PUBLISHED and SAMPLE_SUFFIXES.sub("", name) not in PUBLISHED} == set()


def test_the_readme_tells_the_type_of_ten_metrics_as_it_is() -> None:
    described = {quoted(row["metric"])[0]: row["type"] for row in rows(section(README, "The ten metrics people use"))}
    assert len(described) == 10
    assert described == {name: PUBLISHED[name].kind for name in described}


def test_the_readmes_excerpt_shows_metrics_as_they_are() -> None:
    (excerpt,) = blocks(README, "text")
    samples = [sample for family in text_string_to_metric_families(excerpt) for sample in family.samples]
    assert len(samples) >= 5
    assert all(frozenset(sample.labels) in PUBLISHED[sample.name].labels for sample in samples)
