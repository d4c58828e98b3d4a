"""Cancellation at every event-loop iteration, and at every point of every request.

A trial runs the program from its beginning in virtual time, injects one cancellation or error, and
checks the platform afterwards. Each trial injects one event later than the trial before it. The
sweep stops at the first trial that ends before its event.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from typing import Final, Literal, TypeAlias, final

import anyio
from anyio import CancelScope
from attrs import define, field, frozen

from kaleden._engine._tasks import open_task_group
from kaleden._errors import KaledenError
from kaleden._wire import Request
from kaleden.testing._clock import Backend, get_native_canceller, run_virtual
from kaleden.testing._memory._transport import MemoryTransport

Cause: TypeAlias = Literal["scope", "native", "native3", "deadline", "error"]
Event: TypeAlias = Literal["tick", "point"]
Scenario: TypeAlias = Callable[[MemoryTransport], Awaitable[object]]
Check: TypeAlias = Callable[[MemoryTransport, BaseException | None], Awaitable[object] | None]

CAUSES: Final[tuple[Cause, ...]] = ("scope", "native", "native3", "deadline", "error")
"""The causes of cancellation that `cancel_at_every_checkpoint` can inject."""

_NATIVE: Final = frozenset[Cause]({"native", "native3"})


@final
class InjectedError(KaledenError):
    """The error that `cancel_at_every_checkpoint` raises in the program under test."""


@final
@frozen
class SweepReport:
    """The number of trials of a sweep that found no error.

    Attributes:
        backend: the event loop of the trials.
        ticks: the number of trials that injected at an event-loop iteration, by cause.
        points: the number of trials that injected at a point of a request, by cause.
    """

    backend: Backend
    ticks: Mapping[Cause, int]
    points: Mapping[Cause, int]

    @property
    def trials(self) -> int:
        """The number of all trials."""
        return sum(self.ticks.values()) + sum(self.points.values())

    def __str__(self) -> str:
        causes = (f"{cause} {self.ticks[cause] + self.points[cause]}" for cause in self.ticks)
        return f"{self.trials} trials on {self.backend}: {', '.join(causes)}"


@define(eq=False)
class _Trial:
    """One run of the program, with one injected cancellation or error.

    Attributes:
        cause: the cause to inject.
        event: the kind of event that is counted: event-loop iterations or points of requests.
        number: the number of the event to inject at, counted from 0.
        injected: whether the cause was injected.
        error: the exception that the program raised; None if it raised none.
        error_scopes: the scopes of `error_injection_point`, innermost last.
    """

    cause: Cause
    event: Event
    number: int
    injected: bool = field(init=False, default=False)
    error: BaseException | None = field(init=False, default=None)
    _running: bool = field(init=False, default=False)
    _events_seen: int = field(init=False, default=0)
    _ticks_since: int = field(init=False, default=0)
    _scope: CancelScope = field(init=False)
    error_scopes: list[CancelScope] = field(init=False, factory=list[CancelScope])
    _cancel_natively: Callable[[], object] = field(init=False)

    async def run(
        self, scenario: Scenario, make_world: Callable[[], MemoryTransport], check: Check
    ) -> None:
        """Run the program in a new world, then check the world."""
        async with make_world() as world:
            world.on_point = self.handle_point
            async with open_task_group() as group:
                group.start_soon(self._run_scenario, scenario, world)
            if self.error is not None and not self.injected:
                raise self.error

            await world.settled()
            later = check(world, self.error)
            if later is not None:
                await later

    async def _run_scenario(self, scenario: Scenario, world: MemoryTransport) -> None:
        """Run the program in a separate task, so that it can be cancelled natively."""
        _current.set(self)
        if self.cause in _NATIVE:
            self._cancel_natively = get_native_canceller()
        try:
            with anyio.fail_after(None) as self._scope, error_injection_point():
                self._running = True
                try:
                    await scenario(world)
                finally:
                    self._running = False
        except BaseExceptionGroup as error:
            if error.subgroup((KeyboardInterrupt, SystemExit)) is not None:
                raise
            self.error = error
        except (Exception, anyio.get_cancelled_exc_class()) as error:  # noqa: BLE001 - for the check
            # A cancellation is not raised again: its target is this task, which ends here.
            self.error = error

    def handle_tick(self) -> bool:
        """Handle an event-loop iteration; return whether a cause was injected at it."""
        if not self._running:
            return False
        if self.injected:
            return self._inject_again()
        return self.event == "tick" and self._count_event()

    def handle_point(self, _name: str, _request: Request) -> None:
        """Handle a point that a request passes."""
        if self._running and self.event == "point":
            self._count_event()

    def _count_event(self) -> bool:
        due = self._events_seen == self.number
        self._events_seen += 1
        if due:
            self._inject()
        return due

    def _inject(self) -> None:
        self.injected = True
        match self.cause:
            case "scope":
                self._scope.cancel()
            case "deadline":
                self._scope.deadline = -math.inf
            case "error":
                self.error_scopes[-1].cancel()
            case "native" | "native3":
                self._cancel_natively()

    def _inject_again(self) -> bool:
        """Cancel a second time where the clean-up begins, and a third time during it."""
        self._ticks_since += 1
        due = self.cause == "native3" and self._ticks_since in {1, 2 + self.number % 31}
        if due:
            self._cancel_natively()
        return due


_current: ContextVar[_Trial | None] = ContextVar("_current", default=None)


@contextmanager
def error_injection_point() -> Generator[None]:
    """Mark a block in which `cancel_at_every_checkpoint` may inject the cause "error".

    ::

        async with session.scope() as scope:
            with error_injection_point():
                await scope.create(...)

    The program sees the error as if it were raised inside the block. If blocks are nested, the
    error is injected in the innermost one. If a scenario has no such block, the error is raised
    around the whole scenario. Outside of `cancel_at_every_checkpoint`, the block has no effect.

    Raises:
        InjectedError: at the end of the block, if an error was injected in it. The operation that
            the block was waiting for is cancelled.
    """
    trial = _current.get()
    if trial is None:
        yield
        return

    with CancelScope() as scope:
        trial.error_scopes.append(scope)
        try:
            yield
        finally:
            trial.error_scopes.remove(scope)
    if scope.cancel_called:
        raise InjectedError("an error injected by cancel_at_every_checkpoint")


def cancel_at_every_checkpoint(
    scenario: Scenario,
    *,
    check: Check,
    world: Callable[[], MemoryTransport] = MemoryTransport,
    causes: Iterable[Cause] = CAUSES,
    backend: Backend = "asyncio",
    start: int = 0,
    step: int = 1,
    max_ticks: int | None = None,
    eager: bool = False,
    seed: int = 0,
) -> SweepReport:
    """Cancel a program at every event-loop iteration, and at every point of its requests.

    For each cause, the program runs many times in virtual time. The first trial injects the cause
    at the first event-loop iteration, the next one at the second, and so on. Further trials inject
    it at each of the `POINTS` that the program's requests pass. In all other respects the trials
    are the same.

    Args:
        scenario: the program. It is called with a new world for each trial.
        check: called after each trial, when the program has ended and the server has finished its
            requests. Its arguments are the world, and the exception that the program raised or
            None. It raises an exception if it finds an error. It may be async.
        world: makes the world. Its ``on_point`` is used by the trial. Requests that begin together
            take equally long and keep in step, unless the fault plan has a delay with jitter.
        causes: "scope" cancels a cancel scope around the program. "native" calls asyncio's
            ``Task.cancel`` for the program's task, and "native3" calls it three times. "deadline"
            lets an ``anyio.fail_after`` around the program expire. "error" raises an exception, see
            `error_injection_point`. The native causes are skipped on trio.
        backend: the event loop.
        start: the first event-loop iteration to inject at.
        step: the number of event-loop iterations from one trial to the next.
        max_ticks: the event-loop iteration to stop before. If None, the sweep stops at the first
            trial that ends before its event.
        eager: see `run_virtual`.
        seed: see `run_virtual`.

    Returns:
        The number of trials.

    Raises:
        Deadlock: a trial hung.
        BaseException: *check* raised it, or the program raised it before anything was injected. A
            note on the exception names the trial.
    """

    def run_trial(trial: _Trial) -> bool:
        """Run a trial; return whether it injected its cause."""
        try:
            run_virtual(
                trial.run,
                scenario,
                world,
                check,
                backend=backend,
                eager=eager,
                seed=seed,
                on_tick=trial.handle_tick,
            )
        except BaseException as error:
            where = f"{trial.event} {trial.number}, on {backend}"
            error.add_note(f"injected {trial.cause!r} at {where}")
            raise
        return trial.injected

    def count_trials(numbers: Iterable[int], cause: Cause, event: Event) -> int:
        """Run a trial for each number until one ends before its event; return their count."""
        trials = (_Trial(cause, event, number) for number in numbers)
        return sum(1 for _ in takewhile(run_trial, trials))

    ticks = range(start, sys.maxsize if max_ticks is None else max_ticks, step)
    allowed: list[Cause] = [
        cause for cause in causes if backend == "asyncio" or cause not in _NATIVE
    ]
    return SweepReport(
        backend,
        {cause: count_trials(ticks, cause, "tick") for cause in allowed},
        {cause: count_trials(range(sys.maxsize), cause, "point") for cause in allowed},
    )
