"""The observer of every request: the exporter's own metrics, or nobody."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Hears of every request, for the exporter's own metrics."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """A request to a route ended, with an HTTP status or `timeout`, `connection`, `malformed`."""

    def retry(self) -> None:
        """A request is about to be tried again."""

    def throttled(self, seconds: float) -> None:
        """100ms asked for a pause of this length, and the client waited."""

    def clock_skew(self, seconds: float) -> None:
        """The API's clock minus ours."""

    def token_expiry(self, timestamp: float, *, minted: bool) -> None:
        """When the token in use expires (Unix time of the API), and whether it was minted here."""


class Unobserved:
    """An `Observer` that ignores what it is told."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """Nothing."""

    def retry(self) -> None:
        """Nothing."""

    def throttled(self, seconds: float) -> None:
        """Nothing."""

    def clock_skew(self, seconds: float) -> None:
        """Nothing."""

    def token_expiry(self, timestamp: float, *, minted: bool) -> None:
        """Nothing."""
