"""A deadline for a whole request: `requests` and `urllib3` limit only the time between two bytes.

A connection registers its socket; when the deadline passes, a watching thread shuts the socket down, which ends any read
that waits on it, in the headers, in the body or in the TLS handshake.  Looking up the host's name and connecting are within
the deadline too, however many addresses the host has; `urllib3` would give each of them the whole time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

_STOP_IS_SEEN = 0.1
"""How many seconds a wait for a name may continue after a stop."""


class Deadline:
    """One request's deadline; `passed` says that it was cut off.  Times are monotonic seconds."""

    def __init__(self, seconds: float) -> None:
        self.started = time.monotonic()
        """When the request began, moved later by the length of all pauses."""
        self.at = self.started + seconds
        self.passed = False
        self.thread = threading.get_ident()

    def extend(self, seconds: float) -> None:
        """Grants this many seconds from now."""
        self.at = max(self.at, time.monotonic() + seconds)


class Watchdog:
    """Cuts off requests at their deadline, and all of them when stopped."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadlines: dict[int, Deadline] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.lookups: dict[tuple[str, int | None], _Lookup] = {}
        """The names that are being looked up."""

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[Deadline]:
        """Limits the calling thread's request to this time."""
        deadline = Deadline(seconds)
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
                self._deadlines.pop(deadline.thread, None)

    @contextlib.contextmanager
    def paused(self, deadline: Deadline) -> Iterator[None]:
        """Pauses the deadline: within this block the thread may make other requests, over another connection."""
        began = time.monotonic()
        with self._condition:
            self._deadlines.pop(deadline.thread, None)
            connected = self._sockets.pop(deadline.thread, None)
        try:
            yield
        finally:
            with self._condition:
                if connected is not None:
                    self._sockets[deadline.thread] = connected
                pause = time.monotonic() - began
                deadline.started += pause
                deadline.at += pause
                self._deadlines[deadline.thread] = deadline
                if self._stopped and connected is not None:
                    _shut(connected)
                self._condition.notify()

    def left(self) -> float:
        """How many seconds the calling thread's request has left; 0 once it is cut off."""
        with self._condition:
            deadline = self._deadlines[threading.get_ident()]
            return 0.0 if self._stopped or deadline.passed else max(0.0, deadline.at - time.monotonic())

    def guard(self, connected: socket.socket) -> None:
        """The calling thread's requests go over this socket from now on; it may still be connecting."""
        with self._condition:
            self._sockets[threading.get_ident()] = connected
            deadline = self._deadlines.get(threading.get_ident())
            if self._stopped or (deadline is not None and deadline.passed):
                _shut(connected)

    def stop(self) -> None:
        """Cuts off all current and future requests."""
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


class _Lookup:
    """A name being looked up by a thread of its own: the system's resolver has no deadline, and cannot be interrupted."""

    def __init__(self, host: str, port: int | None) -> None:
        self._host = host
        self._port = port
        self._error: Exception | None = None
        self._addresses: list[Any] = []
        self.done = threading.Event()
        threading.Thread(target=self._run, name="lookup", daemon=True).start()

    def _run(self) -> None:
        try:
            self._addresses = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._error = error
        self.done.set()

    def addresses(self) -> list[Any]:
        """The addresses.  Raises the resolver's error."""
        if self._error is not None:
            raise self._error
        return self._addresses


def _look_up(watchdog: Watchdog, host: str, port: int | None) -> list[Any]:
    """The host's addresses, in the time that the request has left.  Raises `OSError`.

    The next request waits for the same lookup if it hangs, so that not every request leaves a thread behind.
    """
    lookup = watchdog.lookups.get((host, port)) or _Lookup(host, port)
    watchdog.lookups[host, port] = lookup
    while not lookup.done.wait(min(_STOP_IS_SEEN, watchdog.left())):
        if not watchdog.left():
            raise TimeoutError
    watchdog.lookups.pop((host, port), None)
    return lookup.addresses()


def _connect(watchdog: Watchdog, connection: urllib3.connection.HTTPConnection) -> socket.socket:
    """A socket connected to one of the host's addresses, in the time that the request has left.  Raises `OSError`.

    Each address has an equal share of that time, so that one which never answers leaves time for the next.
    """
    addresses = _look_up(watchdog, connection.host.strip("[]"), connection.port)
    fault = OSError("the host has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        seconds = watchdog.left() / (len(addresses) - number)
        if not seconds:
            raise TimeoutError
        try:
            connecting = socket.socket(family, kind, protocol)
        except OSError as error:  # for example IPv6 on a machine without it
            fault = error
            continue
        try:
            for option in connection.socket_options or ():
                connecting.setsockopt(*option)
            _connect_to(address, connecting, watchdog, seconds)
        except OSError as error:
            connecting.close()
            fault = error
        else:
            return connecting
    raise fault


def _connect_to(address: Any, connecting: socket.socket, watchdog: Watchdog, seconds: float) -> None:
    connecting.setblocking(False)
    code = connecting.connect_ex(address)
    # A socket can be shut down only once it connects: from here on the watchdog can end the wait.
    watchdog.guard(connecting)
    if code == errno.EINPROGRESS:
        with selectors.DefaultSelector() as selector:
            selector.register(connecting, selectors.EVENT_WRITE)
            if not selector.select(seconds):
                raise TimeoutError
        code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


class GuardedAdapter(requests.adapters.HTTPAdapter):
    """An adapter of `requests` whose connections register their sockets with the watchdog."""

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
                # Private to urllib3, but the only place where the socket can be ours: `connect` returns after all addresses have
                # been tried and after the TLS handshake, in which a server can stall as well.
                try:
                    connected = _connect(watchdog, self)
                except socket.gaierror as error:
                    raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
                except TimeoutError as error:
                    raise urllib3.exceptions.ConnectTimeoutError(self, "no address answered in time") from error
                except OSError as error:
                    raise urllib3.exceptions.NewConnectionError(self, "no address could be connected to") from error
                connected.settimeout(self.timeout)
                return connected

        class Secure(Plain, urllib3.connection.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                if self.sock is not None:
                    watchdog.guard(self.sock)

        class PlainPool(urllib3.connectionpool.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.connectionpool.HTTPSConnectionPool):
            ConnectionCls = Secure

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
