"""Management tokens: minted from a workspace's key pair, or ready-made; renewed in time and when refused."""

from __future__ import annotations

import threading
import uuid
from typing import NamedTuple

import jwt

from exporter.config.config import ConfigError, KeyPair, ManagementToken

LIFE = 24 * 3600
"""Lifetime of a minted token in seconds, as in 100ms's own SDK."""
_EARLY = 10
"""A token is valid from this many seconds ago, to allow for small clock differences."""
_RENEW_BEFORE = 3600


class Token(NamedTuple):
    """A token, its expiry (Unix time by the API's clock; infinite when it does not say), and whether it was minted here."""

    text: str
    expires: float
    minted: bool


class Tokens:
    """The current token, for any thread.  A secret in a file is read again for each new token."""

    def __init__(self, credentials: KeyPair | ManagementToken) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._token: Token | None = None

    def current(self, now: int) -> Token:
        """The token to use at `now` (Unix seconds of the API).  Raises `ConfigError` if a secret cannot be read, or cannot sign."""
        with self._lock:
            if self._token is None or (isinstance(self._credentials, KeyPair) and self._token.expires - now < _RENEW_BEFORE):
                self._token = self._make(now)
            return self._token

    def renew(self, refused: str, now: int) -> bool:
        """Replaces a token that the API has refused, unless another thread has done so; returns whether there is a new one."""
        with self._lock:
            if self._token is None or self._token.text == refused:
                self._token = self._make(now)
            return self._token.text != refused

    def _make(self, now: int) -> Token:
        if isinstance(self._credentials, ManagementToken):
            text = self._credentials.token.reveal()
            return Token(text, _expiry(text), minted=False)
        claims = {
            "access_key": self._credentials.access_key.reveal(),
            "type": "management",
            "version": 2,
            "jti": str(uuid.uuid4()),
            "iat": now - _EARLY,
            "nbf": now - _EARLY,
            "exp": now + LIFE,
        }
        try:
            text = jwt.encode(claims, self._credentials.secret.reveal(), algorithm="HS256")
        except jwt.PyJWTError:
            raise ConfigError("the secret signs no token: expected the app secret as 100ms shows it, not a key of another kind") from None
        return Token(text, now + LIFE, minted=True)


def _expiry(text: str) -> float:
    """When a ready-made token expires. The signature is not verified: only 100ms has the key."""
    try:
        return float(jwt.decode(text, options={"verify_signature": False})["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return float("inf")
