"""Listening sockets: for an address, or handed over by systemd."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

UNSENT_BYTES = 128 * 1024  # in the kernel, for one client
FIRST_INHERITED = 3  # systemd passes its sockets from this descriptor on


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; an empty host means every address, port 0 a free one.  Raises `OSError`.

    If a name has several addresses, an IPv4 address is preferred.
    """
    if host == "":
        if socket.has_dualstack_ipv6():
            try:
                return _bound(socket.AF_INET6, ("::", port), dualstack=True)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 exists but is switched off
                    raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what an empty host asks for
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return _bound(family, address)


def listen_on_all(addresses: Sequence[tuple[str, int]]) -> list[socket.socket]:
    """A listening socket for each address, or none at all.  Raises `OSError` with the address as its `filename`."""
    listeners: list[socket.socket] = []
    for host, port in addresses:
        try:
            listeners.append(listen(host, port))
        except OSError as error:
            for listener in listeners:
                listener.close()
            error.filename = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise
    return listeners


def inherited(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd has opened for this process, as `sd_listen_fds(3)` describes.

    Raises `OSError` when there are none, or when one is not a listening TCP socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        raise OSError(errno.ENOENT, "systemd passed no sockets (LISTEN_PID is not this process); is there a .socket unit?")
    count = environ.get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdigit() or int(count) == 0:
        raise OSError(errno.ENOENT, "systemd passed no sockets (LISTEN_FDS); is there a .socket unit?")
    listeners: list[socket.socket] = []
    try:
        for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
            os.set_inheritable(descriptor, False)
            listener = socket.socket(fileno=descriptor)
            listeners.append(listener)
            is_tcp = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
            if not is_tcp or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, f"descriptor {descriptor} from systemd is not a listening TCP socket (ListenStream=)")
            _prepare(listener)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def told(listener: socket.socket) -> str:
    """The address really listened on, as `host:port` or `[host]:port`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bound(family: int, address: tuple[Any, ...], *, dualstack: bool = False) -> socket.socket:
    listener = socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=dualstack)
    _prepare(listener)
    return listener


def _prepare(listener: socket.socket) -> None:
    listener.setblocking(False)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Connections inherit this: otherwise the kernel buffers megabytes for each client that sends requests and does not read.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
