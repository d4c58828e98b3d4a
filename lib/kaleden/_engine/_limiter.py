"""Admission: how many requests of one client may be on their way at once, and when none may."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from kaleden._results._batch import Failure

INITIAL_LIMIT: Final = 8
"""Requests in flight at first, if the ceiling allows as many."""

DECREASE_FACTOR: Final = 0.7
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
        self._limit = float(min(INITIAL_LIMIT, ceiling))
        self._decreased = -math.inf
        self._probing = True

    @property
    def limit(self) -> int:
        """Requests that may be in flight at once, now."""
        return int(self._limit)

    def record_success(self, in_flight: int) -> None:
        """Hear that a request succeeded, with so many in flight, itself included."""
        # A limit that was not used was not tried either.
        if 2 * in_flight >= self.limit:
            step = 1.0 if self._probing else 1.0 / self._limit
            self._limit = min(float(self.ceiling), self._limit + step)

    def record_overload(self, sent: float, now: float) -> None:
        """Hear that a request met an overload.

        Args:
            sent: when it left.
            now: the time, on the same clock.
        """
        self._probing = False
        if sent > self._decreased:
            self._decreased = now
            if self._limit > 1.0:
                self._limit = max(1.0, self._limit * DECREASE_FACTOR)
                self.decreases += 1


logger = logging.getLogger("kaleden")


@final
@frozen
class LimiterStatistics:
    """The state of the gate through which every request of a client goes.

    Attributes:
        limit: requests that may be in flight at once.
        in_flight: requests in flight now.
        waiting: tasks that wait for their turn.
        paused: seconds for which nothing more leaves, because the server asked for that.
        pauses: how often it did.
        decreases: how often `limit` was lowered because of an overload.
    """

    limit: int
    in_flight: int
    waiting: int
    paused: float = 0.0
    pauses: int = 0
    decreases: int = 0


@final
class Paused(Exception):
    """The gate is paused for longer than the caller has time.

    Args:
        refusal: what the server said when it asked for the pause.
        seconds: how long the pause still takes.
    """

    def __init__(self, refusal: Failure, seconds: float) -> None:
        super().__init__(refusal, seconds)
        self.reason = refusal
        self.seconds = seconds

    def to_failure(self, key: str, elapsed: float) -> Failure:
        """Say so of a request that was not sent."""
        return evolve(
            self.reason, key=key, retry_after=self.seconds, sent=False, attempts=0, elapsed=elapsed
        )


@final
class Limiter:
    """Admits at most *limit* requests at a time.

    One gate serves a whole client, whatever the number of operations on it. It covers one HTTP
    attempt and nothing else: a task that holds it never waits for a consumer or for another turn at
    it. It must be made inside the event loop that uses it.

    While it is paused nobody leaves. Those whose turn has come sit the pause out in their places,
    the others follow in their order; there is no task that keeps the time.

    Args:
        limit: requests that may be in flight at once, at least 1.
        adaptive: whether overloads lower that for a time.

    Attributes:
        ceiling: *limit*, as given.
        adaptive: what lowers it; None where it is fixed.
    """

    __slots__ = (
        "_limiter",
        "_pause_reason",
        "_paused_holders",
        "_pauses",
        "_resumed",
        "_resumes_at",
        "_waiting",
        "adaptive",
        "ceiling",
    )

    def __init__(self, limit: int, *, adaptive: bool = False) -> None:
        self.ceiling: int = limit
        self.adaptive: AdaptiveLimit | None = AdaptiveLimit(limit) if adaptive else None
        self._limiter = anyio.CapacityLimiter(self.adaptive.limit if self.adaptive else limit)
        self._pause_reason: Failure | None = None
        self._resumed = anyio.Event()
        self._resumes_at = 0.0
        self._paused_holders = 0
        self._pauses = 0
        self._waiting: dict[anyio.CancelScope, float] = {}

    @property
    def limit(self) -> int:
        """Requests that may be in flight at once."""
        return int(self._limiter.total_tokens)

    def acquire_nowait(self, holder: object) -> bool:
        """Take a place for *holder* if one is free and nobody waits for it; tell whether it was.

        That needs no trip through the scheduler: the request that follows is a checkpoint.
        """
        if self._pause_reason is not None and self.paused:
            return False

        try:
            self._limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            return False

        return True

    async def acquire(self, holder: object) -> None:
        """Wait for a place that *holder* keeps until it is given back, by whichever task.

        Raises:
            Paused: the pause takes longer than the caller has time; no place is taken.

        Cancellation:
            No place is taken.
        """
        if self._pause_reason is not None:
            # Those who sit it out in front take all the time that the caller has.
            await checkpoint()
            self._check_time()
        while not await self._queue(holder):
            self._check_time()
        try:
            await self.wait_resumed()
        except BaseException:
            self.release(holder)
            raise

    async def _queue(self, holder: object) -> bool:
        """Wait for a place; tell whether there is one, or the pause has become too long."""
        with self._waiting_scope(math.inf) as scope:
            await self._limiter.acquire_on_behalf_of(holder)
        return not scope.cancelled_caught

    @contextmanager
    def _waiting_scope(self, until: float) -> Generator[anyio.CancelScope]:
        """Wait until then, or until a pause takes longer than the caller has time."""
        deadline = anyio.current_effective_deadline()
        with anyio.CancelScope(deadline=until) as scope:
            self._waiting[scope] = deadline
            try:
                yield scope
            finally:
                del self._waiting[scope]

    def release(self, holder: object) -> None:
        """Give back the place of *holder*."""
        self._limiter.release_on_behalf_of(holder)

    # --- pauses ----------------------------------------------------------------------------------

    def pause(self, until: float, refusal: Failure) -> None:
        """Let nobody pass until then; a pause that is longer already stays.

        Args:
            until: a time of the event loop's clock.
            refusal: what the server said.
        """
        if self.paused:
            self._resumes_at = max(self._resumes_at, until)
        else:
            self._resumes_at = until
            self._pauses += 1
            left = until - anyio.current_time()
            logger.warning("nothing is sent for %.3g seconds: %s", left, refusal.message)
        self._pause_reason = refusal
        for scope, deadline in self._waiting.items():
            if deadline < self._resumes_at:
                scope.cancel()

    def resume(self) -> None:
        """End a pause now."""
        self._pause_reason = None
        self._resumed.set()
        self._resumed = anyio.Event()

    async def wait_resumed(self) -> None:
        """Wait until the gate is not paused, for a caller who has a place.

        Raises:
            Paused: the caller's deadline comes first.
        """
        while self._pause_reason is not None and self.paused:
            self._check_time()
            await self._wait_in_slot()

    def _check_time(self) -> None:
        """Refuse a caller who has less time than the pause takes."""
        left, refusal = self.paused, self._pause_reason
        if refusal is not None and anyio.current_effective_deadline() < self._resumes_at:
            raise Paused(refusal, left)

    async def _wait_in_slot(self) -> None:
        self._paused_holders += 1
        try:
            with self._waiting_scope(self._resumes_at):
                await self._resumed.wait()
        finally:
            self._paused_holders -= 1

    @property
    def paused(self) -> float:
        """Seconds that a pause still takes; 0 without one."""
        if self._pause_reason is None:
            return 0.0

        left = self._resumes_at - anyio.current_time()
        if left > 0.0:
            return left

        self._pause_reason = None
        return 0.0

    # --- overloads -------------------------------------------------------------------------------

    def record_success(self) -> None:
        """Hear that a request has succeeded, while its place is still held."""
        if self.adaptive is not None:
            self.adaptive.record_success(self._limiter.borrowed_tokens)
            self._resize(self.adaptive.limit)

    def record_overload(self, sent: float) -> None:
        """Hear that a request, sent at that time, has met an overload."""
        if self.adaptive is not None:
            self.adaptive.record_overload(sent, anyio.current_time())
            self._resize(self.adaptive.limit)

    def _resize(self, limit: int) -> None:
        if limit != self._limiter.total_tokens:
            self._limiter.total_tokens = limit

    def statistics(self) -> LimiterStatistics:
        """Tell the gate's state now; a pause only inside the event loop, whose clock it is on."""
        try:
            paused = self.paused
        except anyio.NoEventLoopError:
            paused = 0.0
        decreases = 0 if self.adaptive is None else self.adaptive.decreases
        return LimiterStatistics(self.limit, *self._tasks(), paused, self._pauses, decreases)

    def __repr__(self) -> str:
        in_flight, waiting = self._tasks()
        return f"<Limiter {in_flight}/{self.limit} in flight, {waiting} waiting>"

    def _tasks(self) -> tuple[int, int]:
        """Count the requests in flight, and the tasks that wait, in their places or for one."""
        state = self._limiter.statistics()
        return (
            state.borrowed_tokens - self._paused_holders,
            state.tasks_waiting + self._paused_holders,
        )
