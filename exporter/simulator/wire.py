"""Writes a response to a socket: intact, or broken as a fault demands."""

from __future__ import annotations

import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from exporter.simulator.faults import Fault, phrase

_BLOCK: Final = 1 << 20
_UNREACHABLE_LENGTH: Final = 1 << 40
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class Wire:
    """The sending side of one connection.  `stopping` ends every wait of a fault."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    def send(self, status: int, headers: Mapping[str, str], body: bytes, fault: Fault | None) -> bool:
        """Sends the response; returns whether the connection can serve another call.  Raises `OSError` if the client is gone."""
        length = len(body)
        match fault.kind if fault is not None else None:
            case None:
                pass
            case "reset":
                return self.reset()
            case "reset_in_headers":
                head = _head(status, headers, length)
                self._connection.sendall(head[: len(head) // 2])
                return self.reset()
            case "reset_in_body":
                self._connection.sendall(_head(status, headers, length) + body[: length // 2])
                return self.reset()
            case "cut_short":
                self._connection.sendall(_head(status, headers, length + 1) + body[: length // 2])
                return False
            case "trickle_headers":
                assert fault is not None
                return self._trickle(_head(status, headers, length), fault.seconds) and self._sent(body)
            case "trickle_body":
                assert fault is not None
                self._connection.sendall(_head(status, headers, _UNREACHABLE_LENGTH))
                self._trickle(body, fault.seconds)
                while self._trickle(b" ", fault.seconds):
                    pass
                return False
            case "huge_body":
                assert fault is not None
                return self._generated(status, headers, fault.size)
            case "gzip_bomb":
                assert fault is not None
                return self._bomb(status, headers, fault.size)
            case _:
                pass
        return self._sent(_head(status, headers, length) + body)

    def reset(self) -> bool:
        """Ends the connection with a TCP reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Not close(): that would wait for the reading side's file object, and then end the connection normally.
        os.close(self._connection.detach())
        return False

    def _sent(self, data: bytes) -> bool:
        self._connection.sendall(data)
        return True

    def _trickle(self, data: bytes, pause: float) -> bool:
        for index in range(len(data)):
            if self._stopping.wait(pause):
                return False
            self._connection.sendall(data[index : index + 1])
        return True

    def _generated(self, status: int, headers: Mapping[str, str], size: int) -> bool:
        self._connection.sendall(_head(status, headers, size))
        for block in _blank_page(size):
            if self._stopping.is_set():
                return False
            self._connection.sendall(block)
        return True

    def _bomb(self, status: int, headers: Mapping[str, str], size: int) -> bool:
        """Compresses while sending: a block of spaces that is flushed alone compresses to the same bytes each time."""
        self._connection.sendall(_head(status, {**headers, "Content-Encoding": "gzip", "Connection": "close"}, None) + _GZIP_HEADER)
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        checksum = 0
        for block in _blank_page(size):
            if self._stopping.is_set():
                return False
            checksum = zlib.crc32(block, checksum)
            self._connection.sendall(squeeze.compress(block))
        self._connection.sendall(squeeze.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))
        return False


def _blank_page(size: int) -> Iterator[bytes]:
    """An empty page of this many bytes, padded with spaces, one block at a time."""
    opening, closing = b'{"limit":10,"data":[', b"]}"
    yield opening
    blanks = b" " * _BLOCK
    left = size - len(opening) - len(closing)
    while left > 0:
        yield blanks[: min(left, _BLOCK)]
        left -= _BLOCK
    yield closing


def _head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
