"""`check` describes the configuration with its cost; `check --live` tries it and says what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from exporter.commands.meaning import describe, try_live
from exporter.config.config import Config, parse
from exporter.polling.planner import estimate
from exporter.simulator import Fault, SimulatedApi, World, real_clock, shifted_clock
from exporter.times import DAY, HOUR, MINUTE
from tests.e2e.program import wait_until

ACCESS_KEY, SECRET = "key-of-the-tests", "secret-of-the-tests-which-is-long-enough"
WORKSPACE = f"{{name: prod, access_key: {ACCESS_KEY}, secret: {SECRET}"


def config(text: str) -> Config:
    return parse(text, {}, "config.yaml")


@pytest.mark.parametrize(
    ("rooms", "said"),
    [
        ("", "every room"),
        (", rooms: [a]", "1 room by id"),
        (", rooms: [a, {id: b, name: mine}]", "2 rooms by id"),
        (", rooms: [{match: 'support-.*'}]", "rooms named support-.*"),
        (
            ", rooms: [a, {match: 'class-(?P<s>.*)', group: 'c-${s}'}]",
            "1 room by id; rooms named class-(?P<s>.*), together as c-${s}",
        ),
    ],
)
def test_each_workspace_is_told_with_its_rooms(rooms: str, said: str) -> None:
    text = describe(config(f"workspaces: [{WORKSPACE}{rooms}}}]"))
    assert f"Workspace prod: {said}\n" in text
    assert SECRET not in text
    assert ACCESS_KEY not in text


def test_the_interval_and_the_state_file_are_told() -> None:
    text = describe(config(f"workspaces: [{WORKSPACE}}}]\npoll: {{interval: 90s}}\nstorage: {{path: /var/lib/hms/state.db}}"))
    assert "Every 1m30s each workspace is polled; the state is kept in /var/lib/hms/state.db." in text


@pytest.mark.parametrize(("rooms", "count"), [("", None), (", rooms: [a, b, c]", 3)])
def test_the_cost_is_told_a_poll_and_an_hour(rooms: str, count: int | None) -> None:
    text = describe(config(f"workspaces: [{WORKSPACE}{rooms}}}]\npoll: {{interval: 60s}}"))
    rows = [[int(cell.replace(",", "")) for cell in line.split()] for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert [row[:2] for row in rows] == [[0, 0], [40, 4], [1000, 10]]
    for running, ended, calls, an_hour in rows:
        assert calls == estimate(count, running, ended)
        assert an_hour == 60 * calls


def test_collectors_are_told_with_their_cost_whether_on_or_off() -> None:
    text = describe(config(f"workspaces: [{WORKSPACE}}}]\ncollect: {{client_errors: true, live_streams: false, interval: 2m}}"))
    asked, off = text.split("Besides sessions, each workspace is asked for:\n")[1].split("Turned off, and what it would cost:\n")
    assert [line.split(":")[0].strip() for line in asked.splitlines()] == ["recordings", "external_streams", "client_errors"]
    assert [line.split(":")[0].strip() for line in off.splitlines()] == ["live_streams", "recording_assets", "webhook_deliveries"]
    assert "recordings: one call every 2m, 30 an hour; 3 an hour when there was nothing for an hour" in asked
    assert "webhook_deliveries: two calls every 2m, 60 an hour; 6 an hour" in off
    assert "client_errors: one call for each session that has ended" in asked


def test_it_tells_which_peers_are_not_people() -> None:
    assert "Peers in these roles are not people: __internal_recorder.\n" in describe(config(f"workspaces: [{WORKSPACE}}}]"))
    text = describe(config(f"workspaces: [{WORKSPACE}}}]\nbots: {{roles: [robot, beam]}}"))
    assert "Peers in these roles are not people: beam, robot.\n" in text
    assert "not people" not in describe(config(f"workspaces: [{WORKSPACE}}}]\nbots: {{roles: []}}"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "collect: {recordings: false}\nbudgets: [{name: films, period: day, recording_minutes: 1}]",
            ["Without effect: the budget films, because collect.recordings is false."],
        ),
        (
            "bots: {roles: [a, b]}\n"
            "budgets: [{name: x, period: day, peer_minutes: 1, roles: [a]}, {name: y, period: day, peer_minutes: 1, roles: [a, c]}]",
            ["Without effect: the budget x, because bots.roles holds all of its roles."],
        ),
        (
            "collect: {live_streams: false}\n"
            "prices: {currency: USD, per_peer_minute: 1, per_live_stream_minute: 1, per_recording_minute: 1}",
            ["Without effect: prices.per_live_stream_minute, because collect.live_streams is false."],
        ),
        (
            "bots: {roles: [robot]}\nprices: {currency: USD, per_peer_minute: {default: 1, robot: 2}}",
            ["Without effect: prices.per_peer_minute.robot, because bots.roles holds this role."],
        ),
        ("prices: {currency: USD, per_peer_minute: 1}\nbudgets: [{name: films, period: day, recording_minutes: 1}]", []),
    ],
)
def test_it_tells_which_budgets_and_prices_have_no_effect(more: str, said: list[str]) -> None:
    text = describe(config(f"workspaces: [{WORKSPACE}}}]\n{more}"))
    assert [line for line in text.splitlines() if line.startswith("Without effect")] == said


# --- live ---


@pytest.fixture
def world() -> World:
    return World(ACCESS_KEY, SECRET)


@pytest.fixture
def sim(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world]) as running:
        yield running


def live(sim: SimulatedApi, workspaces: str = f"{WORKSPACE}}}") -> tuple[str, bool]:
    api = f"{{base_url: '{sim.base_url}', timeout: 500ms, max_retries: 0, max_requests_per_second: 500}}"
    return try_live(config(f"workspaces: [{workspaces}]\napi: {api}"))


def test_accepted_credentials_and_running_sessions_are_told(sim: SimulatedApi, world: World) -> None:
    room = world.room()
    for serial in range(3):
        world.open(room.id, real_clock() - MINUTE + serial)
    assert live(sim) == ("\nWorkspace prod: the credentials are accepted; 3 sessions run now.\n", True)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(kind="status", status=401), "100ms does not accept the credentials (401)"),
        (Fault(kind="status", status=500), "100ms answers 500"),
        (Fault(kind="stall", seconds=60), "nothing complete within 0.5 s"),
        (Fault(kind="reset"), "the connection failed"),
        (Fault(kind="html"), "/sessions: "),
    ],
)
def test_a_failure_is_told_and_the_other_workspaces_are_tried_too(sim: SimulatedApi, fault: Fault, said: str) -> None:
    sim.workspaces.append(World("other", SECRET))
    sim.faults.add(Fault(**{name: getattr(fault, name) for name in fault.__struct_fields__} | {"times": 2 if fault.status == 401 else 1}))
    text, good = live(sim, f"{WORKSPACE}}}, {{name: other, access_key: other, secret: {SECRET}}}")
    assert not good
    first, second = text.strip().splitlines()
    assert first.startswith("Workspace prod: /sessions: ")
    assert said in first
    assert second == "Workspace other: the credentials are accepted; 0 sessions run now."


def test_nothing_is_left_running_whether_it_fails_or_not(sim: SimulatedApi) -> None:
    before = set(threading.enumerate())
    sim.workspaces.append(World("other", SECRET))
    sim.faults.add(Fault(kind="status", status=500), Fault(kind="status", status=500))
    _, good = live(sim, f"{WORKSPACE}}}, {{name: other, access_key: other, secret: {SECRET}}}")
    assert not good
    live(sim)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "watchdog" and thread not in before])


def test_rooms_that_100ms_does_not_know_are_told(sim: SimulatedApi, world: World) -> None:
    room = world.room()
    text, good = live(sim, f"{WORKSPACE}, rooms: [{room.id}, 65f0000000000000deadbeef, {{match: any}}]}}")
    assert not good
    assert text.count("does not know") == 1
    assert "  room 65f0000000000000deadbeef: 100ms does not know it\n" in text


def test_a_room_that_cannot_be_read_is_told(sim: SimulatedApi, world: World) -> None:
    room = world.room()
    sim.faults.add(Fault(kind="status", status=500, route="/rooms/<id>"))
    text, good = live(sim, f"{WORKSPACE}, rooms: [{room.id}]}}")
    assert not good
    assert f"  room {room.id}: /rooms/{{id}}: 100ms answers 500\n" in text


@pytest.mark.parametrize(
    ("offset", "said"),
    [(0, None), (MINUTE // 2, None), (HOUR, "behind the API's"), (-DAY, "ahead of the API's")],
)
def test_a_clock_that_is_wrong_is_told_and_is_no_failure(sim: SimulatedApi, offset: int, said: str | None) -> None:
    sim.clock = shifted_clock(offset)
    text, good = live(sim)
    assert good
    assert ("clock" in text) == (said is not None)
    assert said is None or said in text
