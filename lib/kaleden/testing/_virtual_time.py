"""The time of a run in virtual time, on either backend."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

from anyio import CancelScope, CapacityLimiter, to_thread
from attrs import define, field

from kaleden._errors import KaledenError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds: longer than a file takes to reach its disk, and shorter than anybody's patience.
_THREAD_PATIENCE = 5.0


class Deadlock(KaledenError, RuntimeError):
    """All tasks wait, and nothing is due that could wake one of them."""


@define(eq=False)
class VirtualTime:
    """The time of one run.

    Attributes:
        now: seconds since the run began.
        on_tick: called at every pass of the event loop, outside all tasks; tells whether it gave
            one of them something to do. It must not raise.
        threads: held by the worker threads of the run, during which time stands still.
        break_shields: lets a cancellation reach tasks that are shielded from it; None if leaving
            the event loop has it.
        scope: around the whole run.
        stuck: how many deadlocks there were.
    """

    on_tick: Callable[[], bool] | None = None
    break_shields: Callable[[], None] | None = None
    now: float = field(init=False, default=0.0)
    threads: CapacityLimiter | None = field(init=False, default=None)
    scope: CancelScope | None = field(init=False, default=None)
    stuck: int = field(init=False, default=0)
    _waited: bool = field(init=False, default=False)

    def tick(self) -> bool:
        """Pass through the event loop once; tell whether a task got something to do by that."""
        return self.on_tick is not None and self.on_tick()

    def stir(self) -> None:
        """Hear that a task can run."""
        self._waited = False

    def idle(self, due: float) -> float:
        """Hear that no task can run before the time *due*.

        Returns:
            Real seconds to wait for what comes from outside of the event loop.
        """
        if self.threads is not None and self.threads.borrowed_tokens and not self._waited:
            self._waited = True
            return _THREAD_PATIENCE

        if due == math.inf:
            self._break_up()
        else:
            self.now = max(self.now, due)
        return 0.0

    def _break_up(self) -> None:
        """End the run, gently the first time."""
        self.stuck += 1
        if self.stuck == 1 and self.scope is not None:
            self.scope.cancel()
        elif self.stuck == 2 and self.break_shields is not None:
            self.break_shields()
        else:
            raise self.deadlock()

    def deadlock(self) -> Deadlock:
        """Make the error that says so."""
        return Deadlock(f"after {self.now:g} seconds all tasks wait, and nothing is due")

    async def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """Run *fn* as the one main task."""
        self.threads = to_thread.current_default_thread_limiter()
        try:
            with CancelScope() as self.scope:
                return await fn(*args)
        finally:
            # Whatever its tasks made of being cancelled, this is what happened.
            if self.stuck:
                raise self.deadlock()
        raise AssertionError  # the scope is cancelled for a deadlock only
