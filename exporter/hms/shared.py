"""What the threads of one workspace share of the API: its clock, the token, the rate, the page sizes, the stop signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from exporter.config.config import ApiConfig, KeyPair, ManagementToken
from exporter.hms.clock import ApiClock
from exporter.hms.observer import Observer
from exporter.hms.pace import Rate
from exporter.hms.sizes import PageSizes
from exporter.hms.tokens import Tokens
from exporter.hms.watchdog import Watchdog
from exporter.times import SECOND


def steady_micros() -> int:
    """The machine's steady clock (µs): setting the time does not change it, and if the system allows, it runs while suspended."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class Shared:
    """What the threads of one workspace share."""

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
        self.heard = time.monotonic()
        """When a request last ended or a part of an answer arrived: a requesting thread's sign of life."""
        self.watchdog = Watchdog()
        self._page_sizes: dict[str, PageSizes] = {}
        self._base = urlsplit(config.base_url)

    def stop(self) -> None:
        """Ends every request and wait at once with an `ApiError`; no request follows."""
        self.stopped.set()
        self.watchdog.stop()

    def page_sizes(self, route: str) -> PageSizes:
        """The known page sizes of a route."""
        return self._page_sizes.setdefault(route, PageSizes(self.config.page_size))

    def is_ours(self, url: str) -> bool:
        """Whether the token may be sent to this host."""
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == (self._base.scheme, self._base.netloc)

    def now(self) -> int:
        """The API's time (µs), from its `Date`; before the first answer, this machine's."""
        known = self.clock.at(self.steady())
        return known if known is not None else time.time_ns() // 1000

    def token_time(self) -> int:
        """The time (Unix seconds) for which tokens are made."""
        told = self.clock.at_last_told(self.steady())
        return (told if told is not None else time.time_ns() // 1000) // SECOND

    def skew(self) -> float:
        """The API's clock minus this machine's, in seconds; 0 before the first answer."""
        return (self.now() - time.time_ns() // 1000) / SECOND
