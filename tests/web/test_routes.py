"""The routes and the landing page: as values, over HTTP, and in a real browser."""

from __future__ import annotations

import asyncio
import html
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.strict_yaml import ConfigError
from exporter.publish.status import RoomStatus, Status, WorkspaceStatus
from exporter.web.fairness import BusyError
from exporter.web.http import Request, Response
from exporter.web.landing import content_security_policy, render
from exporter.web.listeners import listen
from exporter.web.routes import http_server, routes
from tests.chromium import Chromium
from tests.programs import require

NOW = 1_770_000_000.0
STATUS = Status(
    version="1.2.3",
    revision="3f9c2ab77d01e5aa",
    started_at=NOW - 93_784,
    poll_interval=30,
    workspaces=(
        WorkspaceStatus("production", "ok", NOW - 12, NOW - 12, None, 18, 42, 1317, 1209, 486),
        WorkspaceStatus("staging", "failing", NOW - 7, NOW - 4000, "the API refused the credentials (401)", 4, None, None, None, 241),
        WorkspaceStatus("archive", "ok", NOW - 3, NOW - 3, None, 7, 0, 1, 0, 900, 0.42),
        WorkspaceStatus("new", "waiting"),
    ),
)


@dataclass
class FakePage:
    """An exposition."""

    content_type: str = "text/plain; version=0.0.4; charset=utf-8"
    encoding: str | None = None
    chunks: Sequence[bytes] = (b"hms_up 1\n", b"hms_rooms_tracked 2\n")


@dataclass
class FakeFace:
    """A daemon with scripted answers."""

    lifecycle_enabled: bool = True
    page: FakePage = field(default_factory=FakePage)
    shown: Status = STATUS
    fault: str | None = None
    refusal: str | None = None
    asked: list[tuple[str, str, frozenset[str]]] = field(default_factory=list)
    reloads: int = 0
    hold: threading.Event | None = None
    is_ready: bool = False

    def finished(self, accept: str, accept_encoding: str) -> FakePage | None:
        return self.page if self.is_ready else None

    def metrics(self, accept: str, accept_encoding: str, names: frozenset[str]) -> FakePage:
        self.asked.append((accept, accept_encoding, names))
        if self.hold and names:
            self.hold.wait(10)
        return self.page

    def status(self) -> Status:
        return self.shown

    def unhealthy(self) -> str | None:
        return self.fault

    def unready(self) -> str | None:
        return self.fault

    def reload(self) -> str | None:
        self.reloads += 1
        if self.hold:
            self.hold.wait(10)
        return self.refusal


def ask(face: FakeFace, path: str, method: str = "GET", **more: dict[str, str] | dict[str, list[str]]) -> Response:
    async def scenario() -> Response:
        return await routes(face, clock=lambda: NOW)(Request(method, path, **more))  # type: ignore[arg-type]  # query and headers

    return asyncio.run(scenario())


def text_of(response: Response) -> str:
    return b"".join(response.body).decode()


# --- routes ---


def test_metrics_are_the_page_that_the_headers_and_names_ask_for() -> None:
    face = FakeFace()
    response = ask(
        face,
        "/metrics",
        headers={"accept": "text/plain", "accept-encoding": "gzip"},
        query={"name[]": ["hms_up", "hms_up", "x"], "other": ["y"]},
    )
    assert face.asked == [("text/plain", "gzip", frozenset({"hms_up", "x"}))]
    assert response.status == 200
    assert response.headers == {"Content-Type": face.page.content_type, "Vary": "Accept, Accept-Encoding"}
    assert response.body is face.page.chunks  # handed on, not copied


def test_without_headers_and_names_metrics_are_asked_for_plainly() -> None:
    face = FakeFace()
    ask(face, "/metrics")
    assert face.asked == [("", "", frozenset())]


def test_a_compressed_page_says_so() -> None:
    assert ask(FakeFace(page=FakePage(encoding="gzip")), "/metrics").headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(("path", "good"), [("/-/healthy", "Healthy.\n"), ("/-/ready", "Ready.\n")])
def test_probes_answer_200_or_503_with_the_reason(path: str, good: str) -> None:
    response = ask(FakeFace(), path)
    assert (response.status, text_of(response)) == (200, good)
    response = ask(FakeFace(fault="no poll has ended for 5 min"), path)
    assert (response.status, text_of(response)) == (503, "no poll has ended for 5 min\n")


def test_reload_answers_200_or_400_with_the_reason() -> None:
    face = FakeFace()
    assert ask(face, "/-/reload", "POST").status == 200
    face.refusal = "config.yaml: is empty"
    response = ask(face, "/-/reload", "POST")
    assert (response.status, text_of(response)) == (400, "Not reloaded: config.yaml: is empty\n")
    assert face.reloads == 2


def test_reload_is_forbidden_unless_enabled() -> None:
    face = FakeFace(lifecycle_enabled=False)
    assert ask(face, "/-/reload", "POST").status == 403
    assert face.reloads == 0


@pytest.mark.parametrize("origin", ["https://evil.example", "http://exporter:9999", "null", "", "exporter:10100"])
def test_a_page_of_another_site_cannot_make_a_browser_reload(origin: str) -> None:
    face = FakeFace()
    response = ask(face, "/-/reload", "POST", headers={"host": "exporter:10100", "origin": origin})
    assert (response.status, face.reloads) == (403, 0)


@pytest.mark.parametrize("origin", ["http://exporter:10100", "https://Exporter:10100"])
def test_a_page_of_the_exporters_own_address_may_reload(origin: str) -> None:
    face = FakeFace()
    assert ask(face, "/-/reload", "POST", headers={"host": "exporter:10100", "origin": origin}).status == 200
    assert face.reloads == 1


def test_a_finished_page_a_probe_and_the_landing_page_need_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.threads.Thread", None)
    for path in ("/metrics", "/-/healthy", "/-/ready", "/"):
        assert ask(FakeFace(is_ready=True), path).status == 200


def test_the_telemetry_path_is_where_the_metrics_are() -> None:
    async def scenario(path: str, telemetry_path: str) -> Response:
        return await routes(FakeFace(), telemetry_path=telemetry_path, clock=lambda: NOW)(Request("GET", path))

    assert text_of(asyncio.run(scenario("/a b", "/a b"))).startswith("hms_up 1")
    assert asyncio.run(scenario("/metrics", "/a b")).status == 404
    assert 'href="/a%20b"' in text_of(asyncio.run(scenario("/", "/a b")))
    assert text_of(asyncio.run(scenario("/", "/"))).startswith("hms_up 1"), "no landing page then"
    assert asyncio.run(scenario("/-/healthy", "/")).status == 200


@pytest.mark.parametrize("path", ["/metrics/", "/-/", "/favicon.ico", "/metrics\0", "//metrics", "", "*"])
def test_other_paths_are_404(path: str) -> None:
    for method in ("GET", "POST", "HEAD"):
        assert ask(FakeFace(), path, method).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
def test_methods_other_than_get_and_head_are_405(path: str, method: str) -> None:
    response = ask(FakeFace(), path, method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "CONNECT"]) | st.text("!#$%&'*+-.^_`|~0aZ", min_size=1, max_size=10),
    path=st.sampled_from(["/", "/metrics", "/-/healthy", "/-/ready", "/-/reload"]) | st.text(max_size=30).map(lambda text: f"/{text}"),
    names=st.lists(st.text(max_size=10), max_size=5),
)
def test_whatever_is_asked_for_the_answer_is_one_of_four(method: str, path: str, names: list[str]) -> None:
    assert ask(FakeFace(), path, method, query={"name[]": names}).status in (200, 403, 404, 405)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_reload_takes_post_only(method: str) -> None:
    face = FakeFace()
    response = ask(face, "/-/reload", method)
    assert (response.status, response.headers["Allow"], face.reloads) == (405, "POST", 0)


def test_filtered_scrapes_and_a_reload_that_hang_hold_up_nothing_else() -> None:
    face = FakeFace(hold=threading.Event())

    async def scenario() -> None:
        handle = routes(face)
        hanging = [asyncio.ensure_future(handle(Request("POST", "/-/reload")))]
        filtered = [Request("GET", "/metrics", {"name[]": ["x"]}, client=f"10.0.0.{number % 4}") for number in range(100)]
        hanging += [asyncio.ensure_future(handle(request)) for request in filtered]
        for path in ("/metrics", "/-/healthy", "/"):
            assert (await asyncio.wait_for(handle(Request("GET", path)), 5)).status == 200
        assert face.hold is not None
        face.hold.set()
        outcomes = await asyncio.gather(*hanging, return_exceptions=True)
        assert sum(isinstance(outcome, BusyError) for outcome in outcomes) == 100 - 17

    asyncio.run(scenario())


# --- over HTTP ---


def test_get_and_head_agree_on_every_page() -> None:
    server = http_server(FakeFace(), [listen("127.0.0.1", 0)], None)
    server.start()
    try:
        for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/nowhere"):
            url = f"http://127.0.0.1:{server.port}{path}"
            got, headed = requests.get(url, timeout=5), requests.head(url, timeout=5)
            assert got.status_code == headed.status_code
            assert int(headed.headers["Content-Length"]) == len(got.content)
            assert headed.headers["Content-Type"] == got.headers["Content-Type"]
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            assert headed.content == b""
    finally:
        server.stop()


def test_a_web_configuration_stands_before_the_routes(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text("http_server_config: {headers: {X-Frame-Options: deny}}")
    server = http_server(FakeFace(), [listen("127.0.0.1", 0)], path)
    server.start()
    try:
        assert requests.get(f"http://127.0.0.1:{server.port}/metrics", timeout=5).headers["X-Frame-Options"] == "deny"
    finally:
        server.stop()
    path.write_text("http_server: {}")
    with pytest.raises(ConfigError):
        http_server(FakeFace(), [listen("127.0.0.1", 0)], path)


# --- the landing page ---


def words(page: str) -> str:
    """The visible text, without style and markup."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


def test_the_page_shows_version_workspaces_and_figures() -> None:
    seen = words(render(STATUS, NOW))
    for expected in [
        "Version 1.2.3 (3f9c2ab77d01), started 1 d 2 h ago",
        "production Up to date peers 1,317 users 1,209 sessions 42 rooms 18 Last poll 12 s ago API calls an hour 486",
        "staging Failing the API refused the credentials (401) peers \N{EN DASH} users \N{EN DASH} sessions \N{EN DASH} rooms 4",
        "Last poll 7 s ago Last success 1 h 6 min ago",
        "archive Up to date peer 1 users 0 sessions 0 rooms 7 Past sessions read: 42%",
        "new First poll under way No figures at the moment. Last poll never",
        "It polls every 30 s",
    ]:
        assert expected in seen


def test_the_page_links_to_the_other_pages_and_reloads_itself() -> None:
    page = render(STATUS, NOW)
    assert re.findall(r'href="([^"]*)"', page) == ["/metrics", "/-/healthy", "/-/ready"]
    assert '<meta http-equiv="refresh" content="30">' in page
    assert '<meta http-equiv="refresh" content="5">' in render(Status("1", "", NOW, 1.0), NOW)


def test_the_page_says_what_peers_and_users_are() -> None:
    seen = words(render(STATUS, NOW))
    assert "A peer is one connection to a room" in seen
    assert "A user is one user id" in seen


def test_the_title_names_failures() -> None:
    assert "<title>(1 failing) 100ms exporter</title>" in render(STATUS, NOW)
    assert "<title>100ms exporter</title>" in render(Status("1", "", NOW, 30), NOW)


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (-5, "just now"),
        (0, "just now"),
        (1, "1 s ago"),
        (59.7, "1 min ago"),
        (61, "1 min 1 s ago"),
        (7205, "2 h ago"),
        (2e6, "23 d 3 h ago"),
    ],
)
def test_times_are_written_as_people_say_them(ago: float, said: str) -> None:
    page = render(Status("1", "", NOW, 30, (WorkspaceStatus("a", "ok", NOW - ago, NOW - ago),)), NOW)
    assert f"Last poll {said}" in words(page)


@given(st.text(max_size=50))
def test_nothing_from_outside_becomes_markup(text: str) -> None:
    hostile = f"<script>{text}</script>\"'&"
    workspace = WorkspaceStatus(hostile, "failing", NOW, NOW, hostile)
    page = render(Status(hostile, "", NOW, 30, (workspace,)), NOW)
    assert "<script" not in page
    assert page.count(html.escape(hostile)) == 3
    plain = render(Status("v", "", NOW, 30, (WorkspaceStatus("w", "failing", NOW, NOW, "r"),)), NOW)
    assert re.findall(r"<[a-z][^>]*>", page) == re.findall(r"<[a-z][^>]*>", plain)


def test_the_page_may_use_its_own_style_and_nothing_else() -> None:
    response = ask(FakeFace(), "/")
    assert response.headers["Content-Security-Policy"] == content_security_policy()
    assert content_security_policy().startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in content_security_policy()


OVERFLOWING = """[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  return box.right > innerWidth + 0.5 || element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX == "visible"
    && element.clientWidth > 0;
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.mark.slow
def test_in_a_browser_it_fits_wide_and_narrow_in_light_and_dark(tmp_path: Path) -> None:
    unbroken = WorkspaceStatus("w" * 100, "failing", NOW, NOW, "r" * 300, 123_456_789, 123_456_789, 123_456_789, 123_456_789, 1e9)
    shown = Status("1.2.3", "3f9c2ab77d01", NOW - 1, 30, (*STATUS.workspaces, unbroken))
    server = http_server(FakeFace(shown=shown), [listen("127.0.0.1", 0)], None)
    server.start()
    try:
        with Chromium(require("chromium"), tmp_path / "profile") as browser:
            for width in (1280, 390):
                for dark in (False, True):
                    browser.open(f"http://127.0.0.1:{server.port}/", width=width, dark=dark)
                    assert browser.evaluate("innerWidth") == width
                    assert browser.evaluate("document.documentElement.scrollWidth") == width
                    assert browser.evaluate(OVERFLOWING) == []
                    assert browser.complaints() == []
                    # The style sheet is applied, and follows the reader's preference for light or dark.
                    brightness = browser.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
                    assert (brightness < 50) == dark
                    assert browser.evaluate("document.querySelectorAll('section h2').length") == 5
                    assert browser.screenshot().startswith(b"\x89PNG")
    finally:
        server.stop()


def test_the_page_shows_the_busiest_rooms_with_their_names_escaped() -> None:
    room = RoomStatus("<stand-up>", 12, 11, 1, NOW - 90, 34.4)
    page = render(Status("1", "", NOW, 30.0, (WorkspaceStatus("w", "ok", busiest=(room,)),)), NOW)
    assert "&lt;stand-up&gt;" in page
    assert "<stand-up>" not in page
    assert "1 min 30 s" in page
    assert ">34<" in page
