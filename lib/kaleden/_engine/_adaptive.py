"""How many requests a server bears at once, found by trying (AIMD, as TCP does; RFC 5681 §3.1)."""

from __future__ import annotations

import math
from typing import Final, final

START: Final = 8
"""Requests in flight at first, if the ceiling allows as many."""

DECREASE: Final = 0.7
"""What part of the limit is left after an overload."""


@final
class AdaptiveLimit:
    """A limit that gives way to overloads, and comes back.

    It grows by one with each success until the first overload, so that a healthy server is soon
    used in full; after that by one with as many successes as it allows requests. An overload takes
    three tenths away, but only one of each round trip: requests that had left before the last
    decrease tell what was known then. It never falls below 1, at which it is a circuit breaker: one
    request at a time finds out whether the server is back.

    Args:
        ceiling: the most requests in flight, at least 1.

    Attributes:
        ceiling: as given.
        decreases: how often it gave way.
    """

    __slots__ = ("_decreased", "_limit", "_probing", "ceiling", "decreases")

    def __init__(self, ceiling: int) -> None:
        self.ceiling: int = ceiling
        self.decreases: int = 0
        self._limit = float(min(START, ceiling))
        self._decreased = -math.inf
        self._probing = True

    @property
    def limit(self) -> int:
        """Requests that may be in flight at once, now."""
        return int(self._limit)

    def succeeded(self, in_flight: int) -> None:
        """Hear that a request succeeded, with so many in flight, itself included."""
        # A limit that was not used was not tried either.
        if 2 * in_flight >= self.limit:
            step = 1.0 if self._probing else 1.0 / self._limit
            self._limit = min(float(self.ceiling), self._limit + step)

    def overloaded(self, sent: float, now: float) -> None:
        """Hear that a request met an overload.

        Args:
            sent: when it left.
            now: the time, on the same clock.
        """
        self._probing = False
        if sent > self._decreased:
            self._decreased = now
            if self._limit > 1.0:
                self._limit = max(1.0, self._limit * DECREASE)
                self.decreases += 1
