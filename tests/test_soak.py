"""The endurance run at its smallest, and that it would notice: a watcher that cannot complain proves nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from exporter.simulator import HOUR, MINUTE, SECOND, SessionQuery
from soak.days import live
from soak.life import Life
from soak.watcher import Sums, Watcher, sums

T0 = 1_772_438_400 * SECOND
PAGE = 'hms_peer_seconds_total{{workspace="w",room_id="r",room="n",role="{role}"}} {value}\n'


@pytest.mark.slow
def test_two_hours_of_life_lose_nothing_double_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    result = live(tmp_path, days=2 / 24, seed=3, meetings_an_hour=30)
    assert result.polls > 200
    assert result.failed > 0
    assert result.rooms > 60
    assert (result.lost, result.doubled, result.wrong_counts, result.falls) == (0, 0, 0, [])
    assert result.last.descriptors <= result.first.descriptors + 4
    assert result.last.threads <= result.first.threads + 2


def test_a_run_ends_when_its_real_time_is_over(tmp_path: Path) -> None:
    started = time.monotonic()
    result = live(tmp_path, days=1000, hours=0.5 / 3600, meetings_an_hour=1)
    assert 0 < result.days < 1000
    assert time.monotonic() - started < 30


def test_a_watcher_sees_a_counter_fall_and_nothing_else() -> None:
    watcher = Watcher()
    for value in (1.0, 2.0, 2.0, 1.5, 3.0):
        watcher.look(PAGE.format(role="host", value=value) + f"hms_peers_active{{}} {9 - value}\n")
    assert len(watcher.falls) == 1
    assert "fell from 2.0 to 1.5" in watcher.falls[0]


def test_a_counter_that_comes_back_lower_after_it_was_away_has_fallen() -> None:
    watcher = Watcher()
    for page in (PAGE.format(role="host", value=5), "", PAGE.format(role="host", value=4)):
        watcher.look(page)
    assert len(watcher.falls) == 1


def test_the_sums_of_a_room_are_those_of_its_roles_to_the_microsecond() -> None:
    page = PAGE.format(role="host", value=0.1) + PAGE.format(role="guest", value=1772438400.000002)
    assert sums(Watcher().look(page)) == {"r": Sums(peer_us=1_772_438_400_100_002)}


def test_a_life_tells_the_whole_truth_about_rooms_before_it_forgets_them() -> None:
    life, other = (Life(5, T0, meetings_an_hour=10) for _ in range(2))
    for each in (life, other):
        each.live(T0 + 3 * HOUR)
    now = T0 + 12 * HOUR
    whole = other.truth(now)
    assert len(whole) > 30
    gone = life.retire(now, 5 * MINUTE)
    assert gone
    assert {**gone, **life.truth(now)} == whole
    assert life.list_sessions(SessionQuery(1000), now) == []
