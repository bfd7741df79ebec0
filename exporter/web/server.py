"""A small HTTP/1.1 server for a port that anybody can reach.

h11 speaks the protocol, asyncio moves the bytes, and one thread runs both.  Everything a client can use is limited: the size of
its requests, time, waiting bytes, and the number of connections.  When there are too many connections, those of the address
with the most give way to new ones, so that a newcomer is answered.  The server does not know what it serves: a handler answers
requests.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Sequence

from exporter.web.connection import Connection
from exporter.web.fairness import Shares
from exporter.web.http import Handler, Limits, Refused, Tls, sheltered
from exporter.web.listeners import listen, told
from exporter.web.streams import Stream, TlsStream

log = logging.getLogger(__name__)

COMPLAINT_SECONDS = 60  # between log lines about a lack of descriptors
STALLED_SECONDS = 2  # without an event, after which a connection gives way before newer ones
SHED_AT_ONCE = 16  # connections closed at most when descriptors ran out: if it were one, each waiting client would wait for all before it
RETRY_SECONDS = 0.1  # after descriptors ran out
SWITCH_SECONDS = 0.001  # a computing thread releases the interpreter this often; at Python's default of 0.005 an answer waits longer


class HttpServer:
    """Serves `handler` on the listening sockets from `start` to `stop`, and closes them; `listeners` may come from systemd."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        handler: Handler,
        *,
        tls: Tls | None = None,
        limits: Limits | None = None,
        refused: Refused | None = None,
    ) -> None:
        self._refused = refused
        self._listeners = listeners
        self._handler = sheltered(handler)
        self._tls = tls
        self._limits = limits or Limits()
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._shares = Shares()
        self._silent_until = 0.0
        self.addresses = tuple(map(told, listeners))
        """The addresses really listened on, as `host:port` or `[host]:port`."""

    @classmethod
    def at(cls, host: str, port: int, handler: Handler, *, tls: Tls | None = None, limits: Limits | None = None) -> HttpServer:
        """A server for one address; port 0 takes a free one, an empty host means every address.  Raises `OSError`."""
        return cls([listen(host, port)], handler, tls=tls, limits=limits)

    def start(self) -> None:
        """Serve, in its own thread; from then on, other computing threads release the interpreter more often."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._accepting = [self._loop.create_task(self._accept(listener)) for listener in self._listeners]
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port really listened on, at the first address."""
        return int(self.address.rpartition(":")[2])

    @property
    def address(self) -> str:
        """The first address really listened on, as `host:port` or `[host]:port`."""
        return self.addresses[0]

    def stop(self) -> None:
        """Close everything and return within about a second, whatever clients do; answers in progress get a moment to end."""
        for accepting in self._accepting:
            self._loop.call_soon_threadsafe(accepting.cancel)
        self._thread.join()

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await asyncio.wait(self._accepting)
        for listener in self._listeners:
            listener.close()
        busy = [task for connection, task in self._connections.items() if connection.busy]
        if busy:
            await asyncio.wait(busy, timeout=self._limits.stop_seconds)
        # The runner cancels the rest.

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            await self._knock(listener)
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # gone again
            except OSError as error:
                await self._find_descriptors(error)
                continue
            self._make_room(self._limits.connections)
            self._let_in(accepted, str(address[0]))

    async def _knock(self, listener: socket.socket) -> None:
        """Return when a client waits to be accepted.

        Without descriptors, `accept` fails whether a client waits or not.  Waiting here each time also lets the loop run, so that a
        crowd of new clients does not starve the connected ones.
        """
        loop = asyncio.get_running_loop()
        knocked = asyncio.Event()
        loop.add_reader(listener, knocked.set)
        try:
            await knocked.wait()
        finally:
            loop.remove_reader(listener)

    def _let_in(self, accepted: socket.socket, client: str) -> None:
        try:
            stream = Stream(accepted) if self._tls is None else TlsStream(accepted, self._tls.context())
        except OSError:  # reset already
            accepted.close()
            return
        connection = Connection(stream, client, self._handler, self._tls, self._limits, self._refused)
        # The connection does not refer to its task: a cycle would stay in memory until the garbage collector runs.
        task = self._loop.create_task(connection.run())
        self._connections[connection] = task
        self._shares.take(client)
        task.add_done_callback(lambda _: self._forget(connection))

    def _forget(self, connection: Connection) -> asyncio.Task[None] | None:
        task = self._connections.pop(connection, None)
        if task is not None:
            self._shares.leave(connection.client)
        return task

    async def _find_descriptors(self, error: OSError) -> None:
        """Closes some connections after file descriptors ran out, so that waiting clients can be accepted."""
        now = self._loop.time()
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_SECONDS
            log.warning("cannot accept connections: %s", error.strerror)
        held = len(self._connections)
        self._make_room(held - max(1, min(SHED_AT_ONCE, held // 2)) + 1)
        await asyncio.sleep(RETRY_SECONDS)

    def _make_room(self, most: int) -> None:
        """Close connections until there are fewer than `most`, always of the address with the most.

        Among these, the ones that have stalled go first, idle or in the middle of an answer; then the idle ones, the longest
        idle first.
        """
        while self._connections and len(self._connections) >= most:
            stalled = self._loop.time() - STALLED_SECONDS
            victim = min(self._connections, key=lambda of: (-self._shares.held(of.client), of.since > stalled, of.busy, of.since))
            task = self._forget(victim)
            assert task is not None
            task.cancel()
