"""Virtual time: waiting takes no real time, and each run of a program is the same.

When no task can run, the clock jumps to the next deadline. On asyncio this needs an event loop with
a custom selector, which is defined here. On trio it needs a custom clock, in `_clock_trio`. No
other module of kaleden names a backend.
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
    """A selector that waits in real time for worker threads only."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._virtual = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if self._virtual.run_tick_hook() or ready or timeout == 0:
            self._virtual.mark_active()
            return ready

        due = math.inf if timeout is None else self._virtual.now + timeout
        ready = super().select(self._virtual.advance(due))
        if ready:
            # Another thread may still be running: wait for it with a new time-out.
            self._virtual.mark_active()
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self, time: VirtualTime, task_factory: Any) -> None:
        super().__init__(_Selector(time))
        self._virtual = time
        self.set_task_factory(task_factory)

    def time(self) -> float:
        # asyncio runs a timer that is due within the clock resolution. One ulp is the smallest
        # resolution at which a timer that is due now does run, and no timer runs early.
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
            # asyncio limits the time-out of select to a day, so a scheduled timer would keep the
            # clock running for ever and hide a deadlock.
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)


def _get_eager_task_factory() -> Any:
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
    """Run an async function in virtual time.

    `anyio.current_time` starts at 0. While a task can run, the time does not change. When all tasks
    wait, the time jumps to the next deadline, so an hour of waiting takes no real time. While one
    of anyio's worker threads runs (with the default limiter), the virtual time does not change, and
    the thread is waited for in real time. Do not use sockets and processes in *fn*: the clock does
    not wait for them.

    Args:
        fn: the function. It is called with *args*.
        args: the arguments of *fn*.
        backend: the event loop to run on.
        eager: whether asyncio runs a new task at once, up to its first await (Python 3.12+).
        seed: the seed for the order in which trio runs its tasks. asyncio's order is fixed.
        on_tick: called at every event-loop iteration, outside of all tasks. It returns whether it
            changed anything, for example by cancelling a scope. It must not raise.

    Returns:
        The return value of *fn*.

    Raises:
        Deadlock: all tasks wait, and no deadline is pending. The tasks are cancelled before this
            is raised.
        RuntimeError: *eager* is true, and this Python has no eager tasks.
    """
    if backend == "trio":
        from kaleden.testing import _clock_trio  # noqa: PLC0415 - trio may not be installed

        return _clock_trio.run(on_tick, seed, fn, *args)

    time = VirtualTime(on_tick)
    make_loop = partial(_Loop, time, _get_eager_task_factory() if eager else None)
    options = {"loop_factory": make_loop, "debug": False}
    return anyio.run(time.run, fn, *args, backend="asyncio", backend_options=options)


def get_native_canceller() -> Callable[[], object]:
    """Return asyncio's ``Task.cancel`` of the current task."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only called in a task
    return task.cancel
