"""The README against the program: every metric, key, flag, path and link that it names exists, and the other way round."""

from __future__ import annotations

import ast
import re
import struct
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter import cli
from exporter.config import config
from exporter.config.config import ConfigError
from exporter.publish.families import FAMILIES
from exporter.publish.selfmetrics import SelfMetrics

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
GOLDEN = (ROOT / "tests/fixtures/golden.txt").read_text()
SAMPLE_SUFFIXES = re.compile(r"_(bucket|count|sum)$")


def section(title: str) -> str:
    """What stands below a heading, up to the next of its rank."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no section {title}"
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [index for index, row in enumerate(cells) if set(row[0]) == {"-"}]
    return [row for index, row in enumerate(cells) if not any(index in (rule - 1, rule) for rule in rules)]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# -- metrics ------------------------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """A metric as it is published: type and the labels of its series, without `le`."""

    kind: str
    labels: frozenset[frozenset[str]]


def own_metrics() -> dict[str, Metric]:
    """The exporter's own."""
    metrics = SelfMetrics("0", "0")
    found = {}
    for collector in vars(metrics).values():
        for family in getattr(collector, "collect", list)() if hasattr(collector, "_labelnames") else ():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = Metric(family.type, frozenset({frozenset(collector._labelnames)}))
    build = next(family for family in metrics.registry.collect() if family.name == "hms_exporter_build_info")
    return found | {build.name: Metric(build.type, frozenset({frozenset(build.samples[0].labels)}))}


def counted_metrics() -> dict[str, Metric]:
    """Those of the workspaces; their labels from an exposition that has a series of each."""
    labels: dict[str, set[frozenset[str]]] = {}
    for family in text_string_to_metric_families(GOLDEN):
        for sample in family.samples:
            name = SAMPLE_SUFFIXES.sub("", sample.name) if family.type == "histogram" else sample.name
            labels.setdefault(name, set()).add(frozenset(sample.labels) - {"le"})
    return {family.name: Metric(family.kind, frozenset(labels[family.name])) for family in FAMILIES}


PUBLISHED = own_metrics() | counted_metrics()
DESCRIBED = {quoted(row[0])[0]: row for row in rows("Metrics")}


def test_the_readme_describes_every_metric_and_no_other() -> None:
    assert sorted(DESCRIBED) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_the_readme_tells_a_metrics_type_and_labels(name: str) -> None:
    _, kind, labels, _ = DESCRIBED[name]
    room, own = labels.startswith("room"), set(quoted(labels)) - {"workspace"}
    common = own if "no `workspace`" in labels else own | {"workspace"}
    allowed = {frozenset(common | {"room", "room_id"}), frozenset(common | {"room"})} if room else {frozenset(common)}
    assert kind == PUBLISHED[name].kind
    assert PUBLISHED[name].labels <= allowed


def test_no_metric_is_hidden_in_the_code() -> None:
    named = {
        node.value
        for path in (ROOT / "exporter").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"hms_[a-z0-9_]+", node.value)
    }
    assert {name for name in named if name not in PUBLISHED and f"{name}_total" not in PUBLISHED} == set()


def test_the_excerpt_shows_metrics_as_they_are() -> None:
    excerpt = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert excerpt is not None
    samples = [sample for family in text_string_to_metric_families(excerpt[1]) for sample in family.samples]
    assert len(samples) >= 5
    assert all(frozenset(sample.labels) in PUBLISHED[sample.name].labels for sample in samples)


# -- configuration ------------------------------------------------------------------------------------------------------


WORKSPACE = "workspaces: [{name: a, management_token: b%s}]\n"
# Keys of lists and mappings without a table in the code: what the loader lists when it is given another.
STRANGERS = {
    "workspaces[]": WORKSPACE % ", zzzzzzzz: 1",
    "workspaces[].rooms[]": WORKSPACE % ", rooms: [{zzzzzzzz: 1}]",
    "budgets[]": WORKSPACE % "" + "budgets: [{zzzzzzzz: 1}]",
    "prices": WORKSPACE % "" + "prices: {zzzzzzzz: 1}",
}


def keys_with_defaults() -> set[str]:
    loaded = config.parse(WORKSPACE % "", {}, "config.yaml")
    sections = {section.name: getattr(loaded, section.name) for section in fields(loaded)}
    return {f"{name}.{key.name}" for name, section in sections.items() if is_dataclass(section) for key in fields(section) if key.metadata}


def known_keys() -> set[str]:
    keys = keys_with_defaults()
    for place, text in STRANGERS.items():
        with pytest.raises(ConfigError) as refusal:
            config.parse(text, {}, "config.yaml")
        listed = str(refusal.value).partition("unknown key, expected ")[2]
        keys |= {f"{place}.{key}" for key in re.split(r", | or ", listed.removeprefix("one of "))}
    return keys


def test_the_readme_describes_every_key_and_no_other() -> None:
    described = [key for row in rows("Configuration") for key in quoted(row[0])]
    assert sorted(described) == sorted(known_keys())


def test_the_readme_tells_the_defaults_as_they_are() -> None:
    shown = {quoted(row[0])[0]: quoted(row[1]) for row in rows("Configuration")}
    for key in keys_with_defaults():
        section_name, name = key.split(".")
        said = config.parse(WORKSPACE % "" + f"{section_name}:\n  {name}: {shown[key][0]}\n", {}, "config.yaml")
        assert said == config.parse(WORKSPACE % "", {}, "config.yaml"), key


# -- command line and HTTP ----------------------------------------------------------------------------------------------


def test_the_readme_names_every_command_and_flag_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    text = section("Command line")
    flags = re.compile(r"(?<![\w-])--[a-z][a-z.-]*[a-z]")
    commands = set(re.findall(r"^  ([a-z]+)  ", told.partition("commands:\n")[2], re.MULTILINE))
    assert set(flags.findall(text)) == set(flags.findall(told))
    assert set(re.findall(r"`hms-exporter \[?([a-z]+)\]?`", text)) == commands


def test_the_readme_names_every_path() -> None:
    constants = [
        node.value for node in ast.walk(ast.parse((ROOT / "exporter/web/routes.py").read_text())) if isinstance(node, ast.Constant)
    ]
    served = {value for value in constants if isinstance(value, str) and value.startswith("/")}
    described = {quoted(row[0])[0].split()[-1] for row in rows("Command line") if "/" in row[0]}
    assert described == served


# -- pages --------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_picture_is_wide_and_light() -> None:
    data = (ROOT / "docs/images/landing.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert len(data) < 200_000
    assert width > height


def test_the_scrape_configuration_is_one() -> None:
    example = re.search(r"```yaml\n(scrape_configs:.*?)```", README, re.DOTALL)
    assert example is not None
    jobs = yaml.safe_load(example[1])["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["hms-exporter"]
    assert jobs[0]["static_configs"][0]["targets"] == [f"localhost:{config.WebConfig().listen_address.port}"]


def test_the_example_of_prices_and_budgets_is_one() -> None:
    example = re.search(r"```yaml\n(prices:.*?)```", README, re.DOTALL)
    assert example is not None
    loaded = config.parse(WORKSPACE % "" + example[1], {}, "config.yaml")
    assert loaded.prices is not None
    assert len(loaded.budgets) == 1


def test_the_changelog_begins_with_what_is_not_released_yet() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
