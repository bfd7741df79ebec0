"""The checks of a web configuration, before the routes: TLS, client certificates, passwords, the rate limit, headers.

The configuration and its certificates are read again when they change on disk.  A change that cannot be used is logged once, and
the previous configuration stays in force.  Names, passwords and headers never reach the log.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import ipaddress
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import bcrypt

from exporter.config.strict_yaml import ConfigError
from exporter.web import settings as webconfig
from exporter.web.http import Handler, Request, Response, sheltered, text_response
from exporter.web.settings import RateLimit, WebFile
from exporter.web.threads import Workers

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
REMEMBERED_PASSWORDS = 1000
CHECKS_PER_CLIENT = 4

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class _InForce:
    """A web configuration and the TLS context made from it, swapped as one."""

    config: WebFile
    context: ssl.SSLContext | None


class Guard:
    """A web configuration in force.  Used from the server's event loop only, once made."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `ConfigError` when the file, or a certificate it names, cannot be used."""
        self._path = path
        self._clock = clock
        self._passwords = Passwords()
        self._watched: tuple[Path, ...] = ()
        self._stamps: tuple[Stamp, ...] = ()
        self._checked_at = clock()
        self._in_force = self._read()
        self._bucket = TokenBucket(self._in_force.config.rate_limit, clock())

    @property
    def encrypts(self) -> bool:
        """Whether TLS is spoken; fixed for the life of the guard."""
        return self._in_force.context is not None

    def context(self) -> ssl.SSLContext:
        """The TLS context for a connection that begins now."""
        context = self._current().context
        assert context is not None
        return context

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client's certificate, already verified, has one of the allowed names."""
        tls = self._current().config.tls
        if tls is None or not tls.client_allowed_sans:
            return True
        return not tls.client_allowed_sans.isdisjoint(_names(certificate or {}))

    def protect(self, handler: Handler) -> Handler:
        """`handler`, behind the rate limit and the passwords, its answers with the configured headers."""

        async def admitted(request: Request) -> Response:
            return await self._refusal(self._current().config, request) or await handler(request)

        answered = sheltered(admitted)

        async def guarded(request: Request) -> Response:
            response = await answered(request)
            return replace(response, headers={**response.headers, **self._current().config.headers})

        return guarded

    async def _refusal(self, config: WebFile, request: Request) -> Response | None:
        if not self._bucket.take(config.rate_limit, self._clock()):
            return text_response(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests.")
        if config.users and not await self._passwords.admit(config.users, request.headers.get("authorization", ""), request.client):
            return text_response(HTTPStatus.UNAUTHORIZED, "Unauthorized.", {"WWW-Authenticate": "Basic"})
        return None

    def _current(self) -> _InForce:
        now = self._clock()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            if self._stamps != tuple(map(_stamp, self._watched)):
                self._renew()
        return self._in_force

    def _renew(self) -> None:
        try:
            renewed = self._read(encrypted=self.encrypts)
        except ConfigError as error:
            log.error("the web configuration changed and cannot be used, the previous one stays in force: %s", error)  # noqa: TRY400 - one line
        else:
            self._in_force = renewed
            log.info("the web configuration or its certificates changed and are in force")

    def _read(self, *, encrypted: bool | None = None) -> _InForce:
        # Stamps are taken before the files are read, so that a change in between is seen the next time.  They are also taken of
        # files that turn out unusable, so that their repair is seen.
        self._watched, self._stamps = (self._path,), (_stamp(self._path),)
        config = webconfig.load(self._path)
        if encrypted is not None and encrypted != (config.tls is not None):
            raise ConfigError(f"{self._path}: TLS can be switched on or off by a restart only")
        if config.tls is None:
            return _InForce(config, None)
        self._watched += config.tls.files
        self._stamps += tuple(map(_stamp, config.tls.files))
        return _InForce(config, webconfig.tls_context(config.tls))


def check_password(password: bytes, hashed: str) -> bool:
    """Whether a bcrypt hash belongs to a password; takes as long as the hash's cost demands."""
    try:
        return bcrypt.checkpw(password, hashed.encode())
    except ValueError:  # over 72 bytes, which bcrypt refuses
        return False


class TokenBucket:
    """The rate limit: holds `burst` tokens at most, gains one every `interval`, and each request takes one."""

    def __init__(self, limit: RateLimit | None, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst) if limit else 0.0
        self._at = now

    def take(self, limit: RateLimit | None, now: float) -> bool:
        """Whether there was a token to take at `now`, in seconds; a changed limit starts with a full bucket."""
        if limit is None:
            return True
        if limit != self._limit:
            self._limit, self._tokens = limit, float(limit.burst)
        self._tokens = min(float(limit.burst), self._tokens + (now - self._at) / limit.interval)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Passwords:
    """Checks passwords at a cost that a flood of wrong ones cannot raise.

    One check runs at a time, its outcome is remembered, and each client has a few checks waiting at most.  Once Prometheus has
    been admitted, it is admitted without a check; before that it waits behind few.  Failures never push successes out of memory.
    """

    def __init__(self, check: Callable[[bytes, str], bool] = check_password) -> None:
        self._matches = check
        self._key = secrets.token_bytes(32)
        self._admitted: dict[bytes, None] = {}
        self._refused: dict[bytes, None] = {}
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}
        self._workers = Workers("password", threads=1, waiting=64, of_one=CHECKS_PER_CLIENT)

    async def admit(self, users: Mapping[str, str], authorization: str, client: str) -> bool:
        """Whether the header names one of `users` (bcrypt hashes by name).  Raises `BusyError` when too many checks wait."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        name, password = credentials
        known = name in users
        # An unknown name is checked against some user's hash, always the same one: that takes as long as a wrong password.
        hashed = users[name] if known else users[sorted(users)[self._digest(name.encode())[0] % len(users)]]
        attempt = self._digest(name.encode(), hashed.encode(), password, bytes([known]))
        if attempt in self._admitted or attempt in self._refused:
            return attempt in self._admitted
        if attempt not in self._under_way:
            self._under_way[attempt] = asyncio.ensure_future(self._check(attempt, password, hashed, client, known=known))
        return await asyncio.shield(self._under_way[attempt])

    async def _check(self, attempt: bytes, password: bytes, hashed: str, client: str, *, known: bool) -> bool:
        try:
            matches = await self._workers.run(lambda: self._matches(password, hashed), client)
        finally:
            del self._under_way[attempt]
        remembered = self._admitted if known and matches else self._refused
        if len(remembered) >= REMEMBERED_PASSWORDS:
            del remembered[next(iter(remembered))]
        remembered[attempt] = None
        return known and matches

    def _digest(self, *parts: bytes) -> bytes:
        """A keyed hash of the parts, so that no password is kept in memory; the key differs with each process."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = binascii.a2b_base64(encoded.encode("latin-1"), strict_mode=True).partition(b":")
        return (name.decode(), password) if colon else None
    except ValueError:
        return None


def _names(certificate: Mapping[str, Any]) -> set[str]:
    """A certificate's subject alternative names, addresses in their usual spelling."""
    names = set()
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            names.add(name)
        elif kind == "IP Address":
            names.add(str(ipaddress.ip_address(name.strip())))
    return names


def _stamp(path: Path) -> Stamp:
    """A value that changes when the file does, None while it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
