"""Waiting for bytes."""

from __future__ import annotations

import select
import socket
import ssl
import sys
from typing import Final, Protocol, final

import anyio

PIECE: Final = 64 * 2**10
"""Bytes read at a time; more than a TLS record holds, so that none stays behind in OpenSSL."""

NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError)
"""What a socket raises that has nothing to give yet."""


class Reader(Protocol):
    """Reads from one socket, for one task at a time."""

    async def read(self) -> bytes:
        """Wait for bytes, and take them.

        Returns:
            What has come; nothing if the other side has closed.

        Raises:
            OSError: the connection is broken; or, `ssl.SSLWantWriteError`, TLS has to write first.

        Cancellation:
            What was read may be lost: the connection is to be closed.
        """
        ...

    def close(self) -> None:
        """Let go of the socket: before it is closed, or waited for by other means."""
        ...


@final
class AnyioReader:
    """Reads from a socket, on whatever backend; see `Reader`."""

    __slots__ = ("_socket",)

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def read(self) -> bytes:
        """Wait for bytes, and take them."""
        while True:
            # A reply is never there at once, so to try first would be in vain.
            await anyio.wait_readable(self._socket)
            try:
                return self._socket.recv(PIECE)
            except NOT_NOW:
                continue

    def close(self) -> None:
        """Let go of the socket."""


def new_poll(connected: socket.socket, *, readable: bool) -> select.poll | None:
    """Prepare to ask for the state of a socket, at a third of the time that a read in vain takes.

    Args:
        connected: the socket.
        readable: whether bytes and the end are reported; errors always are.

    Returns:
        An object to poll; None on Windows, which has none.
    """
    if sys.platform == "win32":
        return None

    poll = select.poll()
    poll.register(connected, select.POLLIN if readable else 0)
    return poll
