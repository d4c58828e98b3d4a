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

from kaleden.testing._virtual_time import VirtualTime

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Backend: TypeAlias = Literal["asyncio", "trio"]


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
