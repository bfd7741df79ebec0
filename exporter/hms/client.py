"""The 100ms client: records of sessions and rooms over HTTP, within bounds of time, size, rate and patience.

`Api` is what a workspace's threads share: the token, the API's clock, the rate, the page size; a `Client` is one thread's
connection.  Whatever goes wrong is an `ApiError`; whoever asks decides what it means.
"""

from __future__ import annotations

import io
import math
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import quote, urljoin, urlsplit

import msgspec
import requests
import requests.adapters
import urllib3

from exporter import __version__
from exporter.config.config import ApiConfig, ConfigError, KeyPair, ManagementToken
from exporter.config.readers import is_loopback
from exporter.hms.clock import ApiClock
from exporter.hms.records import MalformedAnswer, Page, check_object, decode_page
from exporter.hms.tokens import Tokens
from exporter.hms.watchdog import GuardedAdapter, Watchdog
from exporter.times import SECOND

T = TypeVar("T")

LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer, inflated; a hundred sessions with two thousand peers each are less."""
_CHUNK = 16 * 1024
"""Compressed bytes read at a time: what they may inflate to at most (a thousandfold) still fits."""
_PAGE_SIZES = (100, 50, 20, 10)
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 3
_CLOCK_TRIES = 3
_MOST_PAGES = 2_000
"""Of one list: fifty times the largest that we know of; what made-up records would take of memory stays bounded."""


class ApiError(Exception):
    """100ms could not be read.  The message says why, in words fit for a log; `transport` tells that nothing answered."""

    def __init__(self, message: str, *, transport: bool = False, refused: bool = False, throttled: bool = False) -> None:
        super().__init__(message)
        self.transport = transport
        self.refused = refused
        """The credentials are not accepted: nothing else will be answered either."""
        self.throttled = throttled
        """100ms asks for fewer requests."""


class NotFound(ApiError):
    """The API does not know this record (404)."""


class _TooMuch(ApiError):
    """The server refuses the request as it is (400), or its answer is too large: a smaller page may do."""


class _Attempt(NamedTuple):
    """What one request came to: a status with its body, or (status 0) the error that took its place; 200 with what was read of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    error: ApiError | None = None
    answer: Any = None


class Observer(Protocol):
    """Who is told of every request, for the exporter's own metrics."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """A request to a route ended, with an HTTP status or `timeout`, `connection`, `malformed`."""

    def retry(self) -> None:
        """A request is about to be tried again."""

    def throttled(self, seconds: float) -> None:
        """100ms asked to wait this long, and we did."""

    def clock_skew(self, seconds: float) -> None:
        """The API's clock minus ours."""

    def token_expiry(self, timestamp: float) -> None:
        """When the token in use expires (Unix time of the API)."""


class Unobserved:
    """An `Observer` that tells nobody."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """Nothing."""

    def retry(self) -> None:
        """Nothing."""

    def throttled(self, seconds: float) -> None:
        """Nothing."""

    def clock_skew(self, seconds: float) -> None:
        """Nothing."""

    def token_expiry(self, timestamp: float) -> None:
        """Nothing."""


class Rate:
    """At most so many requests in any second, whoever asks; the first ones at once."""

    def __init__(self, per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._count = max(1, int(per_second))
        self._window = self._count / per_second
        self._taken: deque[float] = deque(maxlen=self._count)
        self._lock = threading.Lock()
        self._monotonic = monotonic

    def take(self) -> float:
        """Takes the next place, and says how many seconds it is away."""
        with self._lock:
            now = self._monotonic()
            place = now if len(self._taken) < self._count else max(now, self._taken[0] + self._window)
            self._taken.append(place)
            return place - now


@dataclass(frozen=True, slots=True)
class Patience:
    """Until when (monotonic seconds) a request may be tried again."""

    until: float

    @classmethod
    def from_now(cls, seconds: float = 60.0) -> Patience:
        """For so long from now on."""
        return cls(time.monotonic() + seconds)


def steady_micros() -> int:
    """Our steady clock (µs): no clock that is set moves it, and where the system can tell, it runs while suspended."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class Api:
    """What the threads of one workspace share of the API."""

    def __init__(
        self,
        config: ApiConfig,
        credentials: KeyPair | ManagementToken,
        observer: Observer,
        clock: ApiClock | None = None,
        steady: Callable[[], int] = steady_micros,
    ) -> None:
        self.config = config
        self.steady = steady
        self.clock = clock if clock is not None else ApiClock()
        self.tokens = Tokens(credentials)
        self.observer = observer
        self.rate = Rate(config.max_requests_per_second)
        self.stopped = threading.Event()
        self.all_page_sizes = [config.page_size, *(size for size in _PAGE_SIZES if size < config.page_size)]
        self.page_sizes: dict[str, list[int]] = {}
        """The page sizes by route, without those that the server has refused."""
        self.heard = time.monotonic()
        """When a request last ended: the sign of life of whoever asks."""
        self._watchdog = Watchdog()
        self._base = urlsplit(config.base_url)

    def client(self) -> Client:
        """A connection for one thread."""
        return Client(self, self._watchdog)

    def stop(self) -> None:
        """Every request under way and every wait ends at once with an `ApiError`; nothing is asked any more."""
        self.stopped.set()
        self._watchdog.stop()

    def is_ours(self, url: str) -> bool:
        """Whether this is the host that the token is for."""
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == (self._base.scheme, self._base.netloc)

    def now(self) -> int:
        """The API's time (µs): by its own `Date`, before the first answer by this machine's clock."""
        known = self.clock.at(self.steady())
        return known if known is not None else time.time_ns() // 1000

    def token_time(self) -> int:
        """The time (Unix seconds) that tokens are made for."""
        told = self.clock.at_last_told(self.steady())
        return (told if told is not None else time.time_ns() // 1000) // SECOND

    def skew(self) -> float:
        """The API's clock minus this machine's, in seconds; 0 before the first answer."""
        return (self.now() - time.time_ns() // 1000) / SECOND


class Client:
    """One thread's way to ask; not to be shared."""

    def __init__(self, api: Api, watchdog: Watchdog) -> None:
        self._api = api
        self._watchdog = watchdog
        self._http = requests.Session()
        adapter = GuardedAdapter(watchdog)
        self._http.mount("https://", adapter)
        self._http.mount("http://", adapter)
        self._http.headers.update({"User-Agent": f"hms-exporter/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"})
        # What is for this machine goes through no proxy, whatever the environment says: it would be told a token in clear.
        here = is_loopback(urlsplit(api.config.base_url).hostname or "")
        self._proxies: dict[str, str] = dict.fromkeys(("http", "https", "all"), "") if here else {}
        self.sent = 0
        """When the last request was sent, on the steady clock (µs)."""

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def decide_on_clock(self, patience: Patience) -> None:
        """Asks once more when the last answer's `Date` contradicts those before, to know which to believe.  Raises `ApiError`."""
        for _ in range(_CLOCK_TRIES):
            if not self._api.clock.disputed:
                return
            self._page("/sessions", {"active": "true"}, patience)
        raise ApiError("the Date of 100ms's answers contradicts itself")

    def time_at(self, sent: int) -> int:
        """The API's time (µs), at the least, at a moment of our steady clock; this machine's if the API does not tell its own."""
        known = self._api.clock.at(sent)
        return known if known is not None else time.time_ns() // 1000 - (self._api.steady() - sent)

    def pages(self, route: str, parameters: dict[str, str], patience: Patience) -> Iterator[Page]:
        """The pages of a list, newest records first.  Raises `ApiError`, at any page."""
        cursors: set[str] = set()
        oldest: set[int] = set()
        for _ in range(_MOST_PAGES):
            page, size = self._page(route, parameters, patience)
            yield page
            count = len(page.data or ())
            if not page.last or count < (page.limit or size) or not count:
                return
            if page.last in cursors:
                raise ApiError(f"{route}: the list turns in a circle: its cursor came back")
            cursors.add(page.last)
            # A list that always has another page with what has been read already has new cursors for ever.
            end = hash(bytes(page.data[-1])) if page.data else 0
            if end in oldest:
                raise ApiError(f"{route}: the list does not end: its pages repeat themselves")
            oldest.add(end)
            parameters = {**parameters, "start": page.last}
        raise ApiError(f"{route}: the list does not end")

    def record(self, route: str, record_id: str, patience: Patience) -> bytes:
        """One record, undecoded.  Raises `NotFound` or another `ApiError`."""
        return self._get(f"{route}/{{id}}", f"{route}/{quote(record_id, safe='')}", {}, patience, _read_record)

    def _page(self, route: str, parameters: dict[str, str], patience: Patience) -> tuple[Page, int]:
        """One page, of the size that the server takes: it may refuse what the newer documentation allows."""
        sizes = self._api.page_sizes.setdefault(route, self._api.all_page_sizes)
        for tried, size in enumerate(sizes):
            try:
                page = self._get(route, route, {**parameters, "limit": str(size)}, patience, decode_page)
            except _TooMuch:
                if tried + 1 == len(sizes):
                    raise
                continue
            if tried:
                self._api.page_sizes[route] = sizes[tried:]
            return page, size
        raise AssertionError

    def _get(self, endpoint: str, path: str, parameters: dict[str, str], patience: Patience, read: Callable[[bytes], T]) -> T:
        """What `read` makes of an answer; the request is tried again where that may help.  Raises `ApiError`."""
        api = self._api
        renewed = False
        tries = 0
        while True:
            token = self._token()
            status, headers, body, error, answer = self._send(endpoint, path, parameters, token, read)
            if status == 200:
                return cast(T, answer)
            message = _message(body)
            error = error or _failure(endpoint, status)
            if error.refused and not renewed and self._renew(token):
                # The clock has been learnt from this very answer, and a secret's file may have changed.
                renewed = True
                continue
            if (status and status not in _RETRIED) or isinstance(error, _TooMuch) or tries >= api.config.max_retries:
                raise error
            told = _retry_after(headers, message, api.now()) if status in (429, 503) else None
            # Spread out, so that many exporters do not come back together; never earlier than asked.
            spread = random.uniform(0.5, 1.0)  # noqa: S311 (guards nothing)
            pause = min(10.0, 0.5 * 2**tries) * spread if told is None else told + spread / 10
            if time.monotonic() + pause >= patience.until:
                raise error
            tries += 1
            self._wait(pause)
            if told is not None:
                api.observer.throttled(pause)
            api.observer.retry()

    def _token(self) -> str:
        try:
            token = self._api.tokens.current(self._api.token_time())
        except ConfigError as error:
            raise ApiError(str(error), refused=True) from error
        if math.isfinite(token.expires):
            self._api.observer.token_expiry(token.expires)
        return token.text

    def _renew(self, refused: str) -> bool:
        try:
            return self._api.tokens.renew(refused, self._api.token_time())
        except ConfigError as error:
            raise ApiError(str(error), refused=True) from error

    def _wait(self, seconds: float) -> None:
        if self._api.stopped.wait(seconds):
            raise ApiError("stopped", transport=True)

    def _send(self, endpoint: str, path: str, parameters: dict[str, str], token: str, read: Callable[[bytes], object]) -> _Attempt:
        """One attempt, told to the observer."""
        api = self._api
        self._wait(api.rate.take())
        started = time.monotonic()
        with self._watchdog.deadline(api.config.timeout) as deadline:
            try:
                attempt = self._exchange(api.config.base_url + path, parameters, token)
                if deadline.passed:
                    raise TimeoutError  # a body that ends with its connection looks whole when it was cut off
                if attempt.status == 200:
                    attempt = attempt._replace(answer=read(attempt.body), body=b"")
                code = str(attempt.status)
            except MalformedAnswer as error:
                code = "malformed"
                kind = _TooMuch if isinstance(error, TooLarge) else ApiError
                attempt = _Attempt(0, {}, b"", kind(f"{endpoint}: {error}"))
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                code = "timeout" if deadline.passed or _is_timeout(error) else "connection"
                attempt = _Attempt(0, {}, b"", ApiError(f"{endpoint}: {_fault(code, error, api.config.timeout)}", transport=True))
        api.heard = time.monotonic()
        api.observer.request(endpoint, code, api.heard - started)
        if api.stopped.is_set():
            raise ApiError("stopped", transport=True)
        return attempt

    def _exchange(self, url: str, parameters: dict[str, str], token: str) -> _Attempt:
        api = self._api
        self.sent = self._api.steady()
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._http.get(
                url,
                params=parameters,
                auth=_Bearer(token),
                proxies=dict(self._proxies),
                timeout=api.config.timeout,
                stream=True,
                allow_redirects=False,
            )
            with response:
                self._learn_time(response.headers, self.sent)
                target = response.headers.get("Location")
                if response.status_code in _REDIRECTS and target is not None and api.is_ours(urljoin(url, target)):
                    url, parameters = urljoin(url, target), {}
                    continue
                return _Attempt(response.status_code, response.headers, _read(response))
        return _Attempt(response.status_code, response.headers, b"")

    def _learn_time(self, headers: Mapping[str, str], sent: int) -> None:
        received = self._api.steady()
        date = _date(headers.get("Date"))
        if date is None:
            return
        self._api.clock.learn(round(date.timestamp()) * SECOND, sent, received)
        self._api.observer.clock_skew(self._api.skew())


class _Bearer(requests.auth.AuthBase):
    """The token, as `auth` and not as a header, so that no .netrc of the machine replaces it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class TooLarge(MalformedAnswer):
    """An answer larger than any of this API's."""


def _read(response: requests.Response) -> bytes:
    """The body, inflated.  Raises `TooLarge` before it takes more memory than an answer may."""
    body = io.BytesIO()  # not a list of chunks: joining them would take the memory twice
    for chunk in response.raw.stream(_CHUNK, decode_content=True):
        if body.tell() + len(chunk) > LARGEST_ANSWER:
            raise TooLarge(f"the answer is larger than {LARGEST_ANSWER >> 20} MiB")
        body.write(chunk)
    return body.getvalue()


def _read_record(body: bytes) -> bytes:
    check_object(body)
    return body


class _ErrorBody(msgspec.Struct):
    message: str | None = None


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_ErrorBody).message or ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace") if len(body) < 200 and not body.lstrip().startswith(b"<") else ""


def _failure(endpoint: str, status: int) -> ApiError:
    """What a status other than 200 means.  The API's own words are left out: they may repeat anything of the request."""
    if status == 404:
        return NotFound(f"{endpoint}: not found (404)")
    if status == 400:
        return _TooMuch(f"{endpoint}: 100ms refuses the request (400)")
    if status in (401, 403):
        return ApiError(f"{endpoint}: 100ms does not accept the credentials ({status})", refused=True)
    if status in _REDIRECTS:
        return ApiError(f"{endpoint}: a redirect to another host is not followed ({status}): the token goes nowhere else")
    return ApiError(f"{endpoint}: 100ms answers {status}", throttled=status == 429)


def _fault(code: str, error: Exception, timeout: float) -> str:
    """A short text for a log line: what kind of fault, without addresses and without anything that was sent."""
    if code == "timeout":
        return f"nothing complete within {timeout:g} s"
    kind: BaseException = error
    while isinstance(kind, requests.RequestException | urllib3.exceptions.MaxRetryError) and kind.args:
        inner = getattr(kind.args[0], "reason", kind.args[0])
        if not isinstance(inner, BaseException):
            break
        kind = inner
    return f"the connection failed ({type(kind).__name__})"


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError) or (
        isinstance(error, requests.ConnectionError) and "timed out" in str(error)
    )


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


_SECONDS_IN_MESSAGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:s\b|sec)", re.IGNORECASE)


def _retry_after(headers: Mapping[str, str], message: str, now: int) -> float | None:
    """How many seconds 100ms asks to wait: in `Retry-After` as seconds or a date, else in the message of the answer."""
    header = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", header):
        return float(header)
    date = _date(header) if header else None
    if date is not None:
        return max(0.0, date.timestamp() - now / SECOND)
    found = _SECONDS_IN_MESSAGE.search(message)
    return float(found[1]) if found else None
