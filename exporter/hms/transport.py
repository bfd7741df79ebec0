"""One request over HTTP: rate, deadline, token, redirects, and an answer of limited size.

A small answer is read as a whole. A large one may be read as a stream: its parts are passed on while the connection is open, and the time
that the reader takes does not count against the server.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies

from exporter import __version__
from exporter.config.readers import is_loopback
from exporter.hms.errors import REDIRECTS, ApiError, MalformedAnswer, TooLarge, TooMuch, fault, is_timeout
from exporter.hms.pace import parse_date
from exporter.hms.pages import LARGEST_ANSWER
from exporter.hms.shared import Shared
from exporter.hms.watchdog import Deadline, GuardedAdapter
from exporter.times import SECOND

LARGEST_STREAM = 1024 * 1024 * 1024
"""Bytes of one answer that is read as a stream, inflated."""
_CHUNK = 16 * 1024
"""Compressed bytes read at a time: even if they inflate a thousandfold, the result fits."""
_ERROR_TEXT = 64 * 1024
"""Bytes read of an answer other than 200; its message is at the beginning."""
_MOST_REDIRECTS = 3
_SLOW = 1024 * 1024
"""An answer that times out after this many bytes was too large, not stalled."""


class Attempt(NamedTuple):
    """The outcome of one request: a status with the beginning of its text, or (status 0) an error; for 200, `answer`."""

    status: int
    headers: Mapping[str, str] = {}
    text: bytes = b""
    error: ApiError | None = None
    answer: Any = None


class Body:
    """The body of an answer, inflated, as it arrives."""

    def __init__(self, response: requests.Response, deadline: Deadline, timeout: float) -> None:
        self._response = response
        self._deadline = deadline
        self._timeout = timeout
        self.size = 0
        self.complete = False
        """Whether all of it has arrived."""

    def chunks(self) -> Iterator[bytes]:
        """Its pieces.  Raises `TooLarge` after 1 GiB; each 64 MiB gets the full timeout."""
        allowed = LARGEST_ANSWER
        for chunk in self._response.raw.stream(_CHUNK, decode_content=True):
            self.size += len(chunk)
            if self.size > LARGEST_STREAM:
                raise TooLarge(f"the answer is larger than {LARGEST_STREAM >> 30} GiB")
            if self.size > allowed:
                allowed += LARGEST_ANSWER
                self._deadline.extend(self._timeout)
            yield chunk
        if self._deadline.passed:
            raise TimeoutError  # without a length, a body that was cut off looks complete
        self.complete = True

    def whole(self) -> bytes:
        """All of it.  Raises `TooLarge` before it takes more memory than an answer may."""
        body = bytearray()
        for chunk in self.chunks():
            if len(body) + len(chunk) > LARGEST_ANSWER:
                raise TooLarge(f"the answer is larger than {LARGEST_ANSWER >> 20} MiB")
            body += chunk
        return bytes(body)

    def beginning(self) -> bytes:
        """The beginning of it, for an error's message."""
        text = b""
        for chunk in self.chunks():
            text += chunk
            if len(text) >= _ERROR_TEXT:
                break
        return text[:_ERROR_TEXT]


Read = Callable[[Body], Iterator[Any]]
"""Turns a body into answers: one when it is complete, and earlier ones if it is read as a stream."""


class Transport:
    """One thread's connections; not to be shared."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._http = requests.Session()
        adapter = GuardedAdapter(shared.watchdog)
        self._http.mount("https://", adapter)
        self._http.mount("http://", adapter)
        self._http.headers.update({"User-Agent": f"hms-exporter/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"})
        # The environment is read once, for the one host that is asked: `requests` would read it for each request.
        self._http.trust_env = False
        self._http.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        # A request to this machine never uses a proxy, whatever the environment says: the proxy would see the token in clear text.
        if not is_loopback(urlsplit(shared.config.base_url).hostname or ""):
            self._http.proxies = get_environ_proxies(shared.config.base_url)
        self.sent = 0
        """When the last request was sent, on the steady clock (µs)."""
        self.ends = math.inf
        """The deadline for answers (monotonic seconds)."""

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def wait(self, seconds: float) -> None:
        """Waits.  Raises `ApiError` as soon as the API is stopped."""
        if self._shared.stopped.wait(seconds):
            raise ApiError("stopped", transport=True)

    def ask(self, endpoint: str, path: str, parameters: dict[str, str], token: str, read: Read) -> Generator[Any, None, Attempt]:
        """One attempt, reported to the observer.  Yields all answers of a streamed body but the last, which is in the returned attempt."""
        shared = self._shared
        self.wait(shared.rate.take())
        timeout = min(shared.config.timeout, self.ends - time.monotonic())
        if timeout <= 0:
            raise ApiError(f"{endpoint}: no time is left for the request", transport=True)
        body: Body | None = None
        attempt = Attempt(0)
        code = "200"  # also for a stream that its reader leaves
        with shared.watchdog.deadline(timeout) as deadline:
            try:
                with self._open(shared.config.base_url + path, parameters, token, timeout) as response:
                    body = Body(response, deadline, timeout)
                    if response.status_code == 200:
                        attempt = yield from self._answers(response, body, deadline, read)
                    else:
                        attempt = Attempt(response.status_code, response.headers, body.beginning())
                code = str(attempt.status)
            except MalformedAnswer as error:
                code = "malformed"
                attempt = Attempt(0, error=_malformed(endpoint, error))
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                code = "timeout" if deadline.passed or is_timeout(error) else "connection"
                message = f"{endpoint}: {fault(code, error, timeout)}"
                slow = code == "timeout" and body is not None and body.size >= _SLOW
                attempt = Attempt(0, error=TooMuch(message, transport=True) if slow else ApiError(message, transport=True))
            finally:
                shared.heard = time.monotonic()
                shared.observer.request(endpoint, code, shared.heard - deadline.started)
        if shared.stopped.is_set():
            raise ApiError("stopped", transport=True)
        return attempt

    def _answers(self, response: requests.Response, body: Body, deadline: Deadline, read: Read) -> Generator[Any, None, Attempt]:
        """Yields the answers that are read while the body is arriving; the last one is in the returned attempt."""
        for answer in read(body):
            if body.complete:
                return Attempt(200, response.headers, answer=answer)
            self._shared.heard = time.monotonic()
            try:
                with self._shared.watchdog.paused(deadline):
                    yield answer
            finally:
                # A request made meanwhile has left a connection that the watchdog does not know.
                self._http.close()
        raise MalformedAnswer("the answer is empty")

    def _open(self, url: str, parameters: dict[str, str], token: str, timeout: float) -> requests.Response:
        """The answer's head, after redirects on the same host."""
        self.sent = self._shared.steady()
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._http.get(
                url,
                params=parameters,
                auth=_Bearer(token),
                timeout=timeout,
                stream=True,
                allow_redirects=False,
            )
            try:
                self._learn_time(response.headers)
                target = response.headers.get("Location")
                if response.status_code not in REDIRECTS or target is None or not self._shared.is_ours(urljoin(url, target)):
                    return response
                url, parameters = urljoin(url, target), {}
            except BaseException:
                response.close()
                raise
            response.close()
        return response

    def _learn_time(self, headers: Mapping[str, str]) -> None:
        received = self._shared.steady()
        date = parse_date(headers.get("Date"))
        if date is None:
            return
        self._shared.clock.learn(round(date.timestamp()) * SECOND, self.sent, received)
        self._shared.observer.clock_skew(self._shared.skew())


class _Bearer(requests.auth.AuthBase):
    """The token, as `auth` and not as a header, so that no .netrc of the machine replaces it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _malformed(endpoint: str, error: MalformedAnswer) -> ApiError:
    message = f"{endpoint}: {error}"
    return TooMuch(message, record_bytes=error.record_bytes) if isinstance(error, TooLarge) else ApiError(message)
