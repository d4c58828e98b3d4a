"""What callers give is run in their own threads: iterables of ids, above all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final, Self, final

import anyio

from kaleden._engine._targets import Ids, Members, as_keys
from kaleden._results._batch import Outcomes
from kaleden._sessions._monitor._wait import Until
from kaleden._wire import SessionInfo

_SPELL: Final = 0.005
"""Seconds of drawing after which the event loop gets what there is."""


def drawn(ids: Ids) -> Ids:
    """Draw all ids in this thread, where the caller's generator belongs.

    An asynchronous iterable can only be drawn from in the event loop.
    """
    keys = as_keys(ids)
    return keys if isinstance(keys, AsyncIterable) else list(keys)


def drawn_members(ids: Members) -> Members:
    """Draw all members of a scope in this thread."""
    if isinstance(ids, str | SessionInfo):
        return [ids]

    return ids.ids if isinstance(ids, Outcomes) else list(ids)


def drawn_goal(until: Until) -> Until:
    """Draw what is waited for in this thread."""
    if isinstance(until, str) or callable(until):
        return until

    # What is no iterable is refused where the other arguments are.
    return list(until) if hasattr(until, "__iter__") else until


@final
class Feed:
    """Ids that come in slices from a thread, as an asynchronous iterable for the event loop.

    Attributes:
        is_whole: whether no more will come.
    """

    def __init__(self) -> None:
        self.is_whole: bool = False
        self._ids = deque[Any]()
        self._news: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, ids: Iterable[Any], *, is_whole: bool) -> None:
        """Take in more; called in the event loop."""
        self._ids.extend(ids)
        self.is_whole = is_whole
        if self._news is not None:
            self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._ids:
            if self.is_whole:
                raise StopAsyncIteration

            self._news = anyio.Event()
            await self._news.wait()

        return self._ids.popleft()


@final
class Source:
    """The caller's iterable, drawn from in his thread, a slice at a time.

    Attributes:
        is_empty: whether nothing is left in it.
    """

    def __init__(self, keys: Iterable[Any]) -> None:
        self._iterator = iter(keys)
        self.is_empty: bool = False

    def draw(self, ids: deque[Any], most: int) -> None:
        """Draw until *ids* has *most*; fewer if they come slowly, but at least one if there is one.

        Each is in *ids* at once, so an error or Ctrl-C loses none.
        """
        stop = time.monotonic() + _SPELL
        for item in self._iterator:
            ids.append(item)
            if len(ids) >= most or time.monotonic() > stop:
                return

        self.is_empty = True
