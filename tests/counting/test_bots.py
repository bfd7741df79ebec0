"""Bots: peers in the roles of `bots.roles` are not people.  They keep their series by role, and count nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.config.config import BotsConfig, Budget, Prices
from exporter.counting.usage import by_role
from exporter.simulator import Session, World
from exporter.times import MINUTE, SECOND, calendar
from lab.bench import Bench
from tests.harness import T0, Counting, at, peer, session

RECORDER = "__internal_recorder"
BOTS = frozenset({RECORDER})


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    counting = Counting(tmp_path / "state.db", bots=BOTS)
    yield counting
    counting.close()


def in_sessions(counting: Counting) -> tuple[int, int]:
    """The ended sessions and the people in them, from the histogram."""
    histogram = counting.ledger.histograms["session_peers", ""]
    return sum(histogram.counts), histogram.total


# -- gauges -------------------------------------------------------------------------------------------------------


def test_a_recorder_is_a_peer_of_its_role_and_neither_a_user_nor_in_a_peak(counting: Counting) -> None:
    counting.poll(at(0))
    counting.poll(at(30), session("s", {"p": peer(at(1), user="u1"), "r": peer(at(2), role=RECORDER, user="bot")}))
    gauges = counting.gauges()
    assert gauges.peers == {"guest": 1, RECORDER: 1}
    assert (gauges.users, gauges.peak) == (1, 1)
    assert (counting.value("joined", RECORDER), counting.seconds(RECORDER)) == (1, 28)


def test_a_room_is_the_same_whether_or_not_the_recorder_stands_in_its_peers(counting: Counting) -> None:
    people = {"p": peer(at(1), user="u1"), "q": peer(at(3), at(20), user="u2")}
    counting.poll(at(0))
    counting.poll(at(30), session("s", {**people, "r": peer(at(2), role=RECORDER, user="bot")}), session("t", people, room="other"))
    recorded, plain = counting.gauges(), counting.gauges("other")
    assert (recorded.users, recorded.peak, recorded.sessions) == (plain.users, plain.peak, plain.sessions) == (1, 2, 1)


def test_a_user_who_is_there_as_a_person_and_as_a_bot_counts_once(counting: Counting) -> None:
    counting.poll(at(30), session("s", {"p": peer(at(1), user="u"), "r": peer(at(2), role=RECORDER, user="u")}))
    assert counting.gauges().users == 1


def test_recorders_that_come_and_go_between_two_polls_make_no_peak(counting: Counting) -> None:
    counting.poll(at(0), session("s", {"p": peer(at(0))}))
    recorders = {f"r{number}": peer(at(2), at(20), RECORDER) for number in range(5)}
    counting.poll(at(30), session("s", {"p": peer(at(0)), **recorders}))
    assert counting.gauges().peak == 1


@pytest.mark.parametrize(("first", "last", "people"), [("guest", RECORDER, 0), (RECORDER, "guest", 1)])
def test_a_peer_whose_role_changes_is_a_person_as_long_as_its_role_is_ones(counting: Counting, first: str, last: str, people: int) -> None:
    counting.poll(at(0))
    counting.poll(at(30), session("s", {"p": peer(at(1), user="u", role=first), "q": peer(at(1), at(15))}))
    assert (counting.gauges().users, counting.gauges().peak) == (1 - people, 2 - people)
    counting.poll(at(60), session("s", {"p": peer(at(1), user="u", role=last), "q": peer(at(1), at(15))}))
    assert (counting.gauges().users, counting.gauges().peak) == (people, people), "a new role counts from the reading before"
    counting.poll(at(90), session("s", {"p": peer(at(1), user="u", role=last), "q": peer(at(1), at(15))}))
    assert (counting.gauges().users, counting.gauges().peak) == (people, people)
    assert (counting.seconds(first), counting.seconds(last)) == (29 + 14 * (first == "guest"), 60 + 14 * (last == "guest"))


# -- distributions ------------------------------------------------------------------------------------------------


def test_the_peers_of_a_session_are_its_people_and_the_stays_are_of_all_roles(counting: Counting) -> None:
    stays = {"p": peer(at(0), at(50)), "q": peer(at(5), at(60)), "r": peer(at(1), at(60), RECORDER)}
    counting.poll(at(70), session("s", stays, ended=at(60)))
    assert in_sessions(counting) == (1, 2)
    assert sum(counting.ledger.histograms["peer_duration", RECORDER].counts) == 1


def test_a_session_of_recorders_alone_is_a_session_without_people(counting: Counting) -> None:
    counting.poll(at(70), session("s", {"r": peer(at(1), at(60), RECORDER)}, ended=at(60)))
    assert in_sessions(counting) == (1, 0)
    assert counting.value("ended") == 1


def test_a_peer_that_was_a_person_for_a_while_is_one_of_a_sessions_people(counting: Counting) -> None:
    for now, role in ((10, "guest"), (40, RECORDER)):
        counting.poll(at(now), session("s", {"p": peer(at(0), role=role), "r": peer(at(0), role=RECORDER)}))
    counting.poll(at(70), session("s", {"p": peer(at(0), at(60), RECORDER), "r": peer(at(0), at(60), RECORDER)}, ended=at(60)))
    assert in_sessions(counting) == (1, 1)


def test_no_peer_is_a_bot_if_no_role_is_configured(tmp_path: Path) -> None:
    counting = Counting(tmp_path / "state.db", bots=frozenset())
    counting.poll(at(0))
    counting.poll(at(30), session("s", {"p": peer(at(1), user="u1"), "r": peer(at(2), role=RECORDER, user="bot")}))
    assert (counting.gauges().users, counting.gauges().peak) == (2, 2)
    counting.close()


# -- usage --------------------------------------------------------------------------------------------------------


def test_usage_is_without_bots_and_includes_them_again_when_they_are_bots_no_longer(counting: Counting) -> None:
    counting.poll(at(70), session("s", {"p": peer(at(0), at(60)), "r": peer(at(0), at(40), RECORDER)}, ended=at(60)))
    counting.poll(at(190), session("s", {"p": peer(at(0), at(60)), "r": peer(at(0), at(40), RECORDER)}, ended=at(60)))

    def usage(bots: frozenset[str]) -> dict[str, int]:
        found = by_role(counting.ledger.accounts.values(), counting.ledger.unloaded, calendar(at(190)), bots)
        return {role: month // SECOND for role, (_, month) in found.items()}

    assert usage(BOTS) == {"guest": 60}
    assert usage(frozenset()) == {"guest": 60, RECORDER: 40}


# -- a reload -----------------------------------------------------------------------------------------------------


def test_the_next_gauges_follow_a_reload_though_no_record_has_changed(counting: Counting) -> None:
    """They follow even if the number of people is the same before and after, but of other people."""
    running = session("s", {"p": peer(at(1), user="u1"), "r": peer(at(2), role=RECORDER, user="bot")})
    counting.poll(at(0))
    counting.poll(at(30), running)
    counting.ledger.leave_out(frozenset())
    counting.poll(at(60), running)
    assert (counting.gauges().users, counting.gauges().peak) == (2, 2)
    counting.ledger.leave_out(frozenset({"guest"}))
    counting.poll(at(90), running)
    assert (counting.gauges().users, counting.gauges().peak, counting.gauges().peers) == (1, 1, {"guest": 1, RECORDER: 1})


def test_a_peak_after_a_reload_counts_those_that_are_people_now(counting: Counting) -> None:
    first = session("s", {"p": peer(at(1)), "r": peer(at(2), role=RECORDER)})
    counting.poll(at(0))
    counting.poll(at(30), first)
    counting.begin(at(60))
    counting.see(session("s", {"p": peer(at(1)), "r": peer(at(2), at(40), RECORDER), "q": peer(at(35), at(45))}))
    counting.end(complete=False, fresh=())
    counting.ledger.leave_out(frozenset({"guest"}))
    counting.poll(at(90), session("s", {"p": peer(at(1)), "r": peer(at(2), at(40), RECORDER), "q": peer(at(35), at(45))}))
    assert counting.gauges().peak == 1, "the recorder was there until 40 s, the guests are no people"


# -- over HTTP ----------------------------------------------------------------------------------------------------


class Recorded:
    """A room with a teacher and a recorder, over real HTTP."""

    def __init__(self, folder: Path) -> None:
        self.world = World("key", "secret" * 6)
        self.room = self.world.room(name="class", created_at=T0 - MINUTE)
        self.bench = Bench(folder, self.world)
        prices = Prices("USD", {"default": 0.5})
        budgets = (Budget("all", "month", 100), Budget("class", "month", 100, rooms=frozenset({"class"})))
        self.bench.config = replace(self.bench.config, prices=prices, budgets=budgets)
        self.bench.restart()
        self.bench.poll()
        self.call: Session = self.world.open(self.room.id, at=T0 + 10 * SECOND)
        self.call.join(role="teacher", at=T0 + 10 * SECOND, user_id="u")
        self.call.join(role=RECORDER, at=T0 + 10 * SECOND, user_id="recorder")

    def reload(self, **changes: object) -> None:
        """Reloads the configuration with these sections."""
        bench = self.bench
        bench.config = replace(bench.config, **changes)  # type: ignore[arg-type]  # sections by their names
        bench.poller.configure(bench.workspace, bench.config, bench.api)

    def usage(self) -> dict[str, float]:
        """The usage of this month by role."""
        samples = self.bench.samples()
        labels = {key: (key[0], dict(key[1])) for key in samples}
        return {
            of["role"]: samples[key] for key, (name, of) in labels.items() if name == "hms_usage_peer_seconds" and of["period"] == "month"
        }


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    recorded = Recorded(tmp_path)
    yield recorded
    recorded.bench.close()


def test_only_series_by_role_are_published_of_a_recorder(recorded: Recorded) -> None:
    bench = recorded.bench
    bench.poll(610)
    assert bench.value("hms_peers_active") == 2
    assert (bench.value("hms_users_active"), bench.value("hms_peers_active_peak")) == (1, 1)
    assert bench.value("hms_peer_seconds_total", role=RECORDER) == pytest.approx(600, abs=1.5)
    assert recorded.usage() == {"teacher": pytest.approx(600, abs=1.5)}
    assert bench.value("hms_usage_cost") == pytest.approx(5, abs=0.02)
    used = [bench.value("hms_budget_used_ratio", budget=name) for name in ("all", "class")]
    assert used == [pytest.approx(0.1, abs=1e-3)] * 2


def test_a_reload_changes_usage_costs_and_budgets_at_once_and_gauges_with_the_next_poll(recorded: Recorded) -> None:
    bench = recorded.bench
    bench.poll(610)
    recorded.reload(bots=BotsConfig(frozenset()))
    assert recorded.usage() == {"teacher": pytest.approx(600, abs=1.5), RECORDER: pytest.approx(600, abs=1.5)}
    assert bench.value("hms_usage_cost") == pytest.approx(10, abs=0.04)
    assert bench.value("hms_budget_used_ratio", budget="class") == pytest.approx(0.2, abs=2e-3)
    bench.poll(30)
    assert (bench.value("hms_users_active"), bench.value("hms_peers_active_peak")) == (2, 2)
    recorded.reload(bots=BotsConfig())
    bench.restart()
    assert recorded.usage() == {"teacher": pytest.approx(630, abs=1.5)}, "published again before the first poll"
    bench.poll(30)
    assert (bench.value("hms_users_active"), bench.value("hms_peers_active_peak")) == (1, 1)
