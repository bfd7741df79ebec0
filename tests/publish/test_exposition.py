"""The finished pages: a golden exposition that Prometheus's tools accept, the same content in each encoding, expiry, filters.

After a wanted change, run `HMS_WRITE_GOLDEN=1 pytest tests/publish/test_exposition.py` and read the difference.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.config.money import Prices
from exporter.counting import client_errors, deliveries
from exporter.counting.accounts import PeriodSums
from exporter.counting.changes import Over
from exporter.counting.collected import Collected, Kind
from exporter.counting.contribution import Account, group_account, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.rooms import KnownRoom
from exporter.counting.sums import Sums
from exporter.counting.usage import BudgetLine, MeterUse
from exporter.counting.webhooks import WORKSPACE, Counter, Key
from exporter.hms.assets import Asset
from exporter.hms.client_errors import ClientError
from exporter.hms.jobs import Job
from exporter.hms.records import decode_session
from exporter.publish import checksums
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.added import CLIENT_ERROR_FAMILIES, DELIVERY_FAMILIES
from exporter.publish.beside import LISTED
from exporter.publish.collected import CollectedText, up_sections
from exporter.publish.collected_families import COLLECTOR_UP
from exporter.publish.exposition import Exposition, Page, Section, Sections, deflate
from exporter.publish.families import FAMILIES, UP_FAMILY, Overview, sample_names
from exporter.publish.negotiation import OPENMETRICS, TEXT, Format
from exporter.publish.selfmetrics import SelfMetrics
from exporter.publish.sums import SumsText
from exporter.publish.text import account_lines, up_line, workspace_lines
from exporter.publish.usage import Usage, budget_lines, usage_lines
from exporter.publish.webhooks import room_sections, workspace_sections
from exporter.times import HOUR
from tests.harness import Counting, at, peer, scope_of, session
from tests.programs import require

# This side of client_python has no types of its own.
parse_openmetrics: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families
generate_openmetrics: Callable[[Any], bytes] = openmetrics_exposition.generate_latest

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden.txt"
OPENMETRICS_ACCEPT = "application/openmetrics-text; version=1.0.0"
STANDUP, CLASS = "61652b404e556e35f2179759", "6204fea00c108fa49d599d79"
HOSTILE = 'Größe "7" \\ of\na kind'


class Clock:
    """A monotonic clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def nothing_live(fmt: Format, _: frozenset[str]) -> list[Section]:
    """No metrics of the process, only the line that ends the format."""
    return [] if fmt is TEXT else [Section(b"# EOF\n")]


def ledger(folder: Path) -> Counting:
    """An hour of two rooms and a group: ended and running sessions, changed roles, a ghost."""
    counting = Counting(folder / "state.db", since=at(-7200))
    group = Account("group", "class-north")
    counting.begin(at(0))
    counting.see(session("s1", {"p1": peer(at(-3000), at(-1200), "host")}, room=STANDUP, started=at(-3600), ended=at(-600.5)))
    counting.see(
        session("s2", {"p2": peer(at(-60), role="host", user="u1"), "p3": peer(at(-30.25), user="u2")}, room=STANDUP, started=at(-90))
    )
    counting.now.assign(STANDUP, STANDUP, room_account(STANDUP))
    counting.see(session("s3", {"p4": peer(at(-100), role="teacher")}, room="n1", started=at(-200), ended=at(-10)))
    counting.now.assign("n1", "n1", group)
    counting.ledger.open(room_account(CLASS))
    counting.end()
    counting.begin(at(30))
    changed = {"p2": peer(at(-60), role="guest", user="u1"), "p3": peer(at(-30.25), at(12.125), user="u2"), "p5": peer(at(20), user="u2")}
    counting.see(session("s2", changed, room=STANDUP, started=at(-90)))
    counting.end()
    return counting


JOB_LABELS = {room_account(STANDUP): HOSTILE, Account("group", "class-north"): "class-north"}


JOBS = (
    Job("j1", STANDUP, at(-3600), "completed", at(-3590), at(-1800.5), at(-1700)),
    Job("j2", STANDUP, at(-60), "running", at(-52)),
    Job("j3", STANDUP, at(-20), "starting"),
    Job("j4", "n1", at(-10), ""),
)
ASSETS = (
    Asset("a1", STANDUP, at(-1700), "room-composite", "completed", 1_789_500_000, 322_110_000),
    Asset("a2", STANDUP, at(-1700), "chat", "failed"),
    Asset("a3", "n1", at(-10), "chat", "completed", 60_000_000, 40_000),
)


def items(kind: Kind[Any]) -> Collected[Any]:
    """The items of this kind in a room and a group.

    The room has three jobs and the group one: one is over, one runs, two have not started, one of these in an unknown status.  The
    room has two assets and the group one: one has failed.
    """
    collected = Collected(kind)
    collected.coverage.configure(scope_of(["*"]), at(-7200), at(0), str)
    for account in JOB_LABELS:
        collected.open(account, {}, PeriodSums())
    collected.begin(at(0))
    for item in ASSETS if kind.item is Asset else JOBS:
        collected.see(item, item.room_id)
    for room_id, account in zip((STANDUP, "n1"), JOB_LABELS, strict=True):
        collected.assign(room_id, room_id, account)
    collected.finish(str)
    return collected


def sections(counting: Counting, expires: float) -> Sections:
    """Everything that is published of that ledger. The gauges expire at `expires`."""
    known = {
        STANDUP: KnownRoom(STANDUP, HOSTILE, "daily", "t1", "eu", enabled=True, exists=True, fetched_at=1),
        CLASS: KnownRoom(CLASS, "", "class", "t2", "in", enabled=False, exists=True, fetched_at=1),
    }
    labels = {STANDUP: HOSTILE, CLASS: CLASS, "class-north": "class-north"}
    found: dict[str, list[Section]] = {}
    for account, state in counting.ledger.accounts.items():
        lines = account_lines("default", labels[account.id], state, known.get(account.id))
        for family, text in zip(ACCOUNT_FAMILIES, lines, strict=True):
            found.setdefault(family.name, []).append(Section(text, expires if family.expires else float("inf")))
    films = MeterUse({room_account(CLASS): (60_000_000, 120_000_000)}, (0, 60_000_000))
    usage = Usage(at(30), {"host": (60_000_000, 90_000_000)}, {"host": (0, 1_875_000_000)}, {"recording": films})
    prices = Prices("USD", {"default": 0.004}, per_recording_minute=0.25, free_recording_minutes=1)
    for name, text in usage_lines("default", usage, prices, lambda account: labels[account.id]).items():
        found.setdefault(name, []).append(Section(text))
    budgets = budget_lines([BudgetLine("January", "month", "recording", 360_000.0, 0.25, 0.5)])
    whole = workspace_lines("default", counting.ledger, Overview._make(range(len(Overview._fields))))
    found |= {name: [Section(text)] for name, text in (budgets | whole).items()}
    heard = {
        Key(WORKSPACE, "received", "peer.leave.success"): Counter(at(1), 3),
        Key(WORKSPACE, "rejected", "secret"): Counter(at(1), 0),
        Key(group_account("class-north"), "leave", "peer kicked"): Counter(at(2), 1),
        Key(room_account(CLASS), "join_failure", "role not allowed"): Counter(at(3), 2),
    }
    found |= {name: list(of) for name, of in workspace_sections("default", heard, created=False).items()}
    found |= {name: list(of) for name, of in room_sections("default", heard, lambda a: labels[a.id], created=False).items()}
    for listed in LISTED:
        collector = CollectedText("default", listed.families)
        found |= {name: list(of) for name, of in collector.sections(items(listed.kind), JOB_LABELS, expires, created=False).items()}
        found.setdefault(COLLECTOR_UP.name, []).extend(up_sections("default", listed.kind.name, expires))
    added = SumsText("default", (*CLIENT_ERROR_FAMILIES, *DELIVERY_FAMILIES)).sections(sums(), JOB_LABELS, created=False)
    found |= {name: list(of) for name, of in added.items()}
    found[UP_FAMILY.name] = [Section(up_line("default", up=True))]
    return found


def sums() -> Sums:
    """The errors of a call and the deliveries of a minute."""
    counted = Sums()
    errors = [ClientError("e1", "s3", "join", "4006", "web"), ClientError("e2", "s3", "disconnected", "unknown", "ios")]
    client_errors.count(counted, "s3", Over("n1", group_account("class-north"), at(-200), at(-10)), errors)
    deliveries.count(counted, deliveries.Window(at(0), at(60)), {"success": 41, "failed": 2})
    return counted


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Sections:
    counting = ledger(tmp_path_factory.mktemp("golden"))
    counting.close()
    return sections(counting, expires=1090.0)


@pytest.fixture
def exposition(published: Sections) -> Exposition:
    exposition = Exposition(nothing_live, Clock())
    exposition.publish("default", published)
    return exposition


def text_of(page: Page) -> str:
    """A page's text, decompressed if necessary.  Checks the announced length."""
    body = b"".join(page.chunks)
    assert len(body) == page.length
    return (gzip.decompress(body) if page.encoding == "gzip" else body).decode()


def samples(families: Iterable[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample's value, by its name and labels."""
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


# --- the golden exposition ---


def test_a_fixed_ledger_is_published_as_in_the_golden_file(exposition: Exposition) -> None:
    text = text_of(exposition.page("", ""))
    if os.environ.get("HMS_WRITE_GOLDEN") == "1":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def heading(line: str) -> str:
    """A line of the text format, as OpenMetrics has it: there `_total` is no part of a family's name, and help escapes quotes."""
    if not line.startswith("# "):
        return line
    mark, kind, name, rest = line.split(" ", 3)
    return f"{mark} {kind} {name.removesuffix('_total')} " + (rest.replace('"', r"\"") if kind == "HELP" else rest)


def test_openmetrics_differs_from_it_in_the_headings_and_in_its_end(exposition: Exposition) -> None:
    expected = [*map(heading, GOLDEN.read_text().splitlines()), "# EOF"]
    assert text_of(exposition.page(OPENMETRICS_ACCEPT, "")).splitlines() == expected


def test_the_golden_exposition_shows_every_family() -> None:
    declared = {line.split()[2] for line in GOLDEN.read_text().splitlines() if line.startswith("# TYPE")}
    assert declared == {family.name for family in FAMILIES}


def test_promtool_finds_nothing_to_complain_about(exposition: Exposition) -> None:
    live = SelfMetrics("1.0", "abc")
    live.workspace("default", 30.0).request("/sessions", "200", 0.1)
    text = text_of(exposition.page("", "")).encode() + b"".join(section.text for section in live.render(TEXT, frozenset()))
    result = subprocess.run([require("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_both_formats_say_the_same(exposition: Exposition) -> None:
    plain = list(parse_text(text_of(exposition.page("", ""))))
    modern = list(parse_openmetrics(text_of(exposition.page(OPENMETRICS_ACCEPT, ""))))
    assert samples(plain) == samples(modern)
    assert len(samples(plain)) > 100
    assert {(family.name, family.type, family.documentation) for family in plain} == {
        (family.name, family.type, family.documentation) for family in modern
    }


HAVE_A_TYPE = {
    "hms_webhooks_received": "a webhook",
    "hms_recording_assets": "a file that came of a recording",
    "hms_recording_asset_seconds": "a file that came of a recording",
    "hms_recording_asset_bytes": "a file that came of a recording",
    "hms_client_errors": "an error at a client",
    "hms_client_errors_by_sdk": "an error at a client",
}
"""The families with a label `type`, and of what: it is 100ms's own word for the kind of each of these.

Elsewhere the label would read as the metric's own type, which lint rules forbid to repeat in a label.
"""


def test_no_label_is_one_that_prometheus_adds_itself(exposition: Exposition) -> None:
    """The label `type` of the families named above is the only exception."""
    for family in parse_text(text_of(exposition.page("", ""))):
        for sample in family.samples:
            reserved = {"job", "instance"} if family.name in HAVE_A_TYPE else {"job", "instance", "type"}
            assert not reserved & sample.labels.keys()


@pytest.mark.parametrize("accept", ["", OPENMETRICS_ACCEPT])
def test_a_hostile_name_comes_back_as_it_was(exposition: Exposition, accept: str) -> None:
    parse = parse_openmetrics if accept else parse_text
    rooms = {sample.labels.get("room") for family in parse(text_of(exposition.page(accept, ""))) for sample in family.samples}
    assert HOSTILE in rooms


# Prometheus accepts any UTF-8 except the null character. \r ends a line for Python's parser but not for Prometheus's,
# so another test covers line splitting.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_any_label_survives_the_way_through_both_formats(workspace: str, room: str, role: str) -> None:
    counting = _one_peer(role or "guest")
    state = counting.accounts[room_account("room")]
    text = b"".join(
        b"# TYPE %b %b\n%b" % (family.name.encode(), family.kind.encode(), line)
        for family, line in zip(ACCOUNT_FAMILIES, account_lines(workspace, room, state, None), strict=True)
        if line
    ).decode()
    for family in parse_text(text):
        for sample in family.samples:
            assert (sample.labels["workspace"], sample.labels["room"]) == (workspace, room)
            assert sample.labels.get("role", role or "guest") == (role or "guest")


def _one_peer(role: str) -> Ledger:
    ledger = Ledger()
    poll = Poll(ledger, at(10), HOUR)
    found, _ = decode_session(session("s", {"p": peer(at(1), role=role)}), at(10))
    assert found is not None
    poll.see(found, "room")
    poll.assign("room", "room", room_account("room"))
    poll.finish(None, 0.0)
    return ledger


@pytest.mark.slow
def test_prometheus_accepts_every_character_in_a_name() -> None:
    """One room for each of about a thousand characters, including control characters and all line separators."""
    characters = [chr(code) for code in [*range(1, 0x300), 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF]]
    state = _one_peer("guest").accounts[room_account("room")]
    lines = b"".join(account_lines("w", f"a{character}b", state, None)[5] for character in characters)
    text = b"# HELP hms_sessions_started_total Sessions started.\n# TYPE hms_sessions_started_total counter\n" + lines
    result = subprocess.run([require("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


# --- encodings ---


@pytest.mark.parametrize("accept", ["", OPENMETRICS_ACCEPT])
@pytest.mark.parametrize("names", [[], ["hms_up", "hms_session_peers_bucket"], ["nothing"]])
def test_a_compressed_page_is_one_gzip_member_of_the_plain_one(published: Sections, accept: str, names: list[str], tmp_path: Path) -> None:
    exposition = Exposition(nothing_live, Clock())
    exposition.publish("default", published)
    for _ in range(2):  # computed first, then taken from the cache
        plain = exposition.page(accept, "", frozenset(names))
        zipped = exposition.page(accept, "gzip", frozenset(names))
        assert (plain.encoding, zipped.encoding) == (None, "gzip")
        assert plain.content_type == zipped.content_type
        body, whole = b"".join(zipped.chunks), b"".join(plain.chunks)
        assert len(body) == zipped.length
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert inflater.decompress(body) == whole
        assert inflater.eof
        assert inflater.unused_data == b""
    file = tmp_path / "page.gz"
    file.write_bytes(body)
    result = subprocess.run([require("gzip"), "-dc", str(file)], capture_output=True, check=False)
    assert (result.returncode, result.stderr, result.stdout) == (0, b"", whole)


@given(st.lists(st.lists(st.binary(max_size=300), max_size=4), max_size=4), st.binary(max_size=300))
def test_whatever_is_published_the_compressed_page_holds_the_same_bytes(workspaces: list[list[bytes]], live: bytes) -> None:
    exposition = Exposition(lambda *_: [Section(live)], Clock())
    for number, texts in enumerate(workspaces):
        exposition.publish(f"w{number}", {"hms_up": [Section(text) for text in texts]})
    page = exposition.page("", "gzip")
    assert gzip.decompress(b"".join(page.chunks)) == b"".join(exposition.page("", "").chunks)


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_checksums_are_joined_as_if_the_texts_were_one(one: bytes, other: bytes) -> None:
    assert checksums.joined(zlib.crc32(one), zlib.crc32(other), checksums.shift(len(other))) == zlib.crc32(one + other)


# --- pages that are ready ---


def test_a_page_is_ready_once_it_has_been_asked_for_and_stays_ready_after_each_poll(published: Sections) -> None:
    clock = Clock()
    exposition = Exposition(nothing_live, clock)
    exposition.publish("default", published)
    for accept, encoding in (("", "gzip"), (OPENMETRICS_ACCEPT, ""), (OPENMETRICS_ACCEPT, "gzip")):
        assert exposition.finished(accept, encoding) is None
        asked = exposition.page(accept, encoding)
        for _ in range(3):
            ready = exposition.finished(accept, encoding)
            assert ready is not None
            assert text_of(ready) == text_of(asked)
            exposition.publish("default", published)
    clock.now = 1090.0  # the gauges have expired, which makes another page that is not ready yet
    assert exposition.finished("", "gzip") is None
    assert "hms_peers_active{" not in text_of(exposition.page("", "gzip"))
    assert exposition.finished("", "gzip") is not None


# --- live metrics ---


def test_a_text_that_stays_the_same_from_poll_to_poll_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each poll makes new sections. Gauges get a new expiry, and counters have another text in each format."""
    compressed: list[bytes] = []

    def noticing(text: bytes) -> bytes:
        compressed.append(text)
        return deflate(text)

    monkeypatch.setattr("exporter.publish.exposition.deflate", noticing)
    exposition = Exposition(nothing_live, monotonic=lambda: 0.0)

    def poll(number: int) -> None:
        joined = Section(b"hms_peers_joined_total 1\n", openmetrics=b"hms_peers_joined_total 1\nhms_peers_joined_created 2.0\n")
        active = Section(b"hms_peers_active 5\n", expires=100.0 + number)
        left = Section(b"hms_peers_left_total %d\n" % number)
        exposition.publish("w", {"hms_peers_joined_total": [joined], "hms_peers_active": [active], "hms_peers_left_total": [left]})

    poll(1)
    for accept in ("", "application/openmetrics-text"):
        exposition.page(accept, "gzip")
    compressed.clear()
    poll(2)
    assert compressed == [b"hms_peers_left_total 2\n"]
    assert gzip.decompress(b"".join(exposition.page("", "gzip").chunks)) == b"".join(exposition.page("", "").chunks)


@pytest.mark.parametrize(("fmt", "generate"), [(TEXT, generate_latest), (OPENMETRICS, generate_openmetrics)])
def test_live_metrics_are_as_client_python_writes_them_after_every_change(fmt: Format, generate: Callable[[Any], bytes]) -> None:
    live = SelfMetrics("1.0", 'a"b\\c\nd')

    def steady(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if not line.startswith((b"process_", b"python_gc"))]

    workspace = live.workspace('he said "\\" \n', 30.0)
    changes: list[Callable[[], object]] = [
        lambda: None,
        workspace.polls.inc,
        lambda: workspace.request("/sessions", "200", 0.1),
        lambda: workspace.request("/sessions", "500", 1e9),
        lambda: workspace.throttled(0.1),
        lambda: workspace.clock_skew(-1e-7),
        lambda: workspace.token_expiry(1.7e9, minted=True),
        lambda: workspace.catch_up.set(float("nan")),
        lambda: workspace.interval.dec(float("inf")),
        lambda: live.workspace("another", 5.0),
        lambda: live.reload_successful.set(1),
        lambda: live.forget("another"),
    ]
    for change in changes:
        change()
        text = b"".join(section.text for section in live.render(fmt, frozenset()))
        assert steady(text) == steady(generate(live.registry))


def test_live_metrics_that_have_not_changed_are_not_rendered_again() -> None:
    live = SelfMetrics("1.0", "abc")
    workspace = live.workspace("w", 30.0)
    *before, _ = live.render(TEXT, frozenset())
    *after, _ = live.render(TEXT, frozenset())
    assert all(one is other for one, other in zip(before, after, strict=True))
    workspace.polls.inc()
    *after, _ = live.render(TEXT, frozenset())
    assert [other.text.split()[2] for one, other in zip(before, after, strict=True) if one is not other] == [b"hms_exporter_polls_total"]


def created(live: SelfMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The `_created` times of the exporter's own counters and histograms."""
    text = b"".join(section.text for section in live.render(OPENMETRICS, frozenset())).decode()
    found = {}
    for family in parse_openmetrics(text):
        for sample in family.samples:
            if sample.name == f"{family.name}_created":
                labels = {name: value for name, value in sample.labels.items() if name != "le"}
                found[family.name, frozenset(labels.items())] = sample.value
    return found


def test_live_counters_tell_when_they_began_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    live = SelfMetrics("1.0", "abc")
    workspace = live.workspace("w", 30.0)
    assert created(live) == {}
    plain = [section.text for section in live.render(TEXT, frozenset())][:-1]
    live.created = True
    assert [section.text for section in live.render(TEXT, frozenset())][:-1] == plain, "the text format knows no such thing"
    began = created(live)
    counters = {"polls", "poll_failures", "polls_skipped", "poll_duration_seconds", "api_retries", "api_throttled_seconds"}
    assert {name.removeprefix("hms_exporter_") for name, _ in began} == {*counters, "records_rejected"}
    assert set(began.values()) == {1000.0}
    now = 1_060 * 10**9
    workspace.request("/sessions", "200", 0.1)
    workspace.polls.inc()
    now = 1_090 * 10**9
    workspace.request("/sessions", "200", 0.1)
    workspace.request("/sessions", "500", 0.1)
    fresh = {key: at for key, at in created(live).items() if key not in began}
    assert {(dict(labels).get("code"), at) for (_, labels), at in fresh.items()} == {("200", 1060.0), ("500", 1090.0), (None, 1060.0)}
    assert {key: at for key, at in created(live).items() if key in began} == began
    live.forget("w")
    live.workspace("w", 30.0)
    assert set(created(live).values()) == {1090.0}, "what left and came back begins anew, as its value does"


# --- several workspaces, which come and go ---


def lines(*values: str) -> Section:
    return Section("".join(f"{value}\n" for value in values).encode())


def test_a_familys_samples_of_all_workspaces_stand_together() -> None:
    exposition = Exposition(nothing_live, Clock())
    exposition.publish(
        "b", {"hms_up": [lines('hms_up{workspace="b"} 1')], "hms_rooms_tracked": [lines('hms_rooms_tracked{workspace="b"} 1')]}
    )
    exposition.publish(
        "a", {"hms_up": [lines('hms_up{workspace="a"} 0')], "hms_rooms_tracked": [lines('hms_rooms_tracked{workspace="a"} 2')]}
    )
    text = text_of(exposition.page("", ""))
    assert [line for line in text.splitlines() if not line.startswith("# HELP")] == [
        "# TYPE hms_up gauge", 'hms_up{workspace="a"} 0', 'hms_up{workspace="b"} 1',
        "# TYPE hms_rooms_tracked gauge", 'hms_rooms_tracked{workspace="a"} 2', 'hms_rooms_tracked{workspace="b"} 1',
    ]  # fmt: skip
    exposition.publish("a", None)
    assert 'workspace="a"' not in text_of(exposition.page("", ""))
    exposition.publish("b", None)
    assert text_of(exposition.page("", "")) == ""
    assert text_of(exposition.page(OPENMETRICS_ACCEPT, "")) == "# EOF\n"


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_pages_by_name_share_their_texts_so_that_many_slow_readers_hold_no_copies(published: Sections, encoding: str) -> None:
    exposition = Exposition(nothing_live)
    exposition.publish("w", published)
    names = frozenset({"hms_peers_active", "hms_peer_seconds_total", "hms_room_info"})
    one, other = (exposition.page("", encoding, names).chunks for _ in range(2))
    shared = {id(chunk) for chunk in one} & {id(chunk) for chunk in other}
    own = [chunk for chunk in other if id(chunk) not in shared]
    assert sum(map(len, own)) < 20
    assert sum(map(len, other)) > 200


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("names", [frozenset[str](), frozenset({"hms_peers_active", "hms_peers_joined_total"})])
def test_gauges_go_when_they_are_too_old_also_while_nothing_is_published(published: Sections, encoding: str, names: frozenset[str]) -> None:
    """The scrape decides it, so a poll that hangs cannot keep them."""
    clock = Clock()
    exposition = Exposition(nothing_live, clock)
    exposition.publish("default", published)
    for now, shown in ((1000.0, True), (1089.9, True), (1090.0, False), (5000.0, False)):
        clock.now = now
        text = text_of(exposition.page("", encoding, names))
        assert ("hms_peers_active{" in text) == shown
        assert ("# TYPE hms_peers_active gauge" in text) == shown, "and no header without samples"
        assert "hms_peers_joined_total{" in text, "counters stay"


def test_each_workspaces_gauges_go_at_their_own_time() -> None:
    clock = Clock()
    exposition = Exposition(nothing_live, clock)
    for name, expires in (("a", 1010.0), ("b", 1020.0)):
        exposition.publish(name, {"hms_users_active": [Section(f'hms_users_active{{workspace="{name}"}} 1\n'.encode(), expires)]})
    seen = []
    for clock.now in (1005.0, 1015.0, 1025.0):
        text = text_of(exposition.page("", "gzip"))
        seen.append([name for name in "ab" if f'"{name}"' in text])
    assert seen == [["a", "b"], ["b"], []]


def test_a_page_once_begun_is_not_changed_by_the_next_poll(exposition: Exposition) -> None:
    page = exposition.page("", "")
    before = b"".join(page.chunks)
    exposition.publish("default", {"hms_up": [lines("hms_up 0")]})
    assert b"".join(page.chunks) == before
    assert text_of(exposition.page("", "")).endswith("hms_up 0\n")


# --- name[] ---


class Published:
    """The page as a client_python collector, to compare with client_python's own filter."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families

    describe = collect


SAMPLE_NAMES = sorted({name for family in FAMILIES for name in sample_names(family)})
ODD_NAMES = [
    "",
    "hms",
    "hms_session_peers",
    "hms_peers_joined",
    "hms_peers_joined_created",
    "process_cpu_seconds_total",
    "hms_up ",
    "# TYPE",
    "hms_up{",
]


@given(st.frozensets(st.sampled_from(SAMPLE_NAMES + ODD_NAMES), min_size=1, max_size=6))
def test_name_filters_as_client_python_does(names: frozenset[str]) -> None:
    golden = GOLDEN.read_text()
    registry = CollectorRegistry()
    registry.register(Published(list(parse_text(golden))))
    exposition = Exposition(nothing_live, Clock())
    exposition.publish("default", _sections_of(golden))
    restricted = registry.restricted_registry(names)
    ours = text_of(exposition.page("", "", names))
    assert samples(parse_text(ours)) == samples(parse_text(generate_latest(restricted).decode()))
    assert sorted(line for line in ours.splitlines() if line.startswith("#")) == sorted(
        line for line in generate_latest(restricted).decode().splitlines() if line.startswith("#")
    )
    # OpenMetrics' parser refuses half a histogram, which a filter may ask for, so only the samples are compared.
    modern = text_of(exposition.page(OPENMETRICS_ACCEPT, "", names))
    assert samples(parse_text(_uncommented(modern))) == samples(parse_text(_uncommented(generate_openmetrics(restricted).decode())))


def _uncommented(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _sections_of(text: str) -> Sections:
    """Splits a page into sections."""
    found = {}
    for block in text.split("# HELP ")[1:]:
        name = block.split(" ", 1)[0]
        found[name] = [Section("".join(f"{line}\n" for line in block.split("\n")[2:] if line).encode())]
    return found
