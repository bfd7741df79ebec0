"""The 100ms client against the simulated API on real sockets: the outcome of each fault, its time limit, and the retries."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.config.config import ApiConfig, KeyPair, ManagementToken, Secret
from exporter.hms.client import Api
from exporter.hms.errors import ApiError, Forbidden, NotFound
from exporter.hms.pace import Patience, Rate
from exporter.hms.pages import DELIVERIES, LARGEST_ANSWER
from exporter.simulator import Fault, Manners, SimulatedApi, World, real_clock
from exporter.times import MINUTE, SECOND

ACCESS_KEY, SECRET = "key-of-the-tests", "secret-of-the-tests-which-is-long-enough"
FOREVER = Patience(float("inf"))


class Told:
    """An observer that remembers its calls."""

    def __init__(self) -> None:
        self.codes: list[tuple[str, str]] = []
        self.retries = 0
        self.waited = 0.0
        self.skews: list[float] = []
        self.expiries: list[float] = []

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.codes.append((endpoint, code))

    def retry(self) -> None:
        self.retries += 1

    def throttled(self, seconds: float) -> None:
        self.waited += seconds

    def clock_skew(self, seconds: float) -> None:
        self.skews.append(seconds)

    def token_expiry(self, timestamp: float, *, minted: bool) -> None:
        self.expiries.append(timestamp)


@pytest.fixture
def world() -> World:
    world = World(ACCESS_KEY, SECRET)
    room = world.room(name="daily-standup")
    now = real_clock()
    for serial in range(25):
        world.open(room.id, now - MINUTE + serial)
    return world


@pytest.fixture
def sim(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world]) as running:
        yield running


Make = Callable[..., tuple[Api, Told]]


@pytest.fixture
def make(sim: SimulatedApi) -> Iterator[Make]:
    """A factory of `Api` objects with these settings, which are stopped after the test."""
    made = []

    def build(credentials: KeyPair | ManagementToken | None = None, **settings: Any) -> tuple[Api, Told]:
        told = Told()
        chosen = {"base_url": sim.base_url, "timeout": 2.0, "max_retries": 0, "max_requests_per_second": 1000.0, **settings}
        api = Api(ApiConfig(**chosen), credentials or KeyPair(Secret(ACCESS_KEY), Secret(SECRET)), told)
        made.append(api)
        return api, told

    yield build
    for api in made:
        api.stop()


def sessions(api: Api, patience: Patience = FOREVER) -> int:
    """The number of running sessions listed on all pages."""
    client = api.client()
    try:
        return sum(len(page.data or ()) for page in client.pages("/sessions", {"active": "true"}, patience))
    finally:
        client.close()


@contextlib.contextmanager
def scripted(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends these answers whatever is asked, one per connection.  Yields its address and the requests."""
    asked: list[bytes] = []

    def serve() -> None:
        for sent in answers:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(65536))
                    connection.sendall(sent)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2", asked
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


# --- faults: bounded time, the right label, recovery ---

FAULTS = [
    *((f"status {code}", Fault(kind="status", status=code), str(code)) for code in (401, 403, 408, 429, 500, 502, 503, 504)),
    ("an error as HTML", Fault(kind="status", status=502, html=True), "502"),
    ("a stall before the headers", Fault(kind="stall", seconds=60), "timeout"),
    ("headers that trickle", Fault(kind="trickle_headers", seconds=0.05), "timeout"),
    ("a body that trickles for ever", Fault(kind="trickle_body", seconds=0.05), "timeout"),
    ("a reset before the headers", Fault(kind="reset"), "connection"),
    ("a reset in the headers", Fault(kind="reset_in_headers"), "connection"),
    ("a reset in the body", Fault(kind="reset_in_body"), "connection"),
    ("a body cut short", Fault(kind="cut_short"), "connection"),
    ("HTML with 200", Fault(kind="html"), "malformed"),
    ("JSON of wrong types", Fault(kind="wrong_types"), "malformed"),
    ("deep nesting", Fault(kind="deep_nesting"), "malformed"),
    ("an empty body", Fault(kind="body", body=""), "malformed"),
    ("a number", Fault(kind="body", body="17"), "malformed"),
    ("a list without its page", Fault(kind="body", body="[]"), "malformed"),
    ("a page without data", Fault(kind="body", body='{"limit": 10}'), "malformed"),
    ("data that is an object", Fault(kind="body", body='{"data": {}}'), "malformed"),
    ("data that is text", Fault(kind="body", body='{"data": "none"}'), "malformed"),
    ("an error with 200", Fault(kind="body", body='{"code": 500, "message": "no"}'), "malformed"),
    ("half a page", Fault(kind="body", body='{"limit":10,"data":[{"id":'), "malformed"),
]


@pytest.mark.parametrize(("fault", "code"), [(fault, code) for _, fault, code in FAULTS], ids=[name for name, _, _ in FAULTS])
def test_each_fault_ends_in_time_under_its_label_and_the_next_good_answer_is_read(
    sim: SimulatedApi, make: Make, fault: Fault, code: str
) -> None:
    api, told = make(timeout=0.4)
    sim.faults.add(fault)
    began = time.monotonic()
    with pytest.raises(ApiError):
        sessions(api)
    assert time.monotonic() - began < 1.5
    assert set(told.codes) == {("/sessions", code)}
    assert told.retries == 0
    sim.faults.clear()
    assert sessions(api) == 25
    assert told.codes[-1] == ("/sessions", "200")


@pytest.mark.parametrize(("fault", "code"), [(fault, code) for _, fault, code in FAULTS], ids=[name for name, _, _ in FAULTS])
def test_a_fault_in_a_later_page_raises_too_as_half_a_list_is_no_list(sim: SimulatedApi, make: Make, fault: Fault, code: str) -> None:
    api, told = make(timeout=0.4, page_size=10)
    sim.faults.add(Fault(**{**_fields(fault), "match": "start="}))
    with pytest.raises(ApiError):
        sessions(api)
    assert told.codes[0] == ("/sessions", "200")
    assert {seen for _, seen in told.codes[1:]} == {code}


def _fields(fault: Fault) -> dict[str, Any]:
    return {name: getattr(fault, name) for name in fault.__struct_fields__}


def test_an_unknown_record_is_told_apart_from_a_failure(make: Make) -> None:
    api, told = make()
    with pytest.raises(NotFound):
        api.client().record("/sessions", "65f0000000000000deadbeef", FOREVER)
    assert told.codes == [("/sessions/{id}", "404")]


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "17", "<html></html>", "", "{}", '{"id": null}', '{"id": "y"}', '{"id": 7}'])
def test_an_invalid_record_or_that_of_another_id_is_a_failed_request(sim: SimulatedApi, make: Make, body: str) -> None:
    api, told = make()
    sim.faults.add(Fault(kind="body", body=body))
    with pytest.raises(ApiError):
        api.client().record("/rooms", "x", FOREVER)
    assert told.codes == [("/rooms/{id}", "malformed")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["huge_body", "gzip_bomb"])
def test_an_answer_of_a_gigabyte_is_cut_off_before_it_takes_the_memory(sim: SimulatedApi, make: Make, kind: Any) -> None:
    api, told = make(page_size=10, timeout=10.0)
    sim.faults.add(Fault(kind=kind, size=1 << 30))
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="larger than 64 MiB"):
            sessions(api)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * LARGEST_ANSWER
    assert told.codes == [("/sessions", "malformed")]
    sim.faults.clear()
    assert sessions(api) == 25


def test_a_refused_connection_is_a_connection_error_and_is_mended_by_the_servers_return(sim: SimulatedApi, make: Make) -> None:
    api, told = make()
    sim.stop()
    with pytest.raises(ApiError, match="the connection failed"):
        sessions(api)
    assert told.codes == [("/sessions", "connection")]
    sim.start()
    assert sessions(api) == 25


def test_a_name_that_does_not_resolve_is_a_connection_error(make: Make) -> None:
    api, told = make(base_url="http://api.invalid/v2")
    with pytest.raises(ApiError) as caught:
        sessions(api)
    assert caught.value.transport
    assert told.codes == [("/sessions", "connection")]


def test_a_name_whose_lookup_hangs_is_given_up_in_time_and_leaves_one_thread(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait(20) and [])
    api, told = make(base_url="http://api.example/v2", timeout=0.3)
    threads = threading.active_count()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(ApiError):
            sessions(api)
    assert time.monotonic() - began < 1.5
    assert told.codes == [("/sessions", "timeout")] * 3
    assert threading.active_count() <= threads + 2, "the watchdog and one lookup"
    found.set()


def test_tls_with_a_server_that_speaks_none_is_a_connection_error(sim: SimulatedApi, make: Make) -> None:
    api, told = make(base_url=sim.base_url.replace("http://", "https://"))
    with pytest.raises(ApiError):
        sessions(api)
    assert told.codes == [("/sessions", "connection")]


def test_a_tls_handshake_that_never_ends_is_cut_off(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api, told = make(base_url=f"https://127.0.0.1:{listener.getsockname()[1]}/v2", timeout=0.3)
        began = time.monotonic()
        with pytest.raises(ApiError):
            sessions(api)
        assert time.monotonic() - began < 1.5
    assert told.codes == [("/sessions", "timeout")]


@pytest.fixture
def black_hole() -> Iterator[int]:
    """The port of a server whose queue is full: a connection to it never completes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


Resolve = Callable[..., None]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Resolves every host to these ports of this machine."""

    def use(*ports: int) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    return use


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("addresses", [1, 4, 8])
def test_a_connection_that_never_completes_is_given_up_in_time_however_many_addresses_the_host_has(
    make: Make, black_hole: int, resolve: Resolve, addresses: int, scheme: str
) -> None:
    resolve(*[black_hole] * addresses)
    api, told = make(base_url=f"{scheme}://api.example/v2", timeout=0.8)
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        sessions(api)
    assert 0.7 < time.monotonic() - began < 1.2
    assert caught.value.transport
    assert told.codes == [("/sessions", "timeout")]


def test_an_address_that_swallows_everything_leaves_the_next_one_its_time(
    sim: SimulatedApi, make: Make, black_hole: int, resolve: Resolve
) -> None:
    resolve(black_hole, sim.port)
    api, _ = make(timeout=1.0)
    assert sessions(api) == 25


def test_an_address_that_refuses_costs_nothing(sim: SimulatedApi, make: Make, resolve: Resolve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    resolve(closed, closed, sim.port)
    api, told = make()
    assert sessions(api) == 25
    sim.stop()
    with pytest.raises(ApiError):
        sessions(api)
    assert told.codes[-1] == ("/sessions", "connection")


def test_a_host_without_an_address_is_a_connection_error(make: Make, resolve: Resolve) -> None:
    resolve()
    api, told = make(base_url="http://api.example/v2")
    with pytest.raises(ApiError):
        sessions(api)
    assert told.codes == [("/sessions", "connection")]


@pytest.mark.parametrize("addresses", [1, 8])
def test_a_stop_ends_connecting_at_once(make: Make, black_hole: int, resolve: Resolve, addresses: int) -> None:
    resolve(*[black_hole] * addresses)
    api, _ = make(base_url="http://api.example/v2", timeout=60.0, max_retries=3)
    timer = threading.Timer(0.3, api.stop)
    timer.start()
    began = time.monotonic()
    with pytest.raises(ApiError):
        sessions(api)
    assert 0.2 < time.monotonic() - began < 0.8


def test_a_server_on_ipv6_is_reached(world: World, make: Make) -> None:
    other = SimulatedApi([world], host="::1")
    try:
        other.start()
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        api, _ = make(base_url=other.base_url)
        assert sessions(api) == 25
    finally:
        other.stop()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 999999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: Thu, 99 Nul 99999 99:99:99 XXX\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 0001 00:00:00 +2359\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_nonsense_on_the_wire_is_an_api_error_and_nothing_else(make: Make, answer: bytes) -> None:
    with scripted(answer) as (url, _):
        api, told = make(base_url=url, timeout=1.0)
        with pytest.raises(ApiError):
            sessions(api)
    assert len(told.codes) == 1


@pytest.mark.parametrize("fault", [fault for _, fault, _ in FAULTS], ids=[name for name, _, _ in FAULTS])
def test_an_errors_text_shows_no_token_no_secret_and_nothing_of_the_answer(sim: SimulatedApi, make: Make, fault: Fault) -> None:
    api, _ = make(timeout=0.3)
    sim.faults.add(Fault(**{**_fields(fault), "message": "a person's name, customer-77"}))
    with pytest.raises(ApiError) as caught:
        sessions(api)
    text = f"{caught.value} {caught.value!r}"
    token = api.tokens.current(api.now() // SECOND).text
    assert not [secret for secret in (token, SECRET, ACCESS_KEY, "person", "customer-77", "127.0.0.1") if secret in text]


# --- trying again ---


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_failure_that_may_pass_is_tried_again_and_each_retry_is_counted(sim: SimulatedApi, make: Make, status: int) -> None:
    api, told = make(max_retries=3)
    sim.faults.add(Fault(kind="status", status=status, times=2, retry_after="0" if status == 429 else None))
    assert sessions(api) == 25
    assert told.retries == 2
    assert [code for _, code in told.codes] == [str(status), str(status), "200"]


@pytest.mark.parametrize("status", [400, 404, 410, 418, 501])
def test_a_failure_that_will_not_pass_is_not_tried_again(sim: SimulatedApi, make: Make, status: int) -> None:
    api, told = make(max_retries=3)
    sim.faults.add(Fault(kind="status", status=status, route="/rooms/<id>"))
    with pytest.raises(ApiError):
        api.client().record("/rooms", "x", FOREVER)
    assert told.codes == [("/rooms/{id}", str(status))]


def test_retries_end_at_the_configured_number(sim: SimulatedApi, make: Make) -> None:
    api, told = make(max_retries=1)
    sim.faults.add(Fault(kind="reset"))
    with pytest.raises(ApiError):
        sessions(api)
    assert (told.retries, len(told.codes)) == (1, 2)


def test_no_retry_begins_once_patience_has_run_out(sim: SimulatedApi, make: Make) -> None:
    api, told = make(max_retries=20)
    sim.faults.add(Fault(kind="status", status=503))
    began = time.monotonic()
    with pytest.raises(ApiError):
        sessions(api, Patience(began + 0.1))
    assert time.monotonic() - began < 0.2
    assert told.retries == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        (Fault(kind="status", status=429, retry_after="1", times=1), 1.0, 1.6),
        (Fault(kind="status", status=503, retry_after="1", times=1), 1.0, 1.6),
        (Fault(kind="status", status=429, retry_after="date+2", times=1), 0.8, 2.6),
        (Fault(kind="status", status=429, message="rate limited, retry after 1 seconds", times=1), 1.0, 1.6),
        (Fault(kind="status", status=429, message="try again in 1.2s", times=1), 1.2, 1.8),
        (Fault(kind="status", status=429, retry_after="1", message="retry after 50 seconds", times=1), 1.0, 1.6),
        (Fault(kind="status", status=429, retry_after="nonsense", times=1), 0.2, 0.9),
        (Fault(kind="status", status=429, retry_after="-5", times=1), 0.2, 0.9),
        (Fault(kind="status", status=429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT", times=1), 0.0, 0.6),
        (Fault(kind="status", status=500, retry_after="30", times=1), 0.2, 0.9),
    ],
    ids=["seconds", "503", "date", "message", "message in s", "header before message", "nonsense", "negative", "past date", "500"],
)
def test_it_waits_as_long_as_100ms_asks_and_no_longer(sim: SimulatedApi, make: Make, fault: Fault, least: float, most: float) -> None:
    api, told = make(max_retries=1)
    sessions(api)  # now the API's clock is known, which the date needs
    sim.faults.add(fault)
    began = time.monotonic()
    assert sessions(api, Patience(began + 10)) == 25
    assert least <= time.monotonic() - began < most
    assert told.retries == 1


@pytest.mark.parametrize("asked", ["86400", "date+86400", "999999999", "9" * 400])
def test_a_day_is_too_long_to_wait(sim: SimulatedApi, make: Make, asked: str) -> None:
    api, told = make(max_retries=3)
    sim.faults.add(Fault(kind="status", status=429, retry_after=asked))
    began = time.monotonic()
    with pytest.raises(ApiError):
        sessions(api, Patience(began + 1.0))
    assert time.monotonic() - began < 2.0
    assert told.waited == 0


def test_the_time_of_waiting_for_100ms_is_told(sim: SimulatedApi, make: Make) -> None:
    api, told = make(max_retries=1)
    sim.faults.add(Fault(kind="status", status=429, retry_after="1", times=1))
    sessions(api)
    assert 1.0 <= told.waited < 1.2


# --- stopping ---

STALLS = {
    "a stall": Fault(kind="stall", seconds=60),
    "trickling headers": Fault(kind="trickle_headers", seconds=0.05),
    "a trickling body": Fault(kind="trickle_body", seconds=0.05),
    "a retry's wait": Fault(kind="status", status=503, retry_after="60"),
    "a huge body": Fault(kind="huge_body", size=1 << 40),
}


@pytest.mark.parametrize("fault", STALLS.values(), ids=STALLS.keys())
def test_a_stop_ends_every_wait_at_once(sim: SimulatedApi, make: Make, fault: Fault) -> None:
    api, told = make(timeout=60.0, max_retries=3)
    sim.faults.add(fault)
    outcome: list[Exception] = []

    def ask() -> None:
        try:
            sessions(api)
        except ApiError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    _until(lambda: bool(sim.faults.standing()[0].struck))
    time.sleep(0.05)  # until it waits after the fault
    began = time.monotonic()
    api.stop()
    thread.join(5)
    assert time.monotonic() - began < 0.5
    assert len(outcome) == 1
    asked = len(told.codes)
    with pytest.raises(ApiError):
        sessions(api)
    assert len(told.codes) == asked, "nothing is asked any more"


def test_a_stop_ends_the_wait_for_a_place_in_the_rate(make: Make) -> None:
    api, _ = make(max_requests_per_second=0.01)
    assert api.rate.take() == 0
    timer = threading.Timer(0.1, api.stop)
    timer.start()
    began = time.monotonic()
    with pytest.raises(ApiError):
        sessions(api)
    assert time.monotonic() - began < 1


def _until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- rate, connections, encodings ---


@pytest.mark.parametrize(("per_second", "places"), [(5.0, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2]), (0.5, [0, 2, 4]), (2.5, [0, 0, 0.8, 0.8])])
def test_no_second_sees_more_requests_than_allowed(per_second: float, places: list[float]) -> None:
    rate = Rate(per_second, lambda: 1000.0)
    assert [round(rate.take(), 6) for _ in places] == places


def test_the_rate_is_kept_by_all_threads_together(sim: SimulatedApi, make: Make) -> None:
    api, _ = make(max_requests_per_second=10.0)
    began = time.monotonic()
    threads = [threading.Thread(target=sessions, args=(api,)) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.9 < time.monotonic() - began < 3
    seen = sorted(request.at for request in sim.requests)
    assert all(later - earlier > 0.9 * SECOND for earlier, later in zip(seen, seen[10:], strict=False))


def test_one_connection_serves_all_requests_of_a_client(sim: SimulatedApi, make: Make) -> None:
    api, _ = make(page_size=10)
    server: Any = sim._server
    accepted: list[Any] = []
    original = server.process_request

    def counted(request: Any, address: Any) -> None:
        accepted.append(address)
        original(request, address)

    server.process_request = counted
    client = api.client()
    for _ in range(5):
        assert sum(len(page.data or ()) for page in client.pages("/sessions", {"active": "true"}, FOREVER)) == 25
    with pytest.raises(NotFound):
        client.record("/rooms", "x", FOREVER)
    assert len(sim.requests) == 16
    assert len(accepted) == 1


def test_it_asks_for_gzip_and_names_itself(make: Make) -> None:
    body = gzip.compress(b'{"limit":10,"data":[{"id":"a"}],"last":""}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with scripted(head + body) as (url, asked):
        api, _ = make(base_url=url)
        assert sessions(api) == 1
    lines = asked[0].split(b"\r\n")
    assert b"Accept-Encoding: gzip" in lines
    assert any(line.startswith(b"User-Agent: hms-exporter/") for line in lines)


# --- pages ---


def test_the_page_size_falls_to_what_the_server_takes_and_stays_there(sim: SimulatedApi, make: Make) -> None:
    api, _ = make()
    sim.manners = Manners(max_page_size=20)
    assert sessions(api) == 25
    assert [request.query["limit"] for request in sim.requests] == ["100", "50", "20", "20"]
    assert sessions(api) == 25
    assert [request.query["limit"] for request in sim.requests[4:]] == ["20", "20"]


def test_a_page_size_that_the_server_lowers_by_itself_loses_nothing(sim: SimulatedApi, make: Make) -> None:
    api, _ = make()
    sim.manners = Manners(max_page_size=10, oversize="lower")
    assert sessions(api) == 25
    assert len(sim.requests) == 3


@pytest.mark.parametrize("final_last", ["id", "empty", "absent"])
@pytest.mark.parametrize("empty_data", ["null", "list"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
def test_every_way_to_end_a_list_is_understood(sim: SimulatedApi, make: Make, final_last: Any, empty_data: Any, count: int) -> None:
    world = World("other", SECRET)
    room = world.room()
    for serial in range(count):
        world.open(room.id, real_clock() - MINUTE + serial)
    sim.workspaces = [world]
    sim.manners = Manners(final_last=final_last, empty_data=empty_data)
    api, _ = make(KeyPair(Secret("other"), Secret(SECRET)), page_size=10)
    assert sessions(api) == count


def test_a_cursor_that_comes_back_ends_the_list_with_an_error(sim: SimulatedApi, make: Make) -> None:
    api, told = make(page_size=10)
    sim.faults.add(Fault(kind="repeated_cursor"))
    with pytest.raises(ApiError, match="cursor repeats"):
        sessions(api)
    assert len(told.codes) <= 3


def test_a_list_that_brings_nothing_new_any_more_ends_with_an_error(sim: SimulatedApi, make: Make) -> None:
    api, told = make(page_size=10)
    sim.faults.add(Fault(kind="endless_pages"))
    with pytest.raises(ApiError, match="does not end"):
        sessions(api)
    assert len(told.codes) <= 3


def test_a_list_that_always_brings_something_new_ends_too(
    sim: SimulatedApi, make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.hms.client._MOST_PAGES", 20)
    for serial in range(300):
        world.open(world.rooms[0].id, real_clock() - MINUTE + serial)
    api, told = make(page_size=10)
    with pytest.raises(ApiError, match="does not end"):
        sessions(api)
    assert len(told.codes) == 20


def test_an_item_on_two_pages_is_no_end_of_the_list(sim: SimulatedApi, make: Make) -> None:
    api, _ = make(page_size=10)
    sim.faults.add(Fault(kind="repeated_item"))
    client = api.client()
    seen = {bytes(raw) for page in client.pages("/sessions", {"active": "true"}, FOREVER) for raw in page.data or ()}
    assert len(seen) == 25


# --- routes that a workspace may lack ---


def test_a_403_of_an_optional_route_renews_no_token(sim: SimulatedApi, make: Make) -> None:
    api, told = make(max_retries=3)
    token = api.tokens.current(api.token_time())
    sim.faults.add(Fault(kind="status", status=403))
    with pytest.raises(Forbidden) as caught:
        next(api.client().pages("/sessions", {"active": "true"}, FOREVER, optional=True))
    assert not caught.value.refused
    assert told.codes == [("/sessions", "403")]
    assert api.tokens.current(api.token_time()) == token


@pytest.mark.parametrize(("status", "optional"), [(401, True), (401, False), (403, False)])
def test_any_other_refusal_renews_the_token_once(sim: SimulatedApi, make: Make, status: int, *, optional: bool) -> None:
    api, told = make()
    sim.faults.add(Fault(kind="status", status=status, times=1))
    next(api.client().pages("/sessions", {"active": "true"}, FOREVER, optional=optional))
    assert [code for _, code in told.codes] == [str(status), "200"]


def test_a_limit_of_the_callers_own_is_kept(sim: SimulatedApi, make: Make) -> None:
    api, _ = make()
    assert len(next(api.client().pages("/sessions", {"active": "true", "limit": "13"}, FOREVER)).data or ()) == 13
    assert sim.requests[0].query["limit"] == "13"


def test_a_list_of_numbered_pages_is_read_to_its_end(make: Make) -> None:
    def answer(more: bytes) -> bytes:
        body = b'{"events":[{"event_id":"%s"}],"pagination":{"total_items":2,"has_next":%s}}' % (more, more)
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    with scripted(answer(b"true"), answer(b"false")) as (url, asked):
        api, _ = make(base_url=url)
        found = list(api.client().pages("/analytics/webhooks", {"status": "failed"}, FOREVER, DELIVERIES, optional=True))
    assert [page.total for page in found] == [2, 2]
    assert [b"page=2" in request for request in asked] == [False, True]


# --- where the token goes ---


def test_a_redirect_to_another_host_is_refused_and_that_host_hears_nothing(sim: SimulatedApi, make: Make, world: World) -> None:
    with SimulatedApi([world]) as other:
        api, told = make()
        for location in (f"{other.base_url}/sessions", f"//127.0.0.1:{other.port}/v2/sessions", f"http://localhost:{sim.port}/v2/sessions"):
            sim.faults.clear()
            sim.faults.add(Fault(kind="redirect", location=location))
            with pytest.raises(ApiError, match="redirect"):
                sessions(api)
        assert other.requests == []
    assert {code for _, code in told.codes} == {"302"}


def test_a_redirect_on_the_same_host_is_followed(sim: SimulatedApi, make: Make) -> None:
    api, _ = make()
    sim.faults.add(Fault(kind="redirect", times=1))
    assert sessions(api) == 25
    assert [request.authorized for request in sim.requests] == [True, True]


def test_a_redirect_in_a_circle_ends(sim: SimulatedApi, make: Make) -> None:
    api, _ = make()
    sim.faults.add(Fault(kind="redirect"))
    with pytest.raises(ApiError):
        sessions(api)
    assert len(sim.requests) <= 5


def test_a_netrc_of_the_machine_does_not_replace_the_token(
    sim: SimulatedApi, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    api, _ = make()
    assert sessions(api) == 25


def test_proxies_of_the_environment_are_used(sim: SimulatedApi, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # The simulated API also answers requests in absolute form, so it can be a proxy to itself.
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{sim.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    api, _ = make(base_url="http://api.invalid/v2")
    assert sessions(api) == 25
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "api.invalid")
    direct, told = make(base_url="http://api.invalid/v2")
    with pytest.raises(ApiError):
        sessions(direct)
    assert told.codes == [("/sessions", "connection")]


def test_requests_to_this_machine_go_through_no_proxy(sim: SimulatedApi, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would get the token in clear text."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        api, _ = make(timeout=2.0)
        assert sessions(api) == 25
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_request_behind_a_proxy_has_its_deadline_too(sim: SimulatedApi, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{sim.port}")
    monkeypatch.setenv("no_proxy", "")
    sim.faults.add(Fault(kind="trickle_body", seconds=0.05))
    api, told = make(base_url="http://api.invalid/v2", timeout=0.3)
    with pytest.raises(ApiError):
        sessions(api)
    assert told.codes == [("/sessions", "timeout")]
