"""The connections of a client: how many are in use, and those that wait to be used again."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, final

import anyio

from kaleden._http._h1._connection import Connection

EXPIRY: Final = 15.0
"""Seconds that a connection is kept idle: less than servers do, Tomcat's 20 seconds among them."""


class Origin(NamedTuple):
    """Where a connection leads to."""

    scheme: str
    host: str
    port: int


@final
class Semaphore:
    """Places for exchanges: a free one is had without a wait, else first come, first served.

    Args:
        count: how many there are.
    """

    __slots__ = ("_count", "_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._waiting: dict[anyio.Event, None] = {}

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return self._count - self._free

    def acquire_nowait(self) -> bool:
        """Take a place if one is free; tell whether it was."""
        if not self._free:
            return False

        self._free -= 1
        return True

    async def acquire(self) -> None:
        """Take a place.

        Cancellation:
            No place is taken.
        """
        if self.acquire_nowait():
            return

        turn = anyio.Event()
        self._waiting[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release()
            else:
                del self._waiting[turn]
            raise

    def release(self) -> None:
        """Give a place back; who has waited longest gets it."""
        if self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.set()
        else:
            self._free += 1


@final
class Pool:
    """Connections to any number of origins.

    A connection belongs to the task that took it, and to nobody else; or it is idle. Of those the
    last one given back goes first, so that the surplus grows old and is closed.

    Args:
        most: connections at most, idle ones included.
        keep: idle connections, at most.
        expiry: seconds after which an idle connection is not used any more.
        clock: tells monotonic seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        keep: int,
        expiry: float = EXPIRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = Semaphore(most)
        self._most = most
        self._keep = keep
        self._expiry = expiry
        self._clock = clock
        self._closed = False
        self._open: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        self._idle_count = 0

    @property
    def open_count(self) -> int:
        """Connections open now, idle ones included."""
        return len(self._open)

    @property
    def in_use_count(self) -> int:
        """Connections that belong to a task now."""
        return len(self._open) - self._idle_count

    @property
    def idle_count(self) -> int:
        """Connections that wait to be used."""
        return self._idle_count

    def acquire(self, origin: Origin, context: ssl.SSLContext | None) -> Connection | None:
        """Take an idle connection, if there is one that is fit for use.

        Args:
            origin: where it must lead to.
            context: what its TLS must have been made with.
        """
        oldest = self._clock() - self._expiry
        while stack := self._idle.get(origin):
            connection = stack.pop()
            self._idle_count -= 1
            if not stack:
                del self._idle[origin]
            if (
                connection.idle_since >= oldest
                and connection.context is context
                and not connection.is_stale()
            ):
                return connection
            self.discard(connection)

        return None

    async def add(self, dial: Callable[[], Awaitable[Connection]]) -> Connection:
        """Make a connection, for a caller who has a place; an idle one makes room for it."""
        while self._idle_count and self._idle_count + self.slots.taken > self._most:
            self._discard_oldest()
        connection = await dial()
        self._open.add(connection)
        return connection

    def release(self, origin: Origin, connection: Connection) -> None:
        """Let a connection wait for its next use."""
        if self._closed or not self._keep:
            self.discard(connection)
            return

        if self._idle_count >= self._keep:
            self._discard_oldest()
        connection.reused = True
        connection.wrote = False
        connection.idle_since = self._clock()
        self._idle_count += 1
        self._idle.setdefault(origin, []).append(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection for good."""
        self._open.discard(connection)
        connection.close()

    def _discard_oldest(self) -> None:
        origin = min(self._idle, key=lambda each: self._idle[each][0].idle_since)
        stack = self._idle[origin]
        self.discard(stack.pop(0))
        self._idle_count -= 1
        if not stack:
            del self._idle[origin]

    def close(self) -> None:
        """Close all idle connections, and those in use when they are given back."""
        self._closed = True
        for stack in self._idle.values():
            for connection in stack:
                self.discard(connection)
        self._idle.clear()
        self._idle_count = 0
