"""Virtual time on trio; imported only where trio is to be used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio
import trio

from kaleden.testing._virtual_time import VirtualTime

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What is wanted of it has no public name: the order of tasks, who waits until all are blocked, and
# the scopes that tasks are in.
_scheduler: Any = import_module("trio._core._run")

# Any real time above none: it is not spent.
_GLANCE = 1.0


class _Clock(trio.abc.Clock, trio.abc.Instrument):
    """A clock that jumps when trio is about to wait.

    trio's own `MockClock` does so too, but spins for ever in a deadlock, and lets time pass while
    worker threads work.
    """

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self._stirred = True

    def start_clock(self) -> None:
        """Begin at 0."""

    def current_time(self) -> float:
        return self._time.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to the deadline, at the second time that no task can run."""
        if self._stirred:
            self._stirred = False
            # Who waits for all tasks to be blocked is woken if trio believes that it has to wait.
            return _GLANCE if _scheduler.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle else 0
        return self._time.idle(deadline)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - whichever it was
        self._stirred = True
        self._time.stir()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        self._time.tick()


@contextmanager
def _fixed_order(seed: int) -> Generator[None]:
    """Let the seed decide in which order trio runs its tasks."""
    was_fixed = _scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    state = _scheduler._r.getstate()
    _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    _scheduler._r.seed(seed)
    try:
        yield
    finally:
        _scheduler._r.setstate(state)
        _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was_fixed


def _break_shields() -> None:
    """Let a cancellation reach every task."""
    for task in _scheduler.GLOBAL_RUN_CONTEXT.runner.tasks:
        status = task._cancel_status
        while status is not None:
            status._scope.shield = False
            status = status._parent


def run(
    on_tick: Callable[[], bool] | None,
    seed: int,
    fn: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: *Ts,
) -> T:
    """Run *fn* on trio; see `run_virtual`."""
    time = VirtualTime(on_tick, _break_shields)
    clock = _Clock(time)
    options = {"clock": clock, "instruments": [clock]}
    try:
        with _fixed_order(seed):
            return anyio.run(time.run, fn, *args, backend="trio", backend_options=options)
    except trio.TrioInternalError:
        if time.stuck:
            raise time.deadlock() from None
        raise
