"""Sending together what several tasks have to send.

Behind each `send` the kernel carries the bytes on, wakes who waits for them, and leaves caches that
know nothing of the program. With many requests at once that costs more than all the rest of an
exchange. So what comes to be sent in one turn of the event loop leaves at its end, one right behind
the other.
"""

from __future__ import annotations

from typing import Final, final

from anyio.lowlevel import checkpoint

from kaleden._http._connection import Connection

SMALL: Final = 2**14
"""Bytes that a socket without anything in it takes at once, as a rule."""


@final
class Outbox:
    """Requests that leave at the end of a turn of the event loop.

    Whoever is the first of a turn waits for its end, and sends for all. The others go on at once:
    to wait for their replies.
    """

    __slots__ = ("_mail",)

    def __init__(self) -> None:
        self._mail: list[tuple[Connection, bytes]] = []

    async def send(self, connection: Connection, data: bytes) -> None:
        """Send *data*, or have it sent; if that fails the connection ends, as `read` will tell.

        Args:
            connection: one that has nothing left to send.
            data: a whole request, which a server may as well get twice.

        Cancellation:
            *data* is not sent if it was to be sent here; what others have put in is.
        """
        self._mail.append((connection, data))
        if len(self._mail) > 1:
            return

        try:
            await checkpoint()
        except BaseException:
            del self._mail[0]
            raise
        finally:
            mail, self._mail = self._mail, []
            for each, request in mail:
                each.write_or_end(request)
