"""docs/configuration.md has every key with its default, and no other. Its examples are valid, and its message is the real one."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass

import pytest

from exporter.config import config
from exporter.config.config import ConfigError
from tests.docs.pages import PAGES, ROOT, blocks, page, quoted, rows

PAGE = page("docs/configuration.md")
WORKSPACE = "workspaces: [{name: a, management_token: b%s}]\n"
# Keys of lists and mappings that have no table in the code: taken from the loader's message about an unknown key.
STRANGERS = {
    "workspaces[]": WORKSPACE % ", zzzzzzzz: 1",
    "workspaces[].rooms[]": WORKSPACE % ", rooms: [{zzzzzzzz: 1}]",
    "budgets[]": WORKSPACE % "" + "budgets: [{zzzzzzzz: 1}]",
    "webhooks": WORKSPACE % "" + "webhooks: {zzzzzzzz: 1}",
    "prices": WORKSPACE % "" + "prices: {zzzzzzzz: 1}",
}
ROWS = [row for row in rows(PAGE) if "key" in row]


def keys_with_defaults() -> set[str]:
    """The keys of the sections, which are the fields of dataclasses."""
    loaded = config.parse(WORKSPACE % "", {}, "config.yaml")
    sections = {section.name: getattr(loaded, section.name) for section in fields(loaded)}
    tables = {name: fields(section) for name, section in sections.items() if is_dataclass(section)}
    own = {(name, key.name): key.metadata for name, table in tables.items() for key in table if "read" in key.metadata}
    return {f"{name}.{key}" for name, key in own} | {f"{name}.{key}_file" for (name, key), how in own.items() if "file" in how}


def known_keys() -> set[str]:
    """Every key that the loader accepts."""
    keys = keys_with_defaults()
    for place, text in STRANGERS.items():
        with pytest.raises(ConfigError) as refusal:
            config.parse(text, {}, "config.yaml")
        listed = str(refusal.value).partition("unknown key, expected ")[2]
        keys |= {f"{place}.{key}" for key in re.split(r", | or ", listed.removeprefix("one of "))}
    return keys


def sections() -> set[str]:
    """The keys of the top level."""
    with pytest.raises(ConfigError) as refusal:
        config.parse("zzzzzzzz: 1", {}, "config.yaml")
    listed = str(refusal.value).partition("unknown key, expected ")[2]
    return set(re.split(r", | or ", listed.removeprefix("one of ")))


def test_the_page_describes_every_key_once_and_no_other() -> None:
    described, known = [key for row in ROWS for key in quoted(row["key"])], known_keys()
    assert known - set(described) == set(), "docs/configuration.md lacks these keys"
    assert set(described) - known == set(), "docs/configuration.md describes keys that do not exist"
    assert len(described) == len(known), "a key is described twice"


def test_the_page_describes_every_section() -> None:
    assert {re.split(r"[.\[]", quoted(row["key"])[0])[0] for row in ROWS} == sections()


def test_the_page_has_the_real_defaults() -> None:
    shown = {quoted(row["key"])[0]: quoted(row["default"]) for row in ROWS}
    assert {key for key in keys_with_defaults() if not shown.get(key)} == {"storage.url", "storage.url_file"}, "the others have a default"
    for key in keys_with_defaults() - {"storage.url", "storage.url_file"}:
        section_name, name = key.split(".")
        said = config.parse(WORKSPACE % "" + f"{section_name}:\n  {name}: {shown[key][0]}\n", {}, "config.yaml")
        assert said == config.parse(WORKSPACE % "", {}, "config.yaml"), key


def test_a_required_key_is_required() -> None:
    required = {quoted(row["key"])[0] for row in ROWS if row["default"] == "required"}
    assert required == {"workspaces[].name", *(f"budgets[].{key}" for key in ("name", "period")), *PRICES}
    for text in ("workspaces: [{management_token: b}]", *(WORKSPACE % "" + rest for rest in LACKING)):
        with pytest.raises(ConfigError, match=r"found (nothing|none)$"):
            config.parse(text, {}, "config.yaml")


PRICES = ("prices.currency", "prices.per_peer_minute")
LACKING = (
    "budgets: [{period: day, peer_minutes: 1}]",
    "budgets: [{name: a, peer_minutes: 1}]",
    "budgets: [{name: a, period: day}]",
    "prices: {per_peer_minute: 1}",
    "prices: {currency: USD}",
)


def test_the_message_on_the_page_is_the_real_one() -> None:
    (shown,) = blocks(PAGE, "text")
    with pytest.raises(ConfigError) as refusal:
        config.parse(WORKSPACE % "" + "poll: {interval: 30}", {}, "config.yaml")
    assert shown == f"hms-exporter: {refusal.value}\n"


@pytest.mark.parametrize(
    ("path", "example"),
    [(path.relative_to(ROOT), block) for path in PAGES for block in blocks(path.read_text(encoding="utf-8"), "yaml")],
    ids=lambda value: str(value)[:40],
)
def test_every_example_is_a_valid_configuration(path: object, example: str) -> None:
    """An example is a whole configuration, some of its sections, or the rooms of a workspace."""
    begins = re.sub(r"^#.*\n", "", example).partition(":")[0]
    environ = {"HMS_ACCESS_KEY": "a", "HMS_SECRET": "b", "HMS_WEBHOOK_TOKEN": "c"}
    if begins == "workspaces":
        config.parse(example, environ, "config.yaml")
    elif begins == "rooms":
        indented = "".join(f"    {line}" for line in example.splitlines(keepends=True))
        loaded = config.parse(f"workspaces:\n  - name: a\n    management_token: b\n{indented}", environ, "config.yaml")
        assert loaded.workspaces[0].rooms
    elif begins in sections():
        config.parse(WORKSPACE % "" + example, environ, "config.yaml")
    else:
        assert begins in {"scrape_configs", "tls_server_config"}, path  # Prometheus's configuration, tested elsewhere
