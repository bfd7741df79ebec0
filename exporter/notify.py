"""Tells a supervisor such as systemd that the exporter listens, still works, or stops.

The protocol is one datagram to the socket that NOTIFY_SOCKET names (sd_notify); without that variable nothing is sent.
"""

from __future__ import annotations

import os
import socket


def tell(state: str) -> None:
    """Sends a state such as `READY=1`.  Errors are ignored, because a supervisor need not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            # Linux writes the name of an abstract socket with a leading zero byte.
            channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            return
