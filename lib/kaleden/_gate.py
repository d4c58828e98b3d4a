"""Admission: how many requests of one client may be on their way at once."""

from __future__ import annotations

from typing import final

import anyio
from attrs import frozen


@final
@frozen
class GateStatistics:
    """The state of a `Gate`.

    Attributes:
        limit: requests that may be in flight at once.
        in_flight: requests in flight now.
        waiting: tasks that wait for their turn.
    """

    limit: int
    in_flight: int
    waiting: int


@final
class Gate:
    """Admits at most *limit* requests at a time.

    One gate serves a whole client, whatever the number of operations on it. It covers one HTTP
    attempt and nothing else: a task that holds it never waits for a consumer or for another turn at
    it. It must be made inside the event loop that uses it.

    Args:
        limit: requests that may be in flight at once, at least 1.
    """

    __slots__ = ("_limiter",)

    def __init__(self, limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)

    @property
    def limit(self) -> int:
        """Requests that may be in flight at once."""
        return int(self._limiter.total_tokens)

    def take_nowait(self, holder: object) -> bool:
        """Take a place for *holder* if one is free and nobody waits for it; tell whether it was.

        That needs no trip through the scheduler: the request that follows is a checkpoint.
        """
        try:
            self._limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            return False

        return True

    async def take(self, holder: object) -> None:
        """Wait for a place that *holder* keeps until it is given back, by whichever task.

        Cancellation:
            No place is taken.
        """
        await self._limiter.acquire_on_behalf_of(holder)

    def give_back(self, holder: object) -> None:
        """Give back the place of *holder*."""
        self._limiter.release_on_behalf_of(holder)

    def statistics(self) -> GateStatistics:
        """Tell the gate's state now."""
        state = self._limiter.statistics()
        return GateStatistics(self.limit, state.borrowed_tokens, state.tasks_waiting)

    def __repr__(self) -> str:
        state = self.statistics()
        return f"<Gate {state.in_flight}/{state.limit} in flight, {state.waiting} waiting>"
