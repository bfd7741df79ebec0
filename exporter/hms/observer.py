"""The observer of every request, for the exporter's own metrics."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Is notified of every request, for the exporter's own metrics."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """A request to a route ended, with an HTTP status or `timeout`, `connection`, `malformed`."""

    def retry(self) -> None:
        """A request is about to be retried."""

    def throttled(self, seconds: float) -> None:
        """100ms asked for a pause of this length, and the client waited."""

    def clock_skew(self, seconds: float) -> None:
        """The API's clock minus this machine's."""

    def token_expiry(self, timestamp: float, *, minted: bool) -> None:
        """When the current token expires (Unix time of the API), and whether it was minted here."""


class Unobserved:
    """An `Observer` that does nothing."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """Does nothing."""

    def retry(self) -> None:
        """Does nothing."""

    def throttled(self, seconds: float) -> None:
        """Does nothing."""

    def clock_skew(self, seconds: float) -> None:
        """Does nothing."""

    def token_expiry(self, timestamp: float, *, minted: bool) -> None:
        """Does nothing."""
