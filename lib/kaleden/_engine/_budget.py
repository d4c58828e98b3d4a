"""What keeps retries from amplifying: one purse for all repetitions of a client."""

from __future__ import annotations

from typing import final


@final
class RetryBudget:
    """Holds a few repetitions; each first attempt adds a part of one, each repetition takes one.

    However many requests fail at once and however long, after n first attempts no more than
    ``reserve + share * n`` repetitions were granted, and as many over any stretch of time.

    Args:
        reserve: how many it holds at most, and at first.
        share: what part of a repetition a first attempt adds.

    Attributes:
        first: how many first attempts there were; counted by whoever makes them.
        granted: how many repetitions were granted.
        refused: how many were not.
    """

    __slots__ = ("_counted", "_held", "_reserve", "_share", "first", "granted", "refused")

    def __init__(self, reserve: float, share: float) -> None:
        self.first: int = 0
        self.granted: int = 0
        self.refused: int = 0
        self._reserve = self._held = float(reserve)
        self._share = share
        self._counted = 0

    @property
    def held(self) -> float:
        """How many repetitions it holds now."""
        # Reckoned when somebody asks: a request that succeeds pays for one addition only.
        earned = self._share * (self.first - self._counted)
        self._held = min(self._reserve, self._held + earned)
        self._counted = self.first
        return self._held

    def spend(self) -> bool:
        """Take one repetition; tell whether there was one."""
        if self.held < 1.0:
            self.refused += 1
            return False

        self._held -= 1.0
        self.granted += 1
        return True
