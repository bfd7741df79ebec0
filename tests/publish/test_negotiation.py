"""The format and encoding for a scraper: a table of real and odd headers, and no header raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.publish.negotiation import OPENMETRICS, TEXT, Format, choose_format, wants_gzip

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_TEXT_FIRST = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    "text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;q=0.2"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("text/plain; version=1.0.0", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_3_TEXT_FIRST, TEXT),
        (PROTOBUF, TEXT),
        (BROWSER, TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text;VERSION=1.0.0", OPENMETRICS),
        ("application/openmetrics-text ; version=1.0.0 ; q=0.9 , text/plain ; q=0.8", OPENMETRICS),
        ("text/plain;q=0.9,application/openmetrics-text;q=0.8", TEXT),
        ("text/plain;q=0.8,application/openmetrics-text;q=0.9", OPENMETRICS),
        ("text/plain,application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text,text/plain", OPENMETRICS),
        # unknown and unwanted formats are skipped
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=abc", TEXT),
        ("application/openmetrics-text;version=", OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=0.000,text/plain;q=0.001", TEXT),
        ("application/openmetrics-text;q=abc", TEXT),
        ("application/openmetrics-text;q=2", TEXT),
        ("application/openmetrics-text;q=-1", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=1e-1", TEXT),
        ("application/openmetrics-text;q=0.5555", TEXT),
        ("application/openmetrics-text;q=", TEXT),
        ("application/openmetrics-text;q=1.000", OPENMETRICS),
        ("application/openmetrics-text;q=1.001", TEXT),
        ("application/openmetrics-text;q=\u0661", TEXT),
        (",,,;;;===,application/openmetrics-text", OPENMETRICS),
        ("image/png", TEXT),
        ("x" * 100_000, TEXT),
        ("a/b," * 100_000, TEXT),
        ("\0\x7f\xff", TEXT),
    ],
)
def test_the_best_requested_format_is_chosen(accept: str, expected: Format) -> None:
    assert choose_format(accept) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("gzip, deflate, br, zstd", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("identity, gzip", True),
        ("identity;q=1.0, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=1.0", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.001", True),
        ("gzip;q=abc", False),
        ("br", False),
        ("zstd,br", False),
        ("gzipped", False),
        ("x-gzip", False),
        (" gzip ;q=1", True),
        ("\0", False),
    ],
)
def test_gzip_is_sent_to_clients_that_accept_it(accept_encoding: str, expected: bool) -> None:
    assert wants_gzip(accept_encoding) is expected


HEADERS = st.text() | st.lists(
    st.sampled_from(
        [
            "application/openmetrics-text",
            "text/plain",
            "*/*",
            ";",
            ",",
            "q=",
            "version=",
            "1.0.0",
            "0.5",
            "gzip",
            "=",
            '"',
            " ",
            "\t",
            "1e9",
        ]
    )
).map("".join)


@given(HEADERS)
def test_no_header_raises(text: str) -> None:
    assert choose_format(text) in Format
    assert wants_gzip(text) in (True, False)


@given(st.sampled_from([OPENMETRICS, TEXT]))
def test_asking_for_the_answered_format_gives_the_same_format(fmt: Format) -> None:
    assert choose_format(fmt.content_type) is fmt
