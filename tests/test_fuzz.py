"""Fuzzers: no input raises, no counter falls, and every page parses, with Prometheus's own parser too."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.config import Config, ConfigError, parse
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import room_account
from exporter.hms.errors import MalformedAnswer
from exporter.hms.pages import decode_page
from exporter.hms.records import Session, decode_room, decode_session
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.families import header
from exporter.publish.negotiation import OPENMETRICS, TEXT, Format, choose_format, wants_gzip
from exporter.publish.text import account_lines
from exporter.times import DAY, SECOND
from soak.process import free_port
from tests.harness import T0, Counting, peer, published, session
from tests.programs import require

VALID = session(
    "session-1",
    {"a": peer(T0 + SECOND, T0 + 9 * SECOND, "host", "somebody"), "b": peer(T0 + 2 * SECOND), "c": peer(T0 + 2 * SECOND, role="speaker")},
)

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["2026-03-02T08:00:05Z", "2026-03-02T08:00:05.123456789Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"]),
    st.sampled_from(
        ["2026-03-02T08:00:05", "2026-03-02T08:00:60Z", "2026-03-02T24:00:00Z", "2026-03-02T08:00:05+14:00", "-0001-01-01T00:00:00Z"]
    ),
)
JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)


@st.composite
def mutated_records(draw: st.DrawFn) -> bytes:
    """A good record in which some values, at any depth, are replaced or removed."""
    record = json.loads(VALID)
    for _ in range(draw(st.integers(1, 3))):
        place = record
        while True:
            key = draw(st.sampled_from(sorted(place)))
            if isinstance(place[key], dict) and place[key] and draw(st.booleans()):
                place = place[key]
            else:
                break
        if draw(st.booleans()):
            place[key] = draw(JSON)
        else:
            del place[key]
        if not record or (isinstance(record.get("peers"), dict) and not all(record["peers"].values())):
            break
    return json.dumps(record).encode()


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    """A good record with bytes changed, removed or inserted."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


RECORDS = mutated_records() | mutated_bytes()


@given(RECORDS)
def test_a_record_that_decodes_makes_sense_and_one_that_does_not_is_rejected(raw: bytes) -> None:
    now = T0 + 60 * SECOND
    found, rejections = decode_session(raw, now)
    assert found is not None or rejections
    for rejection in rejections:
        assert rejection.subject.isprintable()
        assert "somebody" not in rejection.subject + rejection.reason
    if isinstance(found, Session):
        assert found.ended is None or found.started <= found.ended <= now + 2 * DAY
        for stay in found.stays.values():
            assert found.started - DAY <= stay.joined <= (now + 2 * DAY if stay.left is None else stay.left) <= now + 2 * DAY


@pytest.mark.slow
@given(st.lists(RECORDS, min_size=1, max_size=6))
def test_whatever_is_seen_of_a_session_no_counter_falls_and_all_of_it_is_published(
    tmp_path_factory: pytest.TempPathFactory, seen: list[bytes]
) -> None:
    counting = Counting(tmp_path_factory.mktemp("fuzz") / "state.db", since=T0 - DAY)
    before = dict(counting.committed)
    now = T0 + 60 * SECOND
    try:
        for raw in [VALID, *seen, VALID]:
            now += 30 * SECOND
            counting.poll(now, raw)
            for series, value in before.items():
                assert counting.committed[series] >= value
            before = dict(counting.committed)
            for state in counting.ledger.accounts.values():
                assert b"".join(account_lines("w", "room", state, None)).decode().endswith("\n")
        assert published(counting.ledger.accounts.values()) == counting.committed
    finally:
        counting.store.close()


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_an_answer_is_a_page_or_malformed_and_a_room_is_one_or_rejected(raw: bytes) -> None:
    with contextlib.suppress(MalformedAnswer):
        page = decode_page(raw)
        assert page.data is None or isinstance(page.data, list)
    assert decode_room(raw) is not None


# -- the configuration ------------------------------------------------------------------------------------------------

SAMPLE = (Path(__file__).parent.parent / "config.yaml").read_text()
SECRET = "c4nary-of-a-secret"


SLIPS = st.text(max_size=4) | st.sampled_from(["\n", "  ", "\t", ": ", "- ", "{", "}", "#", "'", "&a ", "*a "])


def complaint(text: str) -> str | None:
    """The message if this configuration is refused; `None` if it is accepted."""
    try:
        assert isinstance(parse(text, {"HMS_ACCESS_KEY": SECRET, "HMS_SECRET": SECRET}, "config.yaml"), Config)
    except ConfigError as error:
        return str(error)
    return None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), SLIPS), min_size=1, max_size=4))
def test_a_configuration_with_typos_is_accepted_or_refused_in_one_line(slips: list[tuple[float, int, str]]) -> None:
    text = SAMPLE
    for place, length, slip in slips:
        at = round(place * len(text))
        text = text[:at] + slip + text[at + length :]
    started = time.monotonic()
    found = complaint(text)
    assert time.monotonic() - started < 5
    assert found is None or (found.startswith("config.yaml:") and found.isprintable() and SECRET not in found)


# -- the negotiation --------------------------------------------------------------------------------------------------

RANGES = st.sampled_from(
    [
        "text/plain",
        "text/plain;version=0.0.4",
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "application/openmetrics-text;version=0.0.1",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        "*/*",
        "text/*",
        "application/json",
    ]
)
QUALITIES = st.sampled_from(["", ";q=1", ";q=0.5", ";q=0.123", ";q=0", "; q=0.9"])
ACCEPT = st.lists(st.tuples(RANGES, QUALITIES).map("".join), max_size=5)


@given(ACCEPT, st.randoms())
def test_neither_the_order_nor_case_nor_blanks_decide_about_the_format(ranges: list[str], chance: object) -> None:
    chosen = choose_format(",".join(ranges))
    shuffled = list(ranges)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis says only that it is a Random
    assert choose_format(" , ".join(shuffled).upper()) is chosen


@given(ACCEPT)
def test_openmetrics_is_sent_only_on_request_and_text_otherwise(ranges: list[str]) -> None:
    chosen = choose_format(",".join(ranges))
    assert chosen in Format
    if chosen is OPENMETRICS:
        assert any("openmetrics" in text and not text.endswith(";q=0") for text in ranges)
    if not any("openmetrics" in text for text in ranges):
        assert chosen is TEXT


@given(st.lists(st.tuples(st.sampled_from(["gzip", "br", "deflate", "identity", "*", "GZIP"]), QUALITIES).map("".join), max_size=4))
def test_gzip_is_sent_only_on_request(codings: list[str]) -> None:
    if wants_gzip(",".join(codings)):
        assert any(text.lower().startswith(("gzip", "*")) and not text.endswith(";q=0") for text in codings)


# -- Prometheus's own parser ------------------------------------------------------------------------------------------

LABELS = [
    "", " ", "\0", "a\0b", "\x01", "\t", "\n", "\r", "\r\n", "\x0b", "\x1c", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\ufffe",
    "\U0001f600", "e\u0301",
    "\\", "\\n", "a\\", '"', '\\"', "{}", "},", "#", "# EOF", "le", "x" * 5000, "name with blanks", "'", "%s", "<b>&amp;</b>",
]  # fmt: skip


@contextlib.contextmanager
def scraped(page: bytes, content_type: str, folder: Path) -> Iterator[int]:
    """A real Prometheus that scrapes this page.  Yields its port."""
    prometheus = require("prometheus")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = f"127.0.0.1:{server.server_port}"
    config = folder / "prometheus.yml"
    config.write_text(
        f"scrape_configs: [{{job_name: j, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port()
    command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield port
        finally:
            process.kill()
            server.shutdown()
            server.server_close()


def asked(port: int, query: str) -> list[dict[str, dict[str, str]]]:
    """The series of an instant query; none until Prometheus answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5) as answer:
        found: list[dict[str, dict[str, str]]] = json.load(answer)["data"]["result"]
        return found
    return []


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [TEXT, OPENMETRICS], ids=["text", "OpenMetrics"])
def test_any_name_of_a_room_arrives_in_prometheus_as_it_is(tmp_path: Path, fmt: Format) -> None:
    at = next(index for index, family in enumerate(ACCOUNT_FAMILIES) if family.name == "hms_sessions_started_total")
    lines = [account_lines("w", name, AccountState(room_account(f"room-{number}")), None)[at] for number, name in enumerate(LABELS)]
    page = header(ACCOUNT_FAMILIES[at], openmetrics=fmt is OPENMETRICS) + b"".join(lines) + (b"# EOF\n" if fmt is OPENMETRICS else b"")
    with scraped(page, fmt.content_type, tmp_path) as port:
        deadline = time.monotonic() + 30
        while not (found := asked(port, "hms_sessions_started_total")):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
    # To Prometheus, an empty label is a missing label.
    assert {of["metric"]["room_id"]: of["metric"].get("room", "") for of in found} == {f"room-{n}": name for n, name in enumerate(LABELS)}
