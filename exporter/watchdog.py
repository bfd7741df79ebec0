"""A deadline for a whole request: `requests` and `urllib3` know only the time between two bytes.

A connection registers its socket; when the deadline passes, a watching thread shuts the socket down, which ends whatever
read is waiting on it, in the headers, in the body or in the TLS handshake.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool


class Deadline:
    """One request's deadline; `passed` tells that it was cut off."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.passed = False
        self.thread = threading.get_ident()


class Watchdog:
    """Cuts off requests at their deadline, and all of them when stopped."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadlines: dict[int, Deadline] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._stopped = False
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[Deadline]:
        """The calling thread's request must be over within this time."""
        deadline = Deadline(time.monotonic() + seconds)
        with self._condition:
            self._deadlines[deadline.thread] = deadline
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
            self._condition.notify()
        try:
            yield deadline
        finally:
            with self._condition:
                del self._deadlines[deadline.thread]

    def guard(self, connected: socket.socket) -> None:
        """The calling thread's requests go over this socket from now on."""
        with self._condition:
            self._sockets[threading.get_ident()] = connected
            deadline = self._deadlines.get(threading.get_ident())
            if self._stopped or (deadline is not None and deadline.passed):
                _shut(connected)

    def stop(self) -> None:
        """Cuts off every request under way, and each that comes after."""
        with self._condition:
            self._stopped = True
            for connected in self._sockets.values():
                _shut(connected)
            self._condition.notify()

    def _watch(self) -> None:
        with self._condition:
            while not self._stopped:
                now = time.monotonic()
                for deadline in self._deadlines.values():
                    if not deadline.passed and deadline.at <= now:
                        deadline.passed = True
                        connected = self._sockets.get(deadline.thread)
                        if connected is not None:
                            _shut(connected)
                waiting = [deadline.at for deadline in self._deadlines.values() if not deadline.passed]
                self._condition.wait(min(waiting) - now if waiting else None)


def _shut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # The plain socket's, also beneath TLS: SSLSocket.shutdown would drop the TLS state that the reading thread uses.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


class GuardedAdapter(requests.adapters.HTTPAdapter):
    """An adapter of `requests` whose connections tell the watchdog of their sockets."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        super().__init__(pool_connections=2, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Makes the pools, of guarded connections."""
        super().init_poolmanager(*args, **kwargs)
        self._guard_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.ProxyManager:
        """Makes the pools behind a proxy, of guarded connections."""
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **kwargs)
        self._guard_pools(manager)
        return manager

    def _guard_pools(self, manager: urllib3.PoolManager) -> None:
        watchdog = self._watchdog

        class Plain(urllib3.connection.HTTPConnection):
            def _new_conn(self) -> socket.socket:
                # The one place where a socket exists before any byte has been read from it; `connect` returns too late,
                # after the TLS handshake, in which a server can stall as well.
                connected = super()._new_conn()
                watchdog.guard(connected)
                return connected

        class Secure(urllib3.connection.HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                connected = super()._new_conn()
                watchdog.guard(connected)
                return connected

            def connect(self) -> None:
                super().connect()
                if self.sock is not None:
                    watchdog.guard(self.sock)

        class PlainPool(urllib3.connectionpool.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.connectionpool.HTTPSConnectionPool):
            ConnectionCls = Secure

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
