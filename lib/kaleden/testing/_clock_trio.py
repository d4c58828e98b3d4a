"""Virtual time on trio. Imported only if trio is used, as it may not be installed."""

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

# trio has no public names for these: the order of tasks, the tasks in `wait_all_tasks_blocked`, and
# the cancel scopes of tasks.
_scheduler: Any = import_module("trio._core._run")

# Any number of seconds above 0. trio does not sleep that long, because tasks that wait for all
# others to be blocked are woken first.
_NONZERO_SLEEP = 1.0


class _Clock(trio.abc.Clock, trio.abc.Instrument):
    """A clock that jumps when trio is about to wait.

    trio's `MockClock` with autojump does so too. But it spins for ever in a deadlock, and lets time
    pass while worker threads run.
    """

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self._active = True

    def start_clock(self) -> None:
        """Start at 0."""

    def current_time(self) -> float:
        return self._time.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to the deadline when no task can run for the second time in a row."""
        if self._active:
            self._active = False
            # trio wakes the tasks in `wait_all_tasks_blocked` only before a sleep of more than 0.
            return _NONZERO_SLEEP if _scheduler.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle else 0
        return self._time.advance(deadline)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        self._active = True
        self._time.mark_active()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        self._time.run_tick_hook()


@contextmanager
def _fix_task_order(seed: int) -> Generator[None]:
    """Run trio's tasks in an order that depends on the seed only."""
    was_fixed = _scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    state = _scheduler._r.getstate()
    _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    _scheduler._r.seed(seed)
    try:
        yield
    finally:
        _scheduler._r.setstate(state)
        _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was_fixed


def _remove_shields() -> None:
    """Remove the shields of all cancel scopes, so that a cancellation reaches every task."""
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
    time = VirtualTime(on_tick, _remove_shields)
    clock = _Clock(time)
    options = {"clock": clock, "instruments": [clock]}
    try:
        with _fix_task_order(seed):
            return anyio.run(time.run, fn, *args, backend="trio", backend_options=options)
    except trio.TrioInternalError:
        if time.deadlocks:
            raise time.make_deadlock_error() from None
        raise
