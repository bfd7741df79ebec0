"""The families, the truth and the accounts name the same counters, so that a new counter is watched everywhere."""

from __future__ import annotations

import pytest

from exporter.counting.accounts import RoleTotals, SessionTotals
from exporter.publish.families import FAMILIES
from lab.counters import BY_ROLE, BY_ROOM, NAMES, RISING, field, published, sums, sums_of
from lab.watcher import Watcher

LINE = 'hms_peer_seconds_total{{workspace="w",room_id="r",room="n",role="{role}"}} {value}\n'


def test_the_truth_knows_every_exact_counter_and_no_other() -> None:
    assert sorted({*BY_ROOM, *BY_ROLE}) == sorted(NAMES)


@pytest.mark.parametrize(("names", "totals"), [(BY_ROOM, SessionTotals()), (BY_ROLE, RoleTotals())], ids=["rooms", "roles"])
def test_accounts_publish_every_exact_counter_and_no_other(names: tuple[str, ...], totals: SessionTotals | RoleTotals) -> None:
    assert {field(name) for name in names} == published(totals).keys()


def test_every_counter_and_distribution_is_watched_for_falling() -> None:
    rising = [family.name for family in FAMILIES if family.kind in ("counter", "histogram")]
    assert all(any(name.startswith(family) for name in RISING) for family in rising)
    assert not {family.name for family in FAMILIES if family.kind == "gauge"} & RISING


def test_a_watcher_sees_a_counter_fall_and_nothing_else() -> None:
    watcher = Watcher()
    for value in (1.0, 2.0, 2.0, 1.5, 3.0):
        watcher.look(LINE.format(role="host", value=value) + f"hms_peers_active{{}} {9 - value}\n")
    assert len(watcher.falls) == 1
    assert "fell from 2.0 to 1.5" in watcher.falls[0]


def test_a_counter_that_comes_back_lower_after_it_was_away_has_fallen() -> None:
    watcher = Watcher()
    for page in (LINE.format(role="host", value=5), "", LINE.format(role="host", value=4)):
        watcher.look(page)
    assert len(watcher.falls) == 1


def test_a_watcher_sees_the_sum_of_a_histogram_fall() -> None:
    watcher = Watcher()
    for value in (2, 1):
        watcher.look(f'hms_session_peers_sum{{workspace="w"}} {value}\n')
    assert len(watcher.falls) == 1


def test_the_sums_of_a_room_are_those_of_its_roles_to_the_microsecond() -> None:
    page = LINE.format(role="host", value=0.1) + LINE.format(role="guest", value=1772438400.000002)
    assert sums(Watcher().look(page)) == {"r": sums_of(peer_seconds=1_772_438_400_100_002)}
