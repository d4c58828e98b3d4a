"""Sending together what several tasks have to send.

A `send` goes all the way through the kernel, as far as waking the server if that is on the same
machine, and that can cost more than all the rest of an exchange. So what comes to be sent in one
turn of the event loop leaves at its end, or as soon as it is a good deal, one right behind the
other: who was woken by the first is awake for the rest.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, final

from anyio.lowlevel import checkpoint

from kaleden._http._h1._connection import Connection

MAX_BATCH: Final = 32
"""Requests that leave together: with more, a server would wait while this side is at work."""

MAX_BATCHED_BYTES: Final = 2**14
"""Bytes that a socket without anything in it takes at once, as a rule."""


@final
class WriteBatcher:
    """Requests that leave at the end of a turn of the event loop.

    Whoever is the first of a turn waits for its end, and sends for all. The others go on at once:
    to wait for their replies.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: list[tuple[Connection, bytes]] = []

    async def send(self, connection: Connection, data: bytes) -> None:
        """Send *data*, or have it sent; if that fails the connection ends, as `read` will tell.

        Args:
            connection: one that has nothing left to send.
            data: a whole request, which a server may as well get twice.

        Cancellation:
            *data* is not sent if it was to be sent here; what others have put in is.
        """
        letter = (connection, data)
        self._pending.append(letter)
        if len(self._pending) == MAX_BATCH:
            self._send_all()
        if len(self._pending) != 1:
            return

        try:
            await checkpoint()
        except BaseException:
            # Unless it has left with many others.
            with suppress(ValueError):
                self._pending.remove(letter)
            raise
        finally:
            self._send_all()

    def _send_all(self) -> None:
        mail, self._pending = self._pending, []
        for connection, data in mail:
            connection.write_or_end(data)
