"""Trying again: one budget, one source of chance and one rule for all requests of a client."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import anyio
from attrs import evolve, frozen

from kaleden._engine._config import MAX_PAUSE, RetryPolicy, is_transient
from kaleden._engine._limiter import Limiter, Paused
from kaleden._results._batch import Failure, Outcome


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


T = TypeVar("T")

DEADLINE_MARGIN: Final = 0.05
"""Seconds before the caller's deadline at which repetitions end, so that their reason is told."""

_NEVER: Final = RetryPolicy(attempts=1, reserve=0.0, share=0.0)


@final
@frozen
class RetryStatistics:
    """How a client has tried again.

    Attributes:
        first: first attempts, one for each request.
        repeated: attempts after those.
        refused: repetitions for which the budget did not suffice.
        budget: how many more it allows now.
    """

    first: int
    repeated: int
    refused: int
    budget: float


@final
class Retrier:
    """Decides whether a client tries again, and waits until it may.

    Args:
        policy: how often and when; None for never.
        gate: knows of pauses that the server asked for.

    Attributes:
        budget: pays for repetitions.
    """

    def __init__(self, policy: RetryPolicy | None, gate: Limiter) -> None:
        self._policy = policy or _NEVER
        self._limiter = gate
        self._random = random.Random(self._policy.seed)  # noqa: S311  # spreads load, keeps no secret
        self._closed = anyio.Event()
        self.budget: RetryBudget = RetryBudget(self._policy.reserve, self._policy.share)

    def close(self) -> None:
        """Let nobody wait any more, nor try again."""
        self._closed.set()

    async def run(
        self, failure: Failure, started: float, attempt: Callable[[], Awaitable[Outcome[T]]]
    ) -> Outcome[T]:
        """Try again what has failed once, as long as that is worth while.

        Args:
            failure: what became of the first attempt.
            started: when it began.
            attempt: makes one more, for a caller who has a place at the gate.

        Returns:
            A success, or the last failure that an attempt came to.
        """
        attempts = failure.attempts
        # A call that ran into its caller's deadline could not tell why.
        with anyio.CancelScope(deadline=anyio.current_effective_deadline() - DEADLINE_MARGIN):
            while await self.backoff(failure, attempts, started):
                holder = object()
                try:
                    await self._limiter.acquire(holder)
                except Paused:
                    break

                try:
                    attempts += 1
                    outcome = await attempt()
                finally:
                    self._limiter.release(holder)

                if not isinstance(outcome, Failure):
                    return evolve(
                        outcome, attempts=attempts, elapsed=anyio.current_time() - started
                    )

                failure = outcome

        return evolve(failure, attempts=attempts, elapsed=anyio.current_time() - started)

    async def backoff(self, failure: Failure, attempts: int, started: float) -> bool:
        """Sit out the back-off; nobody should hold a place at the gate meanwhile.

        Args:
            failure: what became of the last attempt.
            attempts: how many there were.
            started: when the first of them began.

        Returns:
            Whether to try again, now. If not, nothing was waited for.
        """
        policy = self._policy
        if attempts >= policy.attempts or failure.final:
            return False

        if not is_transient(failure.kind, failure.status):
            return False

        now = anyio.current_time()
        asked = min(failure.retry_after or 0.0, MAX_PAUSE)
        due = now + max(policy.draw_backoff(attempts, self._random), asked, self._limiter.paused)
        if due > min(started + policy.total, anyio.current_effective_deadline() - DEADLINE_MARGIN):
            return False

        if self._closed.is_set() or not self.budget.spend():
            return False

        with anyio.CancelScope(deadline=due):
            await self._closed.wait()

        return not self._closed.is_set()

    def statistics(self) -> RetryStatistics:
        """Tell what was tried again until now."""
        budget = self.budget
        return RetryStatistics(budget.first, budget.granted, budget.refused, budget.held)
