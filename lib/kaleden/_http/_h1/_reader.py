"""Reading from a socket."""

from __future__ import annotations

import select
import socket
import ssl
import sys
from typing import Final, Protocol

PIECE: Final = 64 * 2**10
"""Bytes per read; more than a TLS record holds, so that nothing stays in OpenSSL's buffer."""

NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError)
"""The exceptions of a socket that has no bytes yet."""


class Reader(Protocol):
    """Reads from one socket, for one task at a time."""

    async def read(self) -> bytes:
        """Wait for bytes and return them.

        Returns:
            The bytes received; empty if the other side has closed.

        Raises:
            OSError: the connection is broken; or, `ssl.SSLWantWriteError`, TLS has to write first.

        Cancellation:
            Bytes may be lost: close the connection.
        """
        ...

    def close(self) -> None:
        """Stop watching the socket, before it is closed or waited for by other means."""
        ...


def new_poll(connected: socket.socket, *, readable: bool) -> select.poll | None:
    """Prepare queries of a socket's state, at a third of the cost of a read that finds nothing.

    Args:
        connected: the socket.
        readable: whether to report bytes and the end of the stream; errors are always reported.

    Returns:
        An object to poll; None on Windows, which has none.
    """
    if sys.platform == "win32":
        return None

    poll = select.poll()
    poll.register(connected, select.POLLIN if readable else 0)
    return poll
