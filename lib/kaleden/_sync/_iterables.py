"""The caller's iterables, consumed in the thread of the caller."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, Final, Self, cast, final

import anyio

from kaleden._engine._targets import Ids, Members, as_keys
from kaleden._sessions._monitor._wait import Until

_DRAW_SECONDS: Final = 0.005
"""Seconds after which a slow iterable is interrupted, to pass on the ids drawn so far."""


def draw_ids(ids: Ids) -> Ids:
    """Consume *ids* in this thread, in which the caller's generator has to run.

    An asynchronous iterable is returned as it is: it can be consumed only in the event loop.
    """
    keys = as_keys(ids)
    return keys if isinstance(keys, AsyncIterable) else list(keys)


def draw_members(ids: Members) -> Members:
    """Consume the members of a scope in this thread."""
    return list(cast("Iterable[Any]", as_keys(ids)))


def draw_until(until: Until) -> Until:
    """Consume the statuses to wait for in this thread."""
    if isinstance(until, str) or callable(until):
        return until

    # Anything but an iterable is left to the check of the asynchronous method.
    return list(until) if hasattr(until, "__iter__") else until


@final
class Feed:
    """Ids that a thread adds in slices, as an asynchronous iterable in the event loop.

    Attributes:
        is_complete: whether no more will be added.
    """

    def __init__(self) -> None:
        self.is_complete: bool = False
        self._ids = deque[Any]()
        self._added: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Iterable[Any], *, is_complete: bool) -> None:
        """Add ids; called in the event loop."""
        self._ids.extend(ids)
        self.is_complete = is_complete
        if self._added is not None:
            self._added.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._ids:
            if self.is_complete:
                raise StopAsyncIteration

            self._added = anyio.Event()
            await self._added.wait()

        return self._ids.popleft()


@final
class IdSupply:
    """Draws ids from the caller's iterable in its thread, as many as the event loop can work on.

    Args:
        keys: the caller's iterable.
        limit: returns how many requests may be in flight; called in the event loop.

    Attributes:
        feed: receives the ids in the event loop.
    """

    def __init__(self, keys: Iterable[Any], limit: Callable[[], int]) -> None:
        self.feed: Feed = Feed()
        self._iterator = iter(keys)
        self._limit = limit
        self._drawn = deque[Any]()
        self._is_exhausted = False
        self._wanted = 0

    def draw(self) -> None:
        """Draw the wanted ids, in the thread; fewer if they come slowly, but at least one.

        Each is stored at once, so an error or Ctrl-C loses none.
        """
        if len(self._drawn) >= self._wanted:
            return

        stop = time.monotonic() + _DRAW_SECONDS
        for item in self._iterator:
            self._drawn.append(item)
            if len(self._drawn) >= self._wanted or time.monotonic() > stop:
                return

        self._is_exhausted = True

    def deliver(self) -> bool:
        """Move the drawn ids to the feed, in the event loop; return whether it wants more."""
        self.feed.add(self._drawn, is_complete=self._is_exhausted)
        self._drawn.clear()
        self.update_wanted()
        return self._wanted > 0 and not self._is_exhausted

    def update_wanted(self) -> None:
        """Count, in the event loop, how many more ids it can work on."""
        self._wanted = self._limit() - len(self.feed)
