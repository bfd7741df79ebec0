"""The counters to which an asset adds."""

from __future__ import annotations

from exporter.counting.assets import Counted, counted
from exporter.hms.assets import Asset
from exporter.times import HOUR, SECOND
from tests.harness import T0


def test_a_finished_one_adds_to_the_number_the_length_and_the_size() -> None:
    found = counted(Asset("a", "r", T0, "chat", "completed", 7 * SECOND, 99), T0)
    assert found == {("chat", "completed"): Counted(number=1), ("chat",): Counted(time=7 * SECOND, size=99)}


def test_one_that_failed_adds_to_the_number_alone() -> None:
    assert counted(Asset("a", "r", T0, "track", "failed", 7 * SECOND, 99), T0) == {("track", "failed"): Counted(number=1)}


def test_one_whose_status_is_not_known_adds_to_the_number_alone() -> None:
    assert counted(Asset("a", "r", T0, "track", "other", 7 * SECOND, 99), T0) == {("track", "other"): Counted(number=1)}


def test_one_is_over_from_the_beginning_and_does_not_grow() -> None:
    asset = Asset("a", "r", T0, "chat", "completed", 7 * SECOND, 99)
    assert asset.ended == T0
    assert counted(asset, T0) == counted(asset, T0 + HOUR)
