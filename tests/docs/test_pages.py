"""The pages: links and anchors exist, the table of contents is complete, the README is short, pictures are legible."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
import yaml

from exporter.config.config import WebConfig
from tests.docs.pages import PAGES, ROOT, anchors, blocks, page, section

EACH_PAGE = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
IMAGES = sorted((ROOT / "docs/images").iterdir())


@EACH_PAGE
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        where, _, anchor = link.partition("#")
        target = (path.parent / where).resolve() if where else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@EACH_PAGE
def test_every_file_that_is_named_exists(path: Path) -> None:
    """Paths in backquotes, without placeholders."""
    folders = "bench|deploy|docs|exporter|grafana|prometheus|scripts|soak|tests"
    for named in re.findall(rf"`((?:{folders})/[\w./-]*)`", path.read_text(encoding="utf-8")):
        assert (ROOT / named).exists(), named


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8 * 1024


def test_the_table_of_contents_names_every_page() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", page("docs/README.md")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| ([a-z -]+) \|", section(page("docs/README.md"), "Glossary"), re.MULTILINE)
    words.remove("word")
    assert len(words) > 10
    assert words == sorted(words)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_picture_is_legible_and_light_and_shown(path: Path) -> None:
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert len(data) < 300_000
    assert width > height
    assert width >= 1000
    assert any(f"images/{path.name})" in each.read_text(encoding="utf-8") for each in PAGES)


def test_the_readme_shows_the_landing_page_and_one_dashboard() -> None:
    assert re.findall(r"\(docs/images/([\w.-]+)\)", page("README.md")) == ["landing.png", "dashboard-overview.png"]


def test_the_scrape_configuration_is_valid() -> None:
    (example,) = (block for block in blocks(page("README.md"), "yaml") if block.startswith("scrape_configs:"))
    jobs = yaml.safe_load(example)["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["hms-exporter"]
    assert jobs[0]["static_configs"][0]["targets"] == [f"localhost:{WebConfig().listen_address[0].port}"]


def test_the_changelog_begins_with_what_is_not_released_yet() -> None:
    versions = re.findall(r"^## \[(.+?)\]", page("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == "Unreleased"
