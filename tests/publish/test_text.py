"""The headers of families, and the lines of an account."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.accounts import HISTOGRAM_BOUNDS, AccountState, Gauges, Histogram, SessionTotals
from exporter.counting.contribution import Account, SessionCounts, Tracked, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.counting.stays import Memory, PeerCounts
from exporter.publish.account_families import ACCOUNT_FAMILIES, AccountFamily, MovingFamily
from exporter.publish.exposition import Exposition
from exporter.publish.families import FAMILIES, Overview, header
from exporter.publish.family import Family
from exporter.publish.negotiation import OPENMETRICS, TEXT, Format
from exporter.publish.selfmetrics import SelfMetrics
from exporter.publish.text import AccountText, Columns, account_lines, workspace_lines
from exporter.publish.writing import time_lines
from exporter.times import SECOND
from lab.counters import BY_ROOM


def rendered(metrics: SelfMetrics, fmt: Format) -> bytes:
    return b"".join(section.text for section in metrics.render(fmt, frozenset()))


ROOM = "61652b404e556e35f2179759"
LABELS = f'workspace="w",room_id="{ROOM}",room="daily"'


def running_session() -> Tracked:
    return Tracked("s", ROOM, 0, None, 0, Memory({}, {}))


def shown(text: AccountText, state: AccountState) -> dict[str, str]:
    """The account's published lines, by family."""
    columns = Columns()
    columns.add(text.lines("w", "daily", state, None))
    return {family.name: line.decode() for family, line in zip(ACCOUNT_FAMILIES, columns.texts(), strict=True)}


def lines_of(state: AccountState, known: KnownRoom | None = None) -> dict[str, str]:
    """An account's lines by family."""
    return {family.name: line.decode() for family, line in zip(ACCOUNT_FAMILIES, account_lines("w", "daily", state, known), strict=True)}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_named_and_described_as_prometheus_asks(family: Family) -> None:
    assert re.fullmatch(r"hms_[a-z][a-z_]*[a-z]", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.kind in {"counter", "gauge", "histogram"}
    assert re.fullmatch(r"[A-Z].{10,}\.?", family.help)
    assert "\n" not in family.help
    assert not family.expires or family.kind == "gauge", "counters never go"


def test_every_family_is_listed_once() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    assert not {name for name in names if name.startswith("hms_exporter_")}, "those are of the other registry"


def test_a_header_follows_the_rules_of_each_format() -> None:
    family = Family("hms_x_total", "counter", 'A "b" \\ c.')
    assert header(family, openmetrics=False) == b'# HELP hms_x_total A "b" \\\\ c.\n# TYPE hms_x_total counter\n'
    assert header(family, openmetrics=True) == b'# HELP hms_x A \\"b\\" \\\\ c.\n# TYPE hms_x counter\n'


def test_a_room_without_any_session_shows_zeros_and_no_start() -> None:
    state = AccountState(room_account(ROOM))
    state.gauges = Gauges(sessions=0, oldest_start=None, peers={}, users=0, peak=0)
    shown = {name: line for name, line in lines_of(state).items() if line}
    assert shown == {
        "hms_sessions_active": f"hms_sessions_active{{{LABELS}}} 0\n",
        "hms_peers_active_peak": f"hms_peers_active_peak{{{LABELS}}} 0\n",
        "hms_users_active": f"hms_users_active{{{LABELS}}} 0\n",
        **{name: f"{name}{{{LABELS}}} {0.0 if name.endswith('_seconds_total') else 0}\n" for name in BY_ROOM},
    }


def test_a_room_that_was_never_read_since_the_start_has_counters_and_no_gauges() -> None:
    state = AccountState(room_account(ROOM))
    state.totals.published = SessionCounts(started=3)
    state.role("host").published_seconds = 90_061_001
    shown = lines_of(state)
    assert not any(shown[family.name] for family in ACCOUNT_FAMILIES if family.expires)
    assert shown["hms_sessions_started_total"].endswith(" 3\n")
    assert shown["hms_peer_seconds_total"] == f'hms_peer_seconds_total{{{LABELS},role="host"}} 90.061001\n'


def test_a_role_without_anyone_connected_is_shown_at_0() -> None:
    state = AccountState(room_account(ROOM))
    state.role("guest")
    state.role("host")
    state.gauges = Gauges(sessions=1, oldest_start=1_772_438_400_250_000, peers={"host": 2, "guest": 0}, users=1, peak=3)
    shown = lines_of(state)
    assert shown["hms_peers_active"] == (f'hms_peers_active{{{LABELS},role="guest"}} 0\nhms_peers_active{{{LABELS},role="host"}} 2\n')
    assert shown["hms_session_start_timestamp_seconds"].endswith(" 1772438400.25\n")


def test_what_is_published_is_the_high_water_mark_and_not_the_settled_sum() -> None:
    state = AccountState(room_account(ROOM))
    state.totals.seconds, state.totals.published_seconds = 5 * SECOND, 7 * SECOND
    assert lines_of(state)["hms_session_seconds_total"].endswith(" 7.0\n")


def test_a_groups_series_have_no_room_id() -> None:
    state = AccountState(Account("group", "daily"))
    state.role("host").published = PeerCounts(joined=1)
    state.gauges = Gauges(sessions=0, oldest_start=None, peers={"host": 0}, users=0, peak=0)
    shown = "".join(lines_of(state).values())
    assert "room_id" not in shown
    assert 'hms_peers_joined_total{workspace="w",room="daily",role="host"} 1\n' in shown


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        (None, False),
        (KnownRoom.unanswered(ROOM), False),
        (KnownRoom.missing(ROOM, 17), False),
        (KnownRoom(ROOM, "daily", "t", "t1", "in", enabled=False, exists=True, fetched_at=17), True),
    ],
    ids=["never asked", "no answer", "unknown to 100ms", "answered"],
)
def test_the_info_is_shown_once_100ms_has_told_of_the_room(known: KnownRoom | None, shown: bool) -> None:
    info = lines_of(AccountState(room_account(ROOM)), known)["hms_room_info"]
    assert info == (f'hms_room_info{{{LABELS},template="t",template_id="t1",region="in",enabled="false"}} 1\n' if shown else "")


def test_large_totals_keep_their_milliseconds() -> None:
    """A billion peer-seconds, some thirty years of a call, are still published to the microsecond."""
    state = AccountState(room_account(ROOM))
    state.role("host").published_seconds = 1_000_000_000_000_001
    assert lines_of(state)["hms_peer_seconds_total"].endswith(" 1000000000.000001\n")


def test_a_family_that_no_page_lists_is_refused() -> None:
    with pytest.raises(ValueError, match="hms_forgotten is published, but is not among FAMILIES"):
        Exposition(lambda fmt, names: []).publish("w", {"hms_forgotten": []})


@pytest.mark.parametrize("family", [family for family in ACCOUNT_FAMILIES if family.kind == "counter"], ids=lambda family: family.name)
@pytest.mark.parametrize("runs", [False, True], ids=["idle", "running"])
def test_only_moving_values_are_rendered_again_while_only_time_passes(runs: bool, family: AccountFamily | MovingFamily) -> None:
    state, text = AccountState(room_account(ROOM)), AccountText()
    state.role("host")
    if runs:
        state.sessions["s"] = running_session()
    before = shown(text, state)[family.name]
    state.totals = SessionTotals(published=SessionCounts(1, 1), published_seconds=SECOND)
    host = state.roles["host"]
    host.published = PeerCounts(1, 1)
    host.published_seconds = SECOND
    state.moved += 1
    moves = shown(text, state)[family.name] != before
    assert moves == isinstance(family, MovingFamily) == ("_seconds_" in family.name)


def test_an_account_has_the_same_lines_before_while_and_after_a_session_runs() -> None:
    """The lines with times are written for all accounts together only while a session runs."""
    state, text = AccountState(room_account(ROOM)), AccountText()
    state.role("host").published_seconds = 90_061_001
    state.role("guest").usage_month = 1_500_000
    before = shown(text, state)
    state.sessions["s"] = running_session()
    assert shown(text, state) == before
    state.roles["guest"].usage_month += SECOND
    state.moved += 1
    while_running = shown(text, state)
    assert while_running == before | {"hms_usage_peer_seconds": before["hms_usage_peer_seconds"].replace(" 1.5\n", " 2.5\n")}
    del state.sessions["s"]
    assert shown(text, state) == while_running


def test_accounts_together_have_the_lines_of_each() -> None:
    """Lines of idle rooms are kept. The times of rooms with sessions are written for all of them at once."""
    states = {name: AccountState(room_account(name)) for name in ("idle", "runs", "begins", "rests")}
    together = Columns()
    for number, (name, state) in enumerate(states.items()):
        state.role("host").published_seconds = number * SECOND
        state.role("guest").usage_day = number
        if name in ("runs", "begins"):
            state.sessions["s"] = running_session()
        together.add(AccountText().lines("w", name, state, None))
    for at, text in enumerate(together.texts()):
        alone = [account_lines("w", name, state, None)[at] for name, state in states.items()]
        assert sorted(text.splitlines()) == sorted(line for of in alone for line in of.splitlines())


@given(st.lists(st.integers(0, 1 << 50)))
def test_times_are_written_to_the_microsecond(times: list[int]) -> None:
    starts = [b"a%d " % number for number in range(len(times))]
    lines = time_lines(starts, times).decode().splitlines()
    assert [line.split(" ")[0].encode() + b" " for line in lines] == starts
    assert [round(float(line.split(" ")[1]) * SECOND) for line in lines] == times
    assert [float(line.split(" ")[1]) for line in lines] == [time / SECOND for time in times]


def test_each_time_is_followed_by_the_lines_that_belong_to_it() -> None:
    assert time_lines([b"a ", b"b "], [1_500_000, 0], [b"\n", b"\nb_created 7\n"]) == b"a 1.5\nb 0.0\nb_created 7\n"


def test_a_histogram_is_cumulative_and_ends_with_everything() -> None:
    ledger = Ledger()
    histogram = ledger.histograms["session_duration", ""] = Histogram(HISTOGRAM_BOUNDS["session_duration"])
    for seconds in (30, 60, 61, 43_200, 50_000):
        histogram.observe(seconds * SECOND, SECOND)
    text = workspace_lines("w", ledger, Overview._make([0] * len(Overview._fields)))
    lines = text["hms_session_duration_seconds"].decode().splitlines()
    assert lines[0] == 'hms_session_duration_seconds_bucket{workspace="w",le="60.0"} 2'
    assert lines[1] == 'hms_session_duration_seconds_bucket{workspace="w",le="300.0"} 3'
    assert lines[-4:] == [
        'hms_session_duration_seconds_bucket{workspace="w",le="43200.0"} 4',
        'hms_session_duration_seconds_bucket{workspace="w",le="+Inf"} 5',
        'hms_session_duration_seconds_count{workspace="w"} 5',
        'hms_session_duration_seconds_sum{workspace="w"} 93351.0',
    ]


def test_durations_are_told_apart_from_a_minute_to_twelve_hours() -> None:
    assert (HISTOGRAM_BOUNDS["session_duration"][0], HISTOGRAM_BOUNDS["session_duration"][-1]) == (60, 43_200)


# --- the exporter's own ---


def test_the_exporters_own_counters_begin_at_0_for_each_workspace() -> None:
    metrics = SelfMetrics("1.0", "abc")
    metrics.workspace("w", 30.0)
    text = rendered(metrics, TEXT).decode()
    for name in ("polls", "poll_failures", "polls_skipped", "api_retries", "api_throttled_seconds"):
        assert f'\nhms_exporter_{name}_total{{workspace="w"}} 0.0\n' in text
    for kind in ("session", "peer", "room"):
        assert f'hms_exporter_records_rejected_total{{kind="{kind}",workspace="w"}} 0.0\n' in text
    assert '\nhms_exporter_poll_interval_seconds{workspace="w"} 30.0\n' in text
    assert re.search(r'\nhms_exporter_build_info\{pythonversion="3\.\d+\.\d+",revision="abc",version="1.0"\} 1.0\n', text)
    assert "\nprocess_resident_memory_bytes " in text
    assert "\npython_info{" in text
    assert "_created" not in text
    assert rendered(metrics, OPENMETRICS).endswith(b"# EOF\n")


def test_a_workspace_that_left_takes_its_series_along_and_no_others() -> None:
    metrics = SelfMetrics("1.0", "abc")
    for name in ("gone", "stays"):
        workspace = metrics.workspace(name, 30.0)
        workspace.request("/sessions", "200", 0.1)
        workspace.request("/rooms/{id}", "404", 0.1)
        workspace.retry()
        workspace.throttled(2.5)
        workspace.clock_skew(1.0)
        workspace.token_expiry(2.0, minted=True)
        workspace.duration.observe(1.0)
        workspace.polls.inc()
    before = rendered(metrics, TEXT).decode().splitlines()
    metrics.forget("gone")
    after = rendered(metrics, TEXT).decode().splitlines()
    assert not [line for line in after if "gone" in line]
    ours = [line for line in before if '"stays"' in line]
    assert [line for line in after if '"stays"' in line] == ours
    assert len(ours) > 40


@pytest.mark.parametrize("runs", [False, True], ids=["idle", "running"])
def test_openmetrics_tells_of_each_counter_when_it_began_right_after_it(runs: bool) -> None:
    state, text, columns = AccountState(room_account(ROOM)), AccountText(), Columns()
    state.born = 1_500_000
    for number, role in enumerate(("guest", "host")):
        state.role(role).born = (number + 2) * SECOND
    if runs:
        state.sessions["s"] = running_session()
    columns.add(text.openmetrics(text.lines("w", "daily", state, None)))
    lines = {family.name: line.decode() for family, line in zip(ACCOUNT_FAMILIES, columns.texts(), strict=True)}
    assert lines["hms_session_seconds_total"] == (
        f"hms_session_seconds_total{{{LABELS}}} 0.0\nhms_session_seconds_created{{{LABELS}}} 1.5\n"
    )
    assert lines["hms_peer_seconds_total"] == "".join(
        f'hms_peer_seconds_total{{{LABELS},role="{role}"}} 0.0\nhms_peer_seconds_created{{{LABELS},role="{role}"}} {born}\n'
        for role, born in (("guest", "2.0"), ("host", "3.0"))
    )
    assert lines["hms_usage_peer_seconds"] == lines_of(state)["hms_usage_peer_seconds"], "no counter"
