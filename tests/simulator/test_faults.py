"""The simulated API's faults, as a client meets them on a real socket."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from exporter.simulator import Fault, Faults, SimulatedApi, World, management_token
from exporter.times import MINUTE, SECOND

NOW = 1_770_785_026 * SECOND


@pytest.fixture
def world() -> World:
    world = World("key", "secret" * 6)
    room = world.room(name="daily-standup")
    for at in range(25):
        world.open(room.id, NOW - MINUTE + at)
    return world


@pytest.fixture
def api(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world], clock=lambda: NOW) as running:
        yield running


def get(api: SimulatedApi, path: str = "/sessions", timeout: float = 5, **query: str | int) -> requests.Response:
    headers = {"Authorization": f"Bearer {management_token(api.workspaces[0], NOW)}"}
    return requests.get(api.base_url + path, params=query, headers=headers, timeout=timeout, allow_redirects=False)


def raw(api: SimulatedApi) -> bytes:
    """Everything that the server sends until it closes the connection.  Raises `ConnectionResetError`."""
    token = management_token(api.workspaces[0], NOW)
    received = b""
    with socket.create_connection((api.host, api.port), timeout=5) as connection:
        connection.sendall(f"GET /v2/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        while data := connection.recv(65536):
            received += data
    return received


class TestStrikes:
    """A fault strikes ..."""

    def test_at_once_and_for_ever_unless_told_otherwise(self) -> None:
        faults = Faults()
        faults.add(Fault(kind="reset"))
        assert [faults.strike("/rooms", "/v2/rooms") is not None for _ in range(3)] == [True] * 3
        faults.clear()
        assert faults.strike("/rooms", "/v2/rooms") is None

    def test_after_a_number_of_calls_and_a_number_of_times(self) -> None:
        faults = Faults()
        faults.add(Fault(kind="reset", after=2, times=2))
        assert [faults.strike("/rooms", "/v2/rooms") is not None for _ in range(6)] == [False, False, True, True, False, False]
        assert [(standing.seen, standing.struck) for standing in faults.standing()] == [(6, 2)]

    def test_calls_of_its_route_whose_path_and_query_match(self) -> None:
        fault = Fault(kind="reset", route="/rooms/<id>", match="abc$")
        assert fault.concerns("/rooms/<id>", "/v2/rooms/abc")
        assert not fault.concerns("/rooms/<id>", "/v2/rooms/abd")
        assert not fault.concerns("/sessions/<id>", "/v2/sessions/abc")
        assert Fault(kind="reset", match=r"active=true.*start=").concerns("/sessions", "/v2/sessions?active=true&start=x")

    def test_one_after_the_other_as_a_script(self) -> None:
        faults = Faults()
        faults.add(Fault(kind="status", times=2), Fault(kind="reset", times=1))
        struck = [faults.strike("/rooms", "/v2/rooms") for _ in range(4)]
        assert [fault.kind if fault else None for fault in struck] == ["status", "status", "reset", None]

    def test_by_chance_the_same_for_the_same_seed(self) -> None:
        def pattern(seed: int) -> list[bool]:
            faults = Faults(seed)
            faults.add(Fault(kind="reset", probability=0.3))
            return [faults.strike("/rooms", "/v2/rooms") is not None for _ in range(200)]

        assert pattern(1) == pattern(1) != pattern(2)
        assert 30 < sum(pattern(1)) < 90

    def test_not_if_its_expression_is_none(self) -> None:
        with pytest.raises(ValueError, match="not a regular expression"):
            Fault(kind="reset", match="(")


class TestErrors:
    """An error ..."""

    @pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504])
    def test_of_any_status_is_json(self, api: SimulatedApi, status: int) -> None:
        api.faults.add(Fault(kind="status", status=status, message="retry after 7 seconds", times=1))
        answer = get(api)
        expected = {"code": status, "message": "retry after 7 seconds", "details": ["retry after 7 seconds"]}
        assert (answer.status_code, answer.json()) == (status, expected)
        assert "Retry-After" not in answer.headers
        assert get(api).status_code == 200, "it struck once"
        assert [seen.status for seen in api.requests] == [status, 200]

    @pytest.mark.parametrize("text", ["7", "nonsense"])
    def test_may_say_when_to_come_again(self, api: SimulatedApi, text: str) -> None:
        api.faults.add(Fault(kind="status", status=429, retry_after=text))
        assert get(api).headers["Retry-After"] == text

    def test_may_say_so_as_a_date_of_the_servers_clock(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="status", status=429, retry_after="date+5"))
        assert parsedate_to_datetime(get(api).headers["Retry-After"]).timestamp() == NOW // SECOND + 5

    def test_may_be_a_page_for_people(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="status", status=504, html=True))
        answer = get(api)
        assert (answer.status_code, answer.headers["Content-Type"]) == (504, "text/html; charset=utf-8")
        assert "Gateway Timeout" in answer.text


class TestConnections:
    """A connection ..."""

    def test_is_reset_before_the_headers(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="reset"))
        with pytest.raises(ConnectionResetError):
            raw(api)
        assert [seen.status for seen in api.requests] == [0]

    @pytest.mark.parametrize("kind", ["reset_in_headers", "reset_in_body"])
    def test_is_reset_half_way(self, api: SimulatedApi, kind: Any) -> None:
        api.faults.add(Fault(kind=kind))
        with pytest.raises(ConnectionResetError):
            raw(api)
        with pytest.raises(requests.RequestException):
            get(api)

    def test_ends_before_the_body_does(self, api: SimulatedApi) -> None:
        whole = len(get(api).content)
        api.faults.add(Fault(kind="cut_short"))
        head, _, body = raw(api).partition(b"\r\n\r\n")
        assert f"Content-Length: {whole + 1}".encode() in head
        assert len(body) == whole // 2

    def test_stalls_and_then_answers(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="stall", seconds=0.15))
        begin = time.monotonic()
        assert get(api).status_code == 200
        assert time.monotonic() - begin >= 0.15
        with pytest.raises(requests.ReadTimeout):
            get(api, timeout=0.05)

    @pytest.mark.parametrize("fault", [Fault(kind="stall", seconds=3600), Fault(kind="trickle_body", seconds=3600)], ids=lambda f: f.kind)
    def test_that_hangs_ends_with_the_server(self, api: SimulatedApi, fault: Fault) -> None:
        api.faults.add(fault)
        with socket.create_connection((api.host, api.port), timeout=5) as connection:
            connection.sendall(b"GET /v2/rooms HTTP/1.1\r\nHost: x\r\n\r\n")
            while not api.faults.standing()[0].struck:
                time.sleep(0.001)
            begin = time.monotonic()
            api.stop()
            while connection.recv(4096):
                pass
            for thread in threading.enumerate():
                if "process_request" in thread.name:
                    thread.join(2)
            assert time.monotonic() - begin < 2

    def test_trickles_headers(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="trickle_headers", seconds=0.0005))
        assert len(get(api).json()["data"]) == 10

    def test_trickles_a_body_without_end(self, api: SimulatedApi) -> None:
        whole = get(api).content
        api.faults.add(Fault(kind="trickle_body", seconds=0))
        headers = {"Authorization": f"Bearer {management_token(api.workspaces[0], NOW)}"}
        with requests.get(api.base_url + "/sessions", headers=headers, timeout=5, stream=True) as answer:
            assert answer.raw.read(len(whole) + 1000) == whole + b" " * 1000


class TestBodies:
    """A body ..."""

    @pytest.mark.parametrize("size", [1000, 5_000_000])
    def test_is_huge(self, api: SimulatedApi, size: int) -> None:
        api.faults.add(Fault(kind="huge_body", size=size))
        answer = get(api)
        assert len(answer.content) == size
        assert answer.json() == {"limit": 10, "data": []}

    def test_inflates(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="gzip_bomb", size=20_000_000))
        body = raw(api).partition(b"\r\n\r\n")[2]
        assert len(body) < 40_000
        assert len(zlib.decompress(body, 31)) == 20_000_000
        assert get(api).json() == {"limit": 10, "data": []}

    def test_is_a_page_for_people(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="html"))
        answer = get(api)
        assert (answer.status_code, answer.text[:15]) == (200, "<!DOCTYPE html>")

    def test_is_whatever_was_asked_for(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="body", body='"just text"'))
        assert get(api).json() == "just text"

    def test_has_wrong_types(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="wrong_types"))
        assert {key: type(value) for key, value in get(api).json().items()} == {"limit": str, "data": dict, "last": list}

    def test_is_no_utf8(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="invalid_utf8"))
        with pytest.raises(UnicodeDecodeError):
            get(api).content.decode()

    def test_nests_deeply(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="deep_nesting"))
        assert get(api).content.count(b"[") == 100_000


class TestLists:
    """A list ..."""

    def test_repeats_its_cursor(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="repeated_cursor"))
        first = get(api).json()
        second = get(api, start=first["last"]).json()
        assert second["last"] == first["last"]

    def test_never_ends(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="endless_pages"))
        cursors: list[str] = []
        for _ in range(50):
            page = get(api, start=cursors[-1] if cursors else "").json()
            assert len(page["data"]) == page["limit"]
            cursors.append(page["last"])
        assert len(set(cursors)) == 50

    def test_shows_an_item_again_on_the_next_page_and_still_ends(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="repeated_item"))
        seen: list[str] = []
        page: dict[str, Any] = get(api).json()
        while len(page["data"]) == page["limit"]:
            seen += [session["id"] for session in page["data"]]
            page = get(api, start=page["last"]).json()
            assert page["data"][0]["id"] == seen[-1]
        seen += [session["id"] for session in page["data"]]
        assert (len(seen), len(set(seen))) == (27, 25)


class TestHeaders:
    """A header ..."""

    def test_leads_elsewhere(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="redirect", location="https://elsewhere.example/v2/sessions", times=1), Fault(kind="redirect"))
        answer = get(api)
        assert (answer.status_code, answer.headers["Location"]) == (302, "https://elsewhere.example/v2/sessions")
        assert get(api, limit=10).headers["Location"] == "/v2/sessions?limit=10"

    def test_lacks_the_date_or_has_a_wrong_one(self, api: SimulatedApi) -> None:
        api.faults.add(Fault(kind="no_date", times=1), Fault(kind="wrong_date", seconds=-3600, times=1))
        assert "Date" not in get(api).headers
        dates = [parsedate_to_datetime(get(api).headers["Date"]).timestamp() for _ in range(2)]
        assert dates == [NOW // SECOND - 3600, NOW // SECOND]


class TestControl:
    """Over HTTP faults are ..."""

    def test_set_listed_and_cleared(self, api: SimulatedApi) -> None:
        control = f"http://{api.host}:{api.port}/_faults"
        posted = requests.post(control, json={"kind": "status", "status": 503, "times": 1, "route": "/rooms"}, timeout=5)
        assert posted.status_code == 200
        requests.post(control, json=[{"kind": "reset"}, {"kind": "html", "match": "rooms"}], timeout=5)
        assert get(api, "/rooms").status_code == 503
        listed = requests.get(control, timeout=5).json()
        assert [(known["fault"]["kind"], known["seen"], known["struck"]) for known in listed] == [
            ("status", 1, 1),
            ("reset", 0, 0),
            ("html", 0, 0),
        ]
        assert requests.delete(control, timeout=5).json() == []
        assert get(api, "/rooms").status_code == 200

    @pytest.mark.parametrize("body", ["", "{", "[1]", '{"kind":"unheard"}', '{"kind":"reset","tmies":1}', '{"kind":"reset","match":"("}'])
    def test_refused_when_they_are_invalid(self, api: SimulatedApi, body: str) -> None:
        answer = requests.post(f"http://{api.host}:{api.port}/_faults", data=body, timeout=5)
        assert (answer.status_code, answer.json()["message"]) == (400, "invalid fault")
        assert api.faults.standing() == []

    def test_not_put(self, api: SimulatedApi) -> None:
        answer = requests.put(f"http://{api.host}:{api.port}/_faults", data="{}", timeout=5)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST, DELETE")
