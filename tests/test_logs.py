"""The log: one line per event, in UTC, machine-readable whatever a field holds, and without the text of exceptions."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import logs

LOGFMT = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)')


@contextlib.contextmanager
def written(
    level: Literal["debug", "info", "warn", "error"] = "debug", form: Literal["logfmt", "json"] = "logfmt"
) -> Iterator[io.StringIO]:
    """The text that goes to stderr within the block.  Afterwards the logger is as before."""
    stream = io.StringIO()
    before = logs.logger.handlers[:], logs.logger.propagate, logs.logger.level
    with contextlib.redirect_stderr(stream):
        logs.set_up(level, form)
        try:
            yield stream
        finally:
            logs.logger.handlers[:], logs.logger.propagate = before[0], before[1]
            logs.logger.setLevel(before[2])


def parse_logfmt(line: str) -> dict[str, str]:
    """The fields of a line; fails if the line holds anything else."""
    pairs = LOGFMT.findall(line)
    assert " ".join(f"{name}={value}" for name, value in pairs) == line
    return {name: json.loads(value) if value.startswith('"') else value for name, value in pairs}


def test_an_event_is_one_line_with_its_time_in_utc() -> None:
    with written() as stream:
        logs.event("warn", "poll failed", workspace="default", reason="100ms answers 503", polls=3)
    line = stream.getvalue()
    assert re.fullmatch(
        r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=warn msg="poll failed" workspace=default reason="100ms answers 503" polls=3\n',
        line,
    )


def test_json_has_the_same_fields() -> None:
    with written(form="json") as stream:
        logs.event("info", "listening", address="[::]:10100", name="Zoë\n")
    fields = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {"level": "info", "msg": "listening", "address": "[::]:10100", "name": "Zoë\n"}


def test_values_are_written_plainly_and_none_is_left_out() -> None:
    with written() as stream:
        logs.event("info", "m", yes=True, no=False, number=7, ratio=0.5, third=1 / 3, nothing=None, empty="")
    line = stream.getvalue().split(" ", 1)[1]
    assert line == 'level=info msg=m yes=true no=false number=7 ratio=0.5 third=0.333333 empty=""\n'


@given(st.text(), st.sampled_from(["logfmt", "json"]))
def test_whatever_a_field_holds_the_line_stays_one_and_can_be_read_back(text: str, form: Literal["logfmt", "json"]) -> None:
    with written(form=form) as stream:
        logs.event("error", "m", field=text)
    line, end = stream.getvalue()[:-1], stream.getvalue()[-1]
    assert end == "\n"
    assert "\n" not in line
    assert "\r" not in line
    fields = json.loads(line) if form == "json" else parse_logfmt(line)
    assert fields["field"] == text


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "debug info warn error"), ("info", "info warn error"), ("warn", "warn error"), ("error", "error")],
)
def test_a_level_shows_itself_and_what_is_graver(level: Literal["debug", "info", "warn", "error"], shown: str) -> None:
    with written(level) as stream:
        logs.event("debug", "m")
        logs.event("info", "m")
        logs.event("warn", "m")
        logs.event("error", "m")
    assert " ".join(re.findall(r"level=(\w+)", stream.getvalue())) == shown


def test_a_second_setup_replaces_the_first() -> None:
    with written("error"):
        stream = io.StringIO()
        with contextlib.redirect_stderr(stream):
            logs.set_up("info", "json")
            logs.event("info", "once")
    assert [json.loads(line)["msg"] for line in stream.getvalue().splitlines()] == ["once"]


def test_records_of_pythons_logging_have_the_same_form() -> None:
    with written() as stream:
        logging.getLogger("exporter.web.server").warning("cannot accept connections: %s", "Too many open files")
    fields = parse_logfmt(stream.getvalue().rstrip("\n"))
    assert (fields["level"], fields["msg"]) == ("warn", "cannot accept connections: Too many open files")


def test_a_fault_of_the_program_is_told_by_type_and_place_and_never_by_its_text() -> None:
    with written() as stream:
        try:
            raise KeyError("eyJhbGciOiJIUzI1NiJ9 customer-77 Alice")
        except KeyError:
            logs.failure("a poll failed", workspace="w")
    fields = parse_logfmt(stream.getvalue().rstrip("\n"))
    assert fields["level"] == "error"
    assert fields["error"] == "KeyError"
    assert re.fullmatch(r"[\w.]+:\d+", fields["at"])
    assert not [private for private in ("eyJ", "customer-77", "Alice") if private in stream.getvalue()]


def test_an_exception_logged_by_pythons_logging_shows_no_traceback_either() -> None:
    with written() as stream:
        try:
            raise ValueError("customer-77")
        except ValueError:
            logging.getLogger("exporter.anything").exception("odd")
    assert stream.getvalue().count("\n") == 1
    assert "customer-77" not in stream.getvalue()
