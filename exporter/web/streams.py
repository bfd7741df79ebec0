"""A connection's bytes, plain or under TLS: when `write` returns, the kernel has them, and nothing is buffered here.

asyncio's own TLS holds 256 KiB for each connection, even an idle one; this holds next to nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
Buffer = bytes | memoryview

READ_BYTES = 4096
ENCRYPT_BYTES = 64 * 1024  # at once: the most that waits in memory for a slow client


class Stream:
    """A connected socket.  All its methods raise `OSError` when the connection fails; one reads or writes at a time."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The client's verified certificate, as from `ssl.SSLSocket.getpeercert`; None or empty without one."""
        return None

    async def handshake(self) -> None:
        """Do what comes before the first byte: nothing, for a plain connection."""

    async def read(self) -> bytes:
        """The next few bytes, none when the client will send no more."""
        return await self._loop.sock_recv(self._socket, READ_BYTES)

    async def write(self, buffers: Sequence[Buffer]) -> None:
        """Send all of these, at most 1024."""
        rest = [memoryview(buffer) for buffer in buffers if buffer]
        while rest:
            try:
                sent = self._socket.sendmsg(rest)
            except (BlockingIOError, InterruptedError):
                await self._writable()
            else:
                rest = _beyond(rest, sent)

    async def _writable(self) -> None:
        """Return when the kernel takes more, or the connection has failed."""
        ready = self._loop.create_future()
        self._loop.add_writer(self._socket, _settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._socket)

    async def end(self) -> None:
        """Tell the client that no more will come; what it still sends can be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class TlsStream(Stream):
    """A connected socket whose client speaks TLS."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(connected)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The client's verified certificate, as from `ssl.SSLSocket.getpeercert`; None or empty without one."""
        return self._tls.getpeercert()

    async def handshake(self) -> None:
        """Agree on keys; afterwards the client's certificate is known."""
        await self._feeding(self._tls.do_handshake)

    async def read(self) -> bytes:
        """The next few bytes, none when the client will send no more."""
        try:
            return await self._feeding(lambda: self._tls.read(READ_BYTES))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def write(self, buffers: Sequence[Buffer]) -> None:
        """Send all of these."""
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                free = ENCRYPT_BYTES - self._outgoing.pending
                if free > 0:
                    rest = rest[self._tls.write(rest[:free]) :]
                else:
                    await self._flush()
        await self._flush()

    async def end(self) -> None:
        """Tell the client that no more will come; what it still sends can be read."""
        with suppress(ssl.SSLError):  # the client has not closed its side yet, which is not waited for
            self._tls.unwrap()
        await self._flush()
        await super().end()

    async def _feeding(self, call: Callable[[], T]) -> T:
        """The result of `call`, repeated with what the client sends for as long as it wants more."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self._flush()
                received = await super().read()
                if received:
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                await self._flush()  # the alert that tells the client why
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await super().write([self._outgoing.read()])


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _beyond(buffers: list[memoryview], sent: int) -> list[memoryview]:
    """The rest of these buffers after the first `sent` bytes."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [buffer[sent:], *buffers[index + 1 :]]
        sent -= len(buffer)
    return []
