"""Retries: one budget, one random source and one loop for all requests of a client."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import anyio
from attrs import evolve, frozen

from kaleden._engine._config import MAX_PAUSE, RetryPolicy, is_transient
from kaleden._engine._limiter import Limiter
from kaleden._engine._timeouts import OwnTimeout
from kaleden._results._batch import Failure, Outcome

T = TypeVar("T")

DEADLINE_MARGIN: Final = 0.05
"""Seconds before the caller's deadline at which retries end, so that the failure is returned."""

_NEVER: Final = RetryPolicy(attempts=1, reserve=0.0, share=0.0)


@final
class RetryBudget:
    """A budget of retries: each first attempt adds a part of one, each retry takes one.

    After n first attempts at most ``reserve + share * n`` retries were granted, however many
    requests fail at once. The same holds over any stretch of time.

    Args:
        reserve: the number of retries that it holds at most, and at first.
        share: the part of a retry that a first attempt adds.

    Attributes:
        first: first attempts so far; counted by the code that makes them.
        granted: retries that were granted.
        refused: retries that were not.
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
        """The number of retries that it holds now."""
        # Computed on demand, so that a request that succeeds costs one addition.
        earned = self._share * (self.first - self._counted)
        self._held = min(self._reserve, self._held + earned)
        self._counted = self.first
        return self._held

    def spend(self) -> bool:
        """Take one retry; return whether there was one."""
        if self.held < 1.0:
            self.refused += 1
            return False

        self._held -= 1.0
        self.granted += 1
        return True


@final
@frozen
class RetryStatistics:
    """The retries of a client.

    Attributes:
        first: first attempts, one for each request.
        repeated: attempts after those.
        refused: retries for which the budget did not suffice.
        budget: retries that it allows now.
    """

    first: int
    repeated: int
    refused: int
    budget: float


@final
class Retrier:
    """Retries failed requests within the policy, the budget and the caller's deadline.

    Args:
        policy: when and how often; None for never.
        limiter: knows of pauses that the server asked for.

    Attributes:
        budget: pays for retries.
    """

    def __init__(self, policy: RetryPolicy | None, limiter: Limiter) -> None:
        self._policy = policy or _NEVER
        self._limiter = limiter
        self._random = random.Random(self._policy.seed)  # noqa: S311  # spreads load, keeps no secret
        self._closed = anyio.Event()
        self.budget: RetryBudget = RetryBudget(self._policy.reserve, self._policy.share)

    def close(self) -> None:
        """End all back-offs, and allow no further retry."""
        self._closed.set()

    async def retry(
        self,
        failure: Failure,
        attempt: Callable[[OwnTimeout], Awaitable[Outcome[T]]],
        *,
        unsent_before: float | None = None,
    ) -> Outcome[T]:
        """Retry a request as long as it fails, and a retry is allowed.

        Args:
            failure: the failure of the first attempt, which has just ended.
            attempt: makes one more attempt, bounded by its argument. A failure of it with 0
                attempts was refused before it was made: then the failure before it is final.
            unsent_before: for requests that must not be repeated: retry only if nothing was sent,
                and only before this time; no attempt is cancelled for the sake of the deadline.

        Returns:
            A success, or the failure of the last attempt.
        """
        attempts, started = failure.attempts, anyio.current_time() - failure.elapsed
        timer, is_idempotent = OwnTimeout(), unsent_before is None
        # The deadline itself would cancel this task, and lose the failure.
        deadline = anyio.current_effective_deadline() - DEADLINE_MARGIN
        with anyio.CancelScope(deadline=deadline if is_idempotent else math.inf) as scope:
            while is_idempotent or not failure.sent:
                timer = OwnTimeout()
                if not await self._wait(failure, attempts, started, unsent_before):
                    break

                outcome = await attempt(timer)
                if not isinstance(outcome, Failure):
                    elapsed = anyio.current_time() - started
                    return evolve(outcome, attempts=attempts + 1, elapsed=elapsed)

                if not outcome.attempts:
                    break

                attempts += 1
                failure = outcome

        attempts += scope.cancelled_caught and timer.is_used
        return evolve(failure, attempts=attempts, elapsed=anyio.current_time() - started)

    async def _wait(
        self, failure: Failure, attempts: int, started: float, deadline: float | None
    ) -> bool:
        """Wait for the back-off, if a retry is allowed.

        Args:
            failure: the failure of the last attempt.
            attempts: the number of attempts so far.
            started: when the first of them began.
            deadline: by default that of the calling task.

        Returns:
            Whether to retry now. If not, nothing was waited for, or the client was closed.
        """
        policy = self._policy
        if not 0 < attempts < policy.attempts or failure.final:
            return False

        if not is_transient(failure.kind, failure.status):
            return False

        now = anyio.current_time()
        asked = min(failure.retry_after or 0.0, MAX_PAUSE)
        due = now + max(policy.draw_backoff(attempts, self._random), asked, self._limiter.paused)
        if deadline is None:
            deadline = anyio.current_effective_deadline()
        if due > min(started + policy.total, deadline - DEADLINE_MARGIN):
            return False

        if self._closed.is_set() or not self.budget.spend():
            return False

        with anyio.CancelScope(deadline=due):
            await self._closed.wait()

        return not self._closed.is_set()

    def statistics(self) -> RetryStatistics:
        """Return the numbers of retries so far."""
        budget = self.budget
        return RetryStatistics(budget.first, budget.granted, budget.refused, budget.held)
