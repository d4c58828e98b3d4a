"""The virtual clock of a run, for both backends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

from anyio import CancelScope, CapacityLimiter, to_thread
from attrs import define, field

from kaleden._errors import KaledenError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds to wait for worker threads. It is longer than a write of a file to disk takes, and
# short enough for a person to wait for.
_THREAD_TIMEOUT = 5.0


class Deadlock(KaledenError, RuntimeError):
    """All tasks wait, and no deadline could wake one of them."""


@define(eq=False)
class VirtualTime:
    """The virtual clock of one run.

    Attributes:
        now: seconds since the run began.
        on_tick: called at every event-loop iteration, outside of all tasks. It returns whether it
            made a task runnable. It must not raise.
        threads: the limiter of the run's worker threads. While a thread holds one of its tokens,
            the time does not change.
        remove_shields: removes the shields of all cancel scopes; None if leaving the event loop
            cancels shielded tasks.
        scope: the cancel scope around the whole run.
        deadlocks: the number of deadlocks so far.
    """

    on_tick: Callable[[], bool] | None = None
    remove_shields: Callable[[], None] | None = None
    now: float = field(init=False, default=0.0)
    threads: CapacityLimiter | None = field(init=False, default=None)
    scope: CancelScope | None = field(init=False, default=None)
    deadlocks: int = field(init=False, default=0)
    _waited_for_threads: bool = field(init=False, default=False)

    def run_tick_hook(self) -> bool:
        """Call the hook for an event-loop iteration; return whether it made a task runnable."""
        return self.on_tick is not None and self.on_tick()

    def mark_active(self) -> None:
        """Record that a task can run."""
        self._waited_for_threads = False

    def advance(self, due: float) -> float:
        """Jump to the time *due*, before which no task can run.

        If worker threads are running, wait for them first. If *due* is infinite, abort the run.

        Returns:
            Real seconds to wait for events from outside of the event loop.
        """
        if (
            self.threads is not None
            and self.threads.borrowed_tokens
            and not self._waited_for_threads
        ):
            self._waited_for_threads = True
            return _THREAD_TIMEOUT

        if due == math.inf:
            self._abort()
        else:
            self.now = max(self.now, due)
        return 0.0

    def _abort(self) -> None:
        """End the run: first cancel it, then remove the shields, then raise.

        Raises:
            Deadlock: cancelling and removing the shields did not end the run.
        """
        self.deadlocks += 1
        if self.deadlocks == 1 and self.scope is not None:
            self.scope.cancel()
        elif self.deadlocks == 2 and self.remove_shields is not None:
            self.remove_shields()
        else:
            raise self.make_deadlock_error()

    def make_deadlock_error(self) -> Deadlock:
        """Make the error to raise for a deadlock."""
        return Deadlock(f"after {self.now:g} seconds all tasks wait, and nothing is due")

    async def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """Run *fn* as the one main task."""
        self.threads = to_thread.current_default_thread_limiter()
        try:
            with CancelScope() as self.scope:
                return await fn(*args)
        finally:
            # However the tasks reacted to the cancellation, report the deadlock.
            if self.deadlocks:
                raise self.make_deadlock_error()
        raise AssertionError  # the scope is only cancelled in a deadlock
