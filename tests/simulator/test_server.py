"""The simulated API over real HTTP: tokens, routes, filters, pages, errors, and every manner that can be set."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import jwt
import pytest
import requests

from exporter.simulator import Manners, Room, SimulatedApi, World, management_token, real_clock, shifted_clock
from exporter.times import HOUR, MINUTE, SECOND, rfc3339

T0 = 1_770_785_026 * SECOND
NOW = T0 + HOUR
EMPTY_PAGE = {"limit": 10, "data": None}


class Client:
    """A client with a token of the workspace."""

    def __init__(self, api: SimulatedApi, world: World) -> None:
        self.api = api
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {management_token(world, api.clock())}"

    def get(self, path: str, **query: str | int) -> requests.Response:
        return self.http.get(self.api.base_url + path, params=query, timeout=5)

    def ids(self, path: str, **query: str | int) -> list[str]:
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["data"] or []]

    def walk(self, path: str, **query: str | int) -> list[str]:
        """Every id on every page, up to a page that is not full or has no `last`."""
        found: list[str] = []
        start: dict[str, str] = {}
        while True:
            page = self.get(path, **query, **start).json()
            found += [item["id"] for item in page["data"] or []]
            if len(page["data"] or []) < page["limit"] or not page.get("last"):
                return found
            start = {"start": page["last"]}


@pytest.fixture
def world() -> World:
    return World("key", "secret" * 6)


@pytest.fixture
def room(world: World) -> Room:
    return world.room(name="daily-standup", region="eu", template="meeting", max_duration_seconds=600)


@pytest.fixture
def api(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world], clock=lambda: NOW) as running:
        yield running


@pytest.fixture
def client(api: SimulatedApi, world: World) -> Client:
    return Client(api, world)


class TestSessions:
    """Sessions are ..."""

    def test_by_id_and_unknown(self, client: Client, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        session.join("host", T0)
        assert client.get(f"/sessions/{session.id}").json() == session.record(NOW)
        answer = client.get("/sessions/6205e9826d83bc36e6e761e2")
        assert (answer.status_code, answer.json()) == (
            404,
            {"code": 404, "message": "session not found", "details": ["session not found"]},
        )

    def test_listed_newest_first_by_every_filter(self, client: Client, world: World, room: Room) -> None:
        other = world.room(name="other")
        ended, running, there = world.open(room.id, T0), world.open(room.id, T0 + MINUTE), world.open(other.id, T0 + 2 * MINUTE)
        ended.close(T0 + MINUTE)
        assert client.ids("/sessions", active="true") == [there.id, running.id]
        assert client.ids("/sessions", active="false") == [ended.id]
        assert client.ids("/sessions", active="true", room_id=room.id) == [running.id]
        assert client.ids("/sessions", active="false", id=ended.id) == [ended.id]
        assert client.ids("/sessions", active="true", after=rfc3339(T0 + 2 * MINUTE, 3)) == [there.id]
        assert client.ids("/sessions", active="true", before=rfc3339(T0 + MINUTE, 3)) == [running.id]

    def test_records_change_as_the_clock_goes_on(self, client: Client, api: SimulatedApi, world: World, room: Room) -> None:
        session = world.open(room.id, NOW + MINUTE)
        session.close(NOW + 2 * MINUTE)
        assert client.ids("/sessions", active="true") == []
        api.clock = lambda: NOW + MINUTE
        assert client.ids("/sessions", active="true") == [session.id]
        api.clock = lambda: NOW + 2 * MINUTE
        assert client.ids("/sessions", active="true") == []
        assert client.ids("/sessions", active="false") == [session.id]

    @pytest.mark.parametrize("query", [{"active": "yes"}, {"after": "yesterday"}, {"before": "2026-02-11T04:43:46"}, {"start": "unknown"}])
    def test_invalid_filters_are_refused(self, client: Client, room: Room, query: dict[str, str]) -> None:
        answer = client.get("/sessions", **query)
        assert (answer.status_code, answer.json()["code"]) == (400, 400)

    def test_active_left_out_means_what_the_manners_say(self, client: Client, api: SimulatedApi, world: World, room: Room) -> None:
        ended, running = world.open(room.id, T0), world.open(room.id, T0 + MINUTE)
        ended.close(T0 + MINUTE)
        assert client.ids("/sessions") == [running.id]
        api.manners = Manners(active_default="all")
        assert client.ids("/sessions") == [running.id, ended.id]


class TestPages:
    """Pages ..."""

    @pytest.mark.parametrize("final_last", ["id", "empty", "absent"])
    @pytest.mark.parametrize("empty_data", ["null", "list"])
    @pytest.mark.parametrize("count", [0, 1, 20, 23])
    def test_lead_through_everything_once_whatever_ends_them(
        self, client: Client, api: SimulatedApi, world: World, room: Room, final_last: Any, empty_data: Any, count: int
    ) -> None:
        api.manners = Manners(final_last=final_last, empty_data=empty_data)
        sessions = [world.open(room.id, T0 + at).id for at in range(count)]
        assert client.walk("/sessions", active="true", limit=10) == sessions[::-1]

    def test_say_their_last_id(self, client: Client, api: SimulatedApi, world: World, room: Room) -> None:
        only = world.open(room.id, T0).id
        for final_last, shown in (("id", only), ("empty", ""), ("absent", None)):
            api.manners = Manners(final_last=final_last)  # type: ignore[arg-type]  # one of the literals, from a loop
            assert client.get("/sessions").json().get("last") == shown

    def test_without_a_finding_are_null_or_empty(self, client: Client, api: SimulatedApi) -> None:
        assert client.get("/sessions").json() == EMPTY_PAGE
        api.manners = Manners(empty_data="list")
        assert client.get("/sessions").json() == {**EMPTY_PAGE, "data": []}

    def test_too_large_are_refused_or_lowered(self, client: Client, api: SimulatedApi) -> None:
        api.manners = Manners(max_page_size=20)
        answer = client.get("/sessions", limit=100)
        assert (answer.status_code, answer.json()["code"]) == (400, 400)
        assert client.get("/sessions", limit=20).json()["limit"] == 20
        api.manners = Manners(max_page_size=20, oversize="lower")
        assert client.get("/sessions", limit=100).json()["limit"] == 20
        assert client.get("/sessions", limit=5).json()["limit"] == 10
        assert client.get("/sessions", limit="many").status_code == 400

    def test_show_an_item_again_if_they_are_read_by_time_while_new_ones_begin(self, client: Client, world: World, room: Room) -> None:
        old = [world.open(room.id, T0 + at).id for at in range(12)]
        first = client.get("/sessions", limit=10).json()
        world.open(room.id, T0 + MINUTE)
        assert client.ids("/sessions", limit=10, start=first["last"]) == old[1::-1], "new items do not shift the cursor"


class TestRooms:
    """Rooms are ..."""

    def test_by_id_with_all_their_properties(self, client: Client, room: Room) -> None:
        record = client.get(f"/rooms/{room.id}").json()
        assert {
            "name": "daily-standup",
            "region": "eu",
            "template": "meeting",
            "template_id": room.template_id,
            "enabled": True,
            "max_duration_seconds": 600,
        }.items() <= record.items()
        assert client.get("/rooms/unknown").status_code == 404

    def test_listed_by_every_filter(self, client: Client, world: World, room: Room) -> None:
        off = world.room(name="off", enabled=False, created_at=T0)
        new = world.room(name="new", created_at=T0 + MINUTE)
        assert client.ids("/rooms") == [new.id, room.id]
        assert client.ids("/rooms", enabled="false") == [off.id]
        assert client.ids("/rooms", name="new") == [new.id]
        assert client.ids("/rooms", template_id=room.template_id) == [room.id]
        assert client.ids("/rooms", after=rfc3339(T0)) == [new.id]
        assert client.ids("/rooms", before=rfc3339(T0)) == [room.id]
        assert client.ids("/rooms", start=new.id) == [room.id]

    def test_active_ones_list_their_peers(self, client: Client, world: World, room: Room) -> None:
        assert client.get(f"/active-rooms/{room.id}").status_code == 404
        session = world.open(room.id, T0)
        gone, here = session.join("host", T0), session.join("guest", T0)
        gone.leave(T0 + SECOND)
        active = client.get(f"/active-rooms/{room.id}").json()
        assert (active["id"], active["session"]["id"], active["session"]["peers"]) == (room.id, session.id, [here.id])
        peers = client.get(f"/active-rooms/{room.id}/peers").json()["peers"]
        assert peers == {here.id: session.record(NOW)["peers"][here.id]}


def claims(**other: object) -> dict[str, Any]:
    return other


class TestTokens:
    """Tokens ..."""

    def status(self, api: SimulatedApi, token: str | None) -> int:
        headers = {} if token is None else {"Authorization": token}
        answer = requests.get(api.base_url + "/rooms", headers=headers, timeout=5)
        if answer.status_code != 200:
            assert answer.json().keys() == {"code", "message", "details"}
        return answer.status_code

    def test_are_demanded(self, api: SimulatedApi) -> None:
        assert self.status(api, None) == 401
        assert self.status(api, "Basic a2V5") == 401
        assert self.status(api, "Bearer nonsense") == 401

    def test_open_their_own_workspace(self, world: World, room: Room) -> None:
        other = World("other", "another-secret" * 3)
        other.room(name="elsewhere")
        with SimulatedApi([world, other], clock=lambda: NOW) as api:
            assert Client(api, world).get("/rooms").json()["data"][0]["name"] == "daily-standup"
            assert Client(api, other).get("/rooms").json()["data"][0]["name"] == "elsewhere"

    @pytest.mark.parametrize(
        "wrong",
        [
            claims(access_key="another"),
            claims(access_key=None),
            claims(type="app"),
            claims(version=1),
            claims(jti="not-a-uuid"),
            claims(iat="soon"),
            claims(nbf=NOW // SECOND + 6),
            claims(iat=NOW // SECOND + 6),
            claims(exp=NOW // SECOND - 6),
        ],
        ids=str,
    )
    def test_with_a_wrong_claim_are_refused(self, api: SimulatedApi, world: World, wrong: dict[str, Any]) -> None:
        assert self.status(api, f"Bearer {management_token(world, NOW, **wrong)}") == 401

    @pytest.mark.parametrize("missing", ["access_key", "type", "version", "jti", "iat", "nbf", "exp"])
    def test_without_any_of_their_claims_are_refused(self, api: SimulatedApi, world: World, missing: str) -> None:
        whole = jwt.decode(management_token(world, NOW), options={"verify_signature": False})
        del whole[missing]
        assert self.status(api, "Bearer " + jwt.encode(whole, world.secret, "HS256")) == 401

    def test_signed_otherwise_are_refused(self, api: SimulatedApi, world: World) -> None:
        whole = jwt.decode(management_token(world, NOW), options={"verify_signature": False})
        assert self.status(api, "Bearer " + jwt.encode(whole, "wrong" * 10, "HS256")) == 401
        assert self.status(api, "Bearer " + jwt.encode(whole, world.secret * 2, "HS512")) == 401
        assert self.status(api, "Bearer " + jwt.encode(whole, None, "none")) == 401

    @pytest.mark.parametrize("shift", [-24 * HOUR, 0, HOUR])
    def test_and_dates_follow_the_servers_clock(self, world: World, shift: int) -> None:
        with SimulatedApi([world], clock=shifted_clock(shift)) as api:
            assert self.status(api, f"Bearer {management_token(world, real_clock() + shift)}") == 200
            assert self.status(api, f"Bearer {management_token(world, real_clock() + shift - 25 * HOUR)}") == 401
            assert self.status(api, f"Bearer {management_token(world, real_clock() + shift + MINUTE)}") == 401
            date = requests.get(api.base_url + "/rooms", timeout=5).headers["Date"]
            assert abs(parsedate_to_datetime(date).timestamp() - (real_clock() + shift) / SECOND) < 3

    def test_of_a_renewed_secret_take_the_place_of_the_old(self, client: Client, api: SimulatedApi, world: World) -> None:
        world.secret = "renewed-secret" * 3
        assert client.get("/rooms").status_code == 401
        assert Client(api, world).get("/rooms").status_code == 200


def test_the_date_of_the_real_clock_is_a_little_behind_its_records(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs may disagree on the time: an exporter on one that is ahead would count a call for longer than it lasted."""

    def whole_second() -> int:
        return NOW

    monkeypatch.setattr("exporter.simulator.server.real_clock", whole_second)
    with SimulatedApi([world], clock=whole_second) as api:
        date = requests.get(api.base_url + "/rooms", timeout=5).headers["Date"]
    assert parsedate_to_datetime(date).timestamp() * SECOND == NOW - SECOND


class TestHttp:
    """Over HTTP ..."""

    def test_answers_are_compressed_when_asked(self, client: Client, world: World, room: Room) -> None:
        for at in range(10):
            world.open(room.id, T0 + at)
        path = client.api.base_url + "/sessions"
        plain = client.http.get(path, headers={"Accept-Encoding": "identity"}, timeout=5)
        small = client.http.get(path, headers={"Accept-Encoding": "gzip"}, timeout=5, stream=True)
        assert "Content-Encoding" not in plain.headers
        assert small.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(small.raw.read(decode_content=False)) == plain.content

    def test_a_connection_serves_many_calls(self, client: Client, api: SimulatedApi) -> None:
        with socket.create_connection((api.host, api.port), timeout=5) as connection:
            for _ in range(3):
                connection.sendall(b"GET /v2/rooms HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 401 Unauthorized\r\n")

    def test_other_paths_and_methods_are_refused(self, client: Client, api: SimulatedApi) -> None:
        assert client.get("/nothing").status_code == 404
        assert client.http.get(f"http://{api.host}:{api.port}/rooms", timeout=5).status_code == 404, "outside of the API's version"
        refused = client.http.post(api.base_url + "/rooms", json={"name": "x"}, timeout=5)
        assert (refused.status_code, refused.headers["Allow"], refused.json()["code"]) == (405, "GET", 405)

    def test_requests_are_remembered_and_counted_by_route(self, client: Client, api: SimulatedApi, room: Room) -> None:
        client.get("/sessions", active="true")
        client.get(f"/rooms/{room.id}")
        requests.get(api.base_url + "/rooms/unknown", timeout=5)
        assert [(seen.at, seen.method, seen.path, dict(seen.query), seen.authorized, seen.status) for seen in api.requests] == [
            (NOW, "GET", "/sessions", {"active": "true"}, True, 200),
            (NOW, "GET", f"/rooms/{room.id}", {}, True, 200),
            (NOW, "GET", "/rooms/unknown", {}, False, 401),
        ]
        assert api.calls == {"/sessions": 1, "/rooms/<id>": 2}
        api.clear()
        assert (api.requests, api.calls.total()) == ([], 0)

    def test_stopped_it_ends_connections_and_started_again_it_has_the_same_address(self, client: Client, api: SimulatedApi) -> None:
        with socket.create_connection((api.host, api.port), timeout=5) as idle:
            idle.sendall(b"GET /v2/rooms HTTP/1.1\r\nHost: x\r\n\r\n")
            idle.recv(4096)
            address = api.base_url
            api.stop()
            api.stop()
            assert idle.recv(1) == b""
        with pytest.raises(requests.ConnectionError):
            client.get("/rooms")
        api.start()
        assert api.base_url == address
        assert client.get("/rooms").status_code == 200

    def test_listens_on_version_six_too(self, world: World) -> None:
        with SimulatedApi([world], "::1") as api:
            assert api.base_url.startswith("http://[::1]:")
            assert Client(api, world).get("/rooms").status_code == 200
