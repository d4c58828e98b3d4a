"""Virtual time: a program that only waits runs at once, and to the same end each time.

Time passes when nobody can do anything else, and then at once, up to the next thing that is due. On
asyncio that takes an event loop with a selector of its own, here; on trio a clock, in
`_clock_trio`. Nothing else in kaleden names a backend.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio import CancelScope, CapacityLimiter, to_thread
from attrs import define, field

from kaleden._errors import KaledenError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Backend: TypeAlias = Literal["asyncio", "trio"]

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


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but worker threads; everything else is let happen at once."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._virtual = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if self._virtual.tick() or ready or timeout == 0:
            self._virtual.stir()
            return ready

        due = math.inf if timeout is None else self._virtual.now + timeout
        ready = super().select(self._virtual.idle(due))
        if ready:
            # Another thread may still be at work, and is waited for as long again.
            self._virtual.stir()
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self, time: VirtualTime, task_factory: Any) -> None:
        super().__init__(_Selector(time))
        self._virtual = time
        self.set_task_factory(task_factory)

    def time(self) -> float:
        # What is due now is due, also where a float is coarser than the system's clock; and nothing
        # is a moment before its time.
        self._clock_resolution = math.ulp(self._virtual.now)
        return self._virtual.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when == math.inf:
            # asyncio would look again every day whether it is due, and a deadlock would last.
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)


def _eager_task_factory() -> Any:
    if sys.version_info < (3, 12):
        raise RuntimeError("eager tasks need Python 3.12 or later")
    return asyncio.eager_task_factory


def run_virtual(
    fn: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: *Ts,
    backend: Backend = "asyncio",
    eager: bool = False,
    seed: int = 0,
    on_tick: Callable[[], bool] | None = None,
) -> T:
    """Run an async function in virtual time, to its end.

    It begins at time 0, as `anyio.current_time` gives it. Time passes only when all tasks wait, and
    then jumps to what is due next, so an hour of waiting takes no time. While one of anyio's worker
    threads works (with the default limiter), time stands still, and the real one is waited for. It
    is no place for sockets and processes: nobody waits for them.

    Args:
        fn: the function, called with *args*.
        args: its arguments.
        backend: the event loop to run on.
        eager: whether asyncio's tasks begin at once, up to their first await (Python 3.12+).
        seed: of the order in which trio runs the tasks that can run; asyncio's order is fixed.
        on_tick: called at every pass of the event loop, outside all tasks; returns whether it
            changed anything, such as by cancelling a scope. It must not raise.

    Returns:
        What the function returns.

    Raises:
        Deadlock: all tasks wait, and nothing is due. What they wait in is cancelled.
        RuntimeError: eager tasks were asked for, and this Python has none.
    """
    if backend == "trio":
        from kaleden.testing import _clock_trio  # noqa: PLC0415 - trio may not be installed

        return _clock_trio.run(on_tick, seed, fn, *args)

    time = VirtualTime(on_tick)
    make_loop = partial(_Loop, time, _eager_task_factory() if eager else None)
    options = {"loop_factory": make_loop, "debug": False}
    return anyio.run(time.run, fn, *args, backend="asyncio", backend_options=options)


def native_canceller() -> Callable[[], object]:
    """Get asyncio's own way to cancel the task that asks."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only tasks ask
    return task.cancel
