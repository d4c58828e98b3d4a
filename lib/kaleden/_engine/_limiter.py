"""The limiter: bounds the requests in flight of one client, and pauses them for Retry-After."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from kaleden._results._batch import Failure

INITIAL_LIMIT: Final = 8
"""Requests in flight at first, if the ceiling allows that many."""

DECREASE_FACTOR: Final = 0.7
"""The factor by which an overload lowers the limit."""


@final
class AdaptiveLimit:
    """A limit that decreases after overloads, and increases again after successes.

    Until the first overload, each success raises the limit by 1, so that a healthy server is soon
    used in full. After that, a number of successes equal to the limit raises it by 1. An overload
    lowers the limit by three tenths, but only once in each round trip: an overload of a request
    that was sent before the last decrease is ignored. The limit never falls below 1. There it acts
    as a circuit breaker: one request at a time probes whether the server has recovered.

    Args:
        ceiling: the most requests in flight, at least 1.

    Attributes:
        ceiling: the argument.
        decreases: how often the limit was lowered.
    """

    __slots__ = ("_decreased_at", "_limit", "_probing", "ceiling", "decreases")

    def __init__(self, ceiling: int) -> None:
        self.ceiling: int = ceiling
        self.decreases: int = 0
        self._limit = float(min(INITIAL_LIMIT, ceiling))
        self._decreased_at = -math.inf
        self._probing = True

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight at once, now."""
        return int(self._limit)

    def record_success(self, in_flight: int) -> None:
        """Record a success.

        Args:
            in_flight: the requests in flight, this one included.
        """
        # A limit that is less than half used was not tested, so a success is no reason to raise it.
        if 2 * in_flight >= self.limit:
            step = 1.0 if self._probing else 1.0 / self._limit
            self._limit = min(float(self.ceiling), self._limit + step)

    def record_overload(self, sent: float, now: float) -> None:
        """Record an overload.

        Args:
            sent: when the request was sent, on the clock of the event loop.
            now: the time, on the same clock.
        """
        self._probing = False
        if sent > self._decreased_at:
            self._decreased_at = now
            if self._limit > 1.0:
                self._limit = max(1.0, self._limit * DECREASE_FACTOR)
                self.decreases += 1


_IMPATIENCE: Final = 1.0
"""Seconds without a slot after which room is made for a task that is served first."""

logger = logging.getLogger("kaleden")


@final
@frozen
class LimiterStatistics:
    """The state of the limiter through which every request of a client goes.

    Attributes:
        limit: the number of requests that may be in flight at once.
        in_flight: the number of requests in flight now.
        waiting: the number of tasks that wait for a slot, or for the end of a pause.
        paused: seconds for which no more requests are sent, because the server asked for that.
        pauses: how often the server asked for a pause.
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
    """The pause of the limiter ends after the deadline of the caller.

    Args:
        reason: the failure with which the server asked for the pause.
        seconds: seconds until the end of the pause.
    """

    def __init__(self, reason: Failure, seconds: float) -> None:
        super().__init__(reason, seconds)
        self.reason = reason
        self.seconds = seconds

    def to_failure(self, key: str, elapsed: float) -> Failure:
        """Return the failure of a request that was not sent because of the pause."""
        return evolve(
            self.reason, key=key, retry_after=self.seconds, sent=False, attempts=0, elapsed=elapsed
        )


@final
class Limiter:
    """Admits at most *limit* requests at a time.

    One limiter serves all operations of a client. A slot covers one HTTP attempt and nothing else:
    a task that holds a slot never waits for a consumer, or for another slot. A lower limit applies
    to the slots that are taken after it. A limiter must be made inside the event loop that uses it.

    Free slots go to the queued tasks in FIFO order, but those of clean-ups are served first. While
    the limiter is paused, no requests but those of clean-ups are sent, for which a pause may be too
    long. Tasks that hold a slot wait out the pause, unless a clean-up takes their slot; the queued
    tasks follow. No timer task is used.

    Args:
        limit: the number of requests that may be in flight at once, at least 1.
        adaptive: whether overloads lower that limit for a time.

    Attributes:
        ceiling: the argument *limit*.
        adaptive: the adaptive limit; None if the limit is fixed.
    """

    __slots__ = (
        "_first",
        "_limiter",
        "_lost",
        "_pause_reason",
        "_paused_holders",
        "_pauses",
        "_queue",
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
        # The queues of a CapacityLimiter have no priorities, so these are used in their place.
        self._first = OrderedDict[object, anyio.Event]()
        self._queue = OrderedDict[object, anyio.Event]()
        self._pause_reason: Failure | None = None
        self._resumed = anyio.Event()
        self._resumes_at = 0.0
        self._paused_holders = OrderedDict[object, anyio.CancelScope]()
        self._lost = set[object]()
        self._pauses = 0
        self._waiting: dict[anyio.CancelScope, float] = {}

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight at once, now."""
        return int(self._limiter.total_tokens)

    def acquire_nowait(self, holder: object) -> bool:
        """Take a slot for *holder* if one is free, no task is queued, and there is no pause.

        This is not a checkpoint: the request that follows is one.

        Returns:
            Whether a slot was taken.
        """
        if self._queue or self._first or (self._pause_reason is not None and self.paused):
            return False

        try:
            self._limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            return False

        return True

    async def acquire(
        self,
        holder: object,
        deadline: float | None = None,
        *,
        make_room: Callable[[], None] | None = None,
    ) -> None:
        """Wait for a slot, and for the end of a pause.

        Args:
            holder: holds the slot until it is released, by any task.
            deadline: on the clock of the event loop; by default that of the calling task.
            make_room: called for each second without a slot. A task that waits with this is served
                before all that wait without it, and during a pause.

        Raises:
            Paused: the pause ends after the deadline; no slot is taken.

        Cancellation:
            No slot is taken.
        """
        if make_room is not None:
            await self._wait_for_slot(holder, math.inf, make_room)
            return

        if self._pause_reason is not None:
            # Check before queuing: the tasks ahead may hold their slots until the pause ends.
            await checkpoint()
            self._check_deadline(deadline)
        while not (
            await self._wait_for_slot(holder, deadline)
            and await self._wait_resumed(holder, deadline)
        ):
            self._check_deadline(deadline)

    async def _wait_for_slot(
        self,
        holder: object,
        deadline: float | None,
        make_room: Callable[[], None] | None = None,
    ) -> bool:
        """Wait for a slot; return False if a pause has begun that ends after the deadline."""
        queue, granted = self._first if make_room else self._queue, anyio.Event()
        queue[holder] = granted
        self._grant()
        with self._waiting_scope(math.inf, deadline) as scope:
            try:
                if make_room is not None:
                    await _wait_impatiently(granted, make_room)
                await granted.wait()
            except BaseException:
                if granted.is_set():
                    self.release(holder)
                else:
                    del queue[holder]
                raise
        return not scope.cancelled_caught

    def _grant(self) -> None:
        """Give the free slots to queued tasks."""
        while self._first and self._limiter.available_tokens < 1 and self._paused_holders:
            self._take_paused_slot()
        while (queue := self._first or self._queue) and self._limiter.available_tokens >= 1:
            holder, granted = queue.popitem(last=False)
            self._limiter.acquire_on_behalf_of_nowait(holder)
            granted.set()

    @contextmanager
    def _waiting_scope(self, until: float, deadline: float | None) -> Generator[anyio.CancelScope]:
        """Bound a wait by *until*, and by a pause that ends after the deadline."""
        with anyio.CancelScope(deadline=until) as scope:
            self._waiting[scope] = _deadline_or_own(deadline)
            try:
                yield scope
            finally:
                del self._waiting[scope]

    def release(self, holder: object) -> None:
        """Release the slot of *holder*."""
        self._limiter.release_on_behalf_of(holder)
        if self._queue or self._first:
            self._grant()

    # --- pauses ----------------------------------------------------------------------------------

    def pause(self, until: float, reason: Failure) -> None:
        """Send no requests until a given time; a pause that ends later is not shortened.

        Args:
            until: the end of the pause, on the clock of the event loop.
            reason: the failure with which the server asked for it.
        """
        if self.paused:
            self._resumes_at = max(self._resumes_at, until)
        else:
            self._resumes_at = until
            self._pauses += 1
            left = until - anyio.current_time()
            logger.warning("nothing is sent for %.3g seconds: %s", left, reason.message)
        self._pause_reason = reason
        for scope, deadline in self._waiting.items():
            if deadline < self._resumes_at:
                scope.cancel()

    def resume(self) -> None:
        """End the pause now."""
        self._pause_reason = None
        self._resumed.set()
        self._resumed = anyio.Event()

    async def _wait_resumed(self, holder: object, deadline: float | None) -> bool:
        """Wait for the end of a pause, while holding a slot.

        Returns:
            Whether *holder* has the slot still; False if a clean-up has taken it.

        Raises:
            Paused: the pause ends after the deadline; the slot is released.
        """
        try:
            while holder not in self._lost and self._pause_reason is not None and self.paused:
                self._check_deadline(deadline)
                await self._wait_in_slot(holder, deadline)
        except BaseException:
            if self._keeps_slot(holder):
                self.release(holder)
            raise
        return self._keeps_slot(holder)

    def _keeps_slot(self, holder: object) -> bool:
        is_lost = holder in self._lost
        self._lost.discard(holder)
        return not is_lost

    def _check_deadline(self, deadline: float | None) -> None:
        """Raise `Paused` if the pause ends after the deadline."""
        left, reason = self.paused, self._pause_reason
        if reason is not None and _deadline_or_own(deadline) < self._resumes_at:
            raise Paused(reason, left)

    async def _wait_in_slot(self, holder: object, deadline: float | None) -> None:
        with self._waiting_scope(self._resumes_at, deadline) as scope:
            self._paused_holders[holder] = scope
            self._grant()
            try:
                await self._resumed.wait()
            finally:
                self._paused_holders.pop(holder, None)

    def _take_paused_slot(self) -> None:
        """Free the slot of the last task that waits out a pause; it waits for another slot."""
        holder, scope = self._paused_holders.popitem()
        self._lost.add(holder)
        self._limiter.release_on_behalf_of(holder)
        scope.cancel()

    @property
    def paused(self) -> float:
        """Seconds until the end of the pause; 0 if there is none."""
        if self._pause_reason is None:
            return 0.0

        left = self._resumes_at - anyio.current_time()
        if left > 0.0:
            return left

        self._pause_reason = None
        return 0.0

    # --- overloads -------------------------------------------------------------------------------

    def record_success(self) -> None:
        """Record a success, before its slot is released."""
        if self.adaptive is not None:
            self.adaptive.record_success(self._limiter.borrowed_tokens)
            self._resize(self.adaptive.limit)

    def record_overload(self, sent: float) -> None:
        """Record an overload of a request that was sent at the time *sent*."""
        if self.adaptive is not None:
            self.adaptive.record_overload(sent, anyio.current_time())
            self._resize(self.adaptive.limit)

    def _resize(self, limit: int) -> None:
        if limit != self._limiter.total_tokens:
            self._limiter.total_tokens = limit
            self._grant()

    def statistics(self) -> LimiterStatistics:
        """Return the state of the limiter; without an event loop, `paused` is 0.

        The end of a pause is on the clock of the event loop.
        """
        try:
            paused = self.paused
        except anyio.NoEventLoopError:
            paused = 0.0
        decreases = 0 if self.adaptive is None else self.adaptive.decreases
        return LimiterStatistics(self.limit, *self._count_tasks(), paused, self._pauses, decreases)

    def __repr__(self) -> str:
        in_flight, waiting = self._count_tasks()
        return f"<Limiter {in_flight}/{self.limit} in flight, {waiting} waiting>"

    def _count_tasks(self) -> tuple[int, int]:
        """Count the requests in flight, and the tasks that wait, with a slot or for one."""
        waiting = len(self._queue) + len(self._first)
        return (
            self._limiter.borrowed_tokens - len(self._paused_holders),
            waiting + len(self._paused_holders),
        )


async def _wait_impatiently(granted: anyio.Event, make_room: Callable[[], None]) -> None:
    while not granted.is_set():
        with anyio.move_on_after(_IMPATIENCE):
            await granted.wait()
        if not granted.is_set():
            make_room()


def _deadline_or_own(deadline: float | None) -> float:
    return anyio.current_effective_deadline() if deadline is None else deadline
