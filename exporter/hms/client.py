"""The 100ms client: lists and records over HTTP, with limits on time, size, rate and retries.

`Api` is what a workspace's threads share; a `Client` is one thread's connection.  Every failure is an `ApiError`; the caller decides what
it means.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from exporter.config.config import ConfigError
from exporter.hms.errors import ApiError, MalformedAnswer, TooMuch, failure
from exporter.hms.pace import Patience, pause_before, retry_after
from exporter.hms.pages import RECORDS, Envelope, Page, read_page
from exporter.hms.records import record_id
from exporter.hms.shared import Shared
from exporter.hms.transport import Body, Read, Transport

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_CLOCK_TRIES = 3
_MOST_PAGES = 2_000
"""Pages of one list: fifty times the largest list that we know of. It limits the memory that invented records can take."""


class Api(Shared):
    """The API of one workspace, shared by its threads."""

    def client(self) -> Client:
        """A connection for one thread."""
        return Client(self)


class Client:
    """One thread's connection to the API; not to be shared.

    `optional` marks a route that a workspace may lack: there a 403 is `Forbidden` and says nothing about the token.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._transport = Transport(shared)

    @property
    def sent(self) -> int:
        """When the last request was sent, on the steady clock (µs)."""
        return self._transport.sent

    def end_by(self, moment: float) -> None:
        """Waits for no answer beyond this moment (monotonic seconds): later requests fail."""
        self._transport.ends = moment

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def decide_on_clock(self, patience: Patience) -> None:
        """Requests once more if the last answer's `Date` contradicts earlier ones, to decide which is right.  Raises `ApiError`."""
        for _ in range(_CLOCK_TRIES):
            if not self._shared.clock.disputed:
                return
            for _page in self._page("/sessions", {"active": "true"}, patience, RECORDS, optional=False):
                pass
        raise ApiError("the Date of 100ms's answers contradicts itself")

    def time_at(self, sent: int) -> int:
        """The lower bound of the API's time (µs) at a moment of our steady clock; this machine's time if the API sends none."""
        known = self._shared.clock.at(sent)
        return known if known is not None else time.time_ns() // 1000 - (self._shared.steady() - sent)

    def pages(
        self, route: str, parameters: dict[str, str], patience: Patience, envelope: Envelope = RECORDS, *, optional: bool = False
    ) -> Iterator[Page]:
        """The pages of a list, newest records first; one of more than 64 MiB in several parts.  Raises `ApiError`, at any page.

        The page size is the client's own, unless `parameters` hold a `limit`.  A part may come again when the rest of its page had to be
        requested again.
        """
        asked: set[tuple[tuple[str, str], ...]] = set()
        ends: set[int] = set()
        wanted = parameters
        for _ in range(_MOST_PAGES):
            page = Page(None)
            for page in self._page(route, wanted, patience, envelope, optional=optional):
                yield page
            following = envelope.following(page, wanted)
            if following is None:
                return
            wanted = following
            cursor = tuple(sorted(wanted.items()))
            if cursor in asked:
                raise ApiError(f"{route}: the list does not end: its cursor repeats")
            asked.add(cursor)
            # A broken server may repeat old records forever, with a new cursor each time.
            end = hash(bytes(page.data[-1])) if page.data else 0
            if end in ends:
                raise ApiError(f"{route}: the list does not end: its pages repeat")
            ends.add(end)
        raise ApiError(f"{route}: the list does not end")

    def record(self, route: str, identifier: str, patience: Patience, *, optional: bool = False) -> bytes:
        """One record, undecoded. Raises `NotFound` or another `ApiError`, also for an answer that is not this record."""
        read = functools.partial(_read_record, identifier)
        [body] = self._get(f"{route}/{{id}}", f"{route}/{quote(identifier, safe='')}", {}, patience, read, optional=optional)
        return bytes(body)

    def _page(self, route: str, parameters: dict[str, str], patience: Patience, envelope: Envelope, *, optional: bool) -> Iterator[Page]:
        """One page, of a size that the server accepts: it may refuse a size that the documentation allows."""
        sizes = self._shared.page_sizes(route)
        fixed = parameters.get("limit")
        size = sizes.size if fixed is None else int(fixed)
        refused = False
        while True:
            read = functools.partial(_read_page, envelope, fixed is not None or size <= sizes.smallest)
            page = Page(None)
            try:
                for answer in self._get(route, route, {**parameters, "limit": str(size)}, patience, read, optional=optional):
                    page = msgspec.structs.replace(answer, limit=answer.limit or size) if answer.ends else answer
                    yield page
            except TooMuch as error:
                smaller = None if fixed is not None else sizes.smaller(size, error.record_bytes)
                large = error.transport or error.record_bytes is not None
                if large and smaller is not None:
                    sizes.too_large(smaller)
                if smaller is None or (error.transport and time.monotonic() >= patience.until):
                    raise
                refused |= not large
                size = smaller
                continue
            if refused:
                sizes.refused(size)
            if fixed is None:
                sizes.read(page.count, page.size)
            return

    def _get(
        self, endpoint: str, path: str, parameters: dict[str, str], patience: Patience, read: Read, *, optional: bool
    ) -> Iterator[Any]:
        """Requests one answer and reads it with `read`; retries if that may help.  Raises `ApiError`."""
        shared = self._shared
        renewed = False
        tries = 0
        while True:
            token = self._token()
            status, headers, text, error, answer = yield from self._transport.ask(endpoint, path, parameters, token, read)
            if status == 200:
                yield answer
                return
            error = error or failure(endpoint, status, optional=optional)
            if error.refused and not renewed and self._renew(token):
                # This answer has set the clock, and a secret's file may have changed.
                renewed = True
                continue
            if (status and status not in _RETRIED) or isinstance(error, TooMuch) or tries >= shared.config.max_retries:
                raise error
            asked = retry_after(headers, _message(text), shared.now()) if status in (429, 503) else None
            pause = pause_before(tries, asked)
            if time.monotonic() + pause >= patience.until:
                raise error
            tries += 1
            self._transport.wait(pause)
            if asked is not None:
                shared.observer.throttled(pause)
            shared.observer.retry()

    def _token(self) -> str:
        try:
            token = self._shared.tokens.current(self._shared.token_time())
        except ConfigError as error:
            raise ApiError(str(error), refused=True) from error
        if math.isfinite(token.expires):
            self._shared.observer.token_expiry(token.expires, minted=token.minted)
        return token.text

    def _renew(self, refused: str) -> bool:
        try:
            return self._shared.tokens.renew(refused, self._shared.token_time())
        except ConfigError as error:
            raise ApiError(str(error), refused=True) from error


def _read_page(envelope: Envelope, streams: bool, body: Body) -> Iterator[Page]:
    return read_page(envelope, body.chunks(), streams=streams)


def _read_record(identifier: str, body: Body) -> Iterator[bytes]:
    whole = body.whole()
    if record_id(whole) != identifier:
        raise MalformedAnswer("the answer is not the requested record")
    yield whole


class _ErrorBody(msgspec.Struct):
    message: str | None = None


def _message(text: bytes) -> str:
    """The message of an error's answer."""
    try:
        return msgspec.json.decode(text, type=_ErrorBody).message or ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return text.decode(errors="replace") if len(text) < 200 and not text.lstrip().startswith(b"<") else ""
