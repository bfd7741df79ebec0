"""Log lines about polls: few, whatever the faults are."""

from __future__ import annotations

import logging

import pytest

from exporter.polling.telling import Telling


class Told:
    """A workspace and its log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.now = 1000.0
        self._telling = Telling("w", lambda: self.now)

    def poll(self, fault: str | None, after: float = 1.0) -> list[str]:
        """Ends a poll this many seconds later; returns what is logged."""
        self.now += after
        self._caplog.clear()
        self._telling.poll_ended(fault)
        return [f"{record.getMessage()}: {vars(record)['fields'].get('reason', '')}".rstrip(": ") for record in self._caplog.records]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.DEBUG, "exporter")
    logging.getLogger("exporter").propagate = True
    return Told(caplog)


def test_a_fault_that_lasts_is_told_when_it_begins_and_when_it_ends(told: Told) -> None:
    assert told.poll(None) == []
    assert told.poll("500") == ["poll failed: 500"]
    assert [told.poll("500", after=60) for _ in range(5)] == [[]] * 5
    assert told.poll(None) == ["polls succeed again"]
    assert told.poll(None) == []


def test_a_fault_that_changes_is_told_then(told: Told) -> None:
    told.poll("500")
    assert told.poll("503") == ["poll failed: 503"]
    assert told.poll("503") == []


def test_a_fault_that_changes_from_poll_to_poll_is_told_when_it_begins_then_once_a_minute_then_when_it_ends(told: Told) -> None:
    lines = [line for number in range(600) for line in told.poll(str(500 + number % 7))]
    assert 10 <= len(lines) <= 12
    assert told.poll(None) == ["polls succeed again"]
    assert told.poll("500") == ["poll failed: 500"]


def test_the_last_change_of_a_fault_is_told_in_the_end(told: Told) -> None:
    for fault in ("500", "503", "429"):
        told.poll(fault)
    assert told.poll("429", after=60) == ["poll failed: 429"]
