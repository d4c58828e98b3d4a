"""Cancel a program everywhere: at each pass of the event loop, and at each point of each request.

A trial runs the program from its beginning in virtual time, strikes it once, and looks at what is
left. The next one strikes one place later, until a trial ends before it was struck.
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
from kaleden.testing._clock import Backend, native_canceller, run_virtual
from kaleden.testing._memory._transport import MemoryTransport

Cause: TypeAlias = Literal["scope", "native", "native3", "deadline", "error"]
Place: TypeAlias = Literal["tick", "point"]
Scenario: TypeAlias = Callable[[MemoryTransport], Awaitable[object]]
Check: TypeAlias = Callable[[MemoryTransport, BaseException | None], Awaitable[object] | None]

CAUSES: Final[tuple[Cause, ...]] = ("scope", "native", "native3", "deadline", "error")
"""What a sweep can strike with."""

_NATIVE: Final = frozenset[Cause]({"native", "native3"})


@final
class InjectedError(KaledenError):
    """The error that a sweep raises in the program it tries."""


@final
@frozen
class SweepReport:
    """How many trials there were, in none of which anything was found.

    Attributes:
        backend: the event loop they ran on.
        ticks: those that struck at a pass of the event loop, by cause.
        points: those that struck at a point of a request, by cause.
    """

    backend: Backend
    ticks: Mapping[Cause, int]
    points: Mapping[Cause, int]

    @property
    def trials(self) -> int:
        """All of them."""
        return sum(self.ticks.values()) + sum(self.points.values())

    def __str__(self) -> str:
        causes = (f"{cause} {self.ticks[cause] + self.points[cause]}" for cause in self.ticks)
        return f"{self.trials} trials on {self.backend}: {', '.join(causes)}"


@define(eq=False)
class _Trial:
    """One run of the program, which is struck once.

    Attributes:
        cause: what it is struck with.
        place: what is counted until then.
        number: at which of these it is struck, from 0.
        struck: whether it was.
        error: what came out of the program.
    """

    cause: Cause
    place: Place
    number: int
    struck: bool = field(init=False, default=False)
    error: BaseException | None = field(init=False, default=None)
    _running: bool = field(init=False, default=False)
    _passed: int = field(init=False, default=0)
    _ticks_since: int = field(init=False, default=0)
    _scope: CancelScope = field(init=False)
    _hazards: list[CancelScope] = field(init=False, factory=list[CancelScope])
    _cancel_natively: Callable[[], object] = field(init=False)

    async def play(
        self, scenario: Scenario, make_world: Callable[[], MemoryTransport], check: Check
    ) -> None:
        """Run the program in a new world, and look at what is left there."""
        async with make_world() as world:
            world.on_point = self.point
            async with open_task_group() as group:
                group.start_soon(self._run, scenario, world)
            if self.error is not None and not self.struck:
                raise self.error

            await world.settled()
            later = check(world, self.error)
            if later is not None:
                await later

    async def _run(self, scenario: Scenario, world: MemoryTransport) -> None:
        """Run the program, in a task of its own, which may be cancelled natively."""
        _current.set(self)
        if self.cause in _NATIVE:
            self._cancel_natively = native_canceller()
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
            # A cancellation is not raised again: it was for this task, which is at its end.
            self.error = error

    def tick(self) -> bool:
        """Hear of a pass of the event loop; tell whether it was struck at."""
        if not self._running:
            return False
        if self.struck:
            return self._strike_again()
        return self.place == "tick" and self._count()

    def point(self, _name: str, _request: Request) -> None:
        """Hear of a point that a request passes."""
        if self._running and self.place == "point":
            self._count()

    def _count(self) -> bool:
        due = self._passed == self.number
        self._passed += 1
        if due:
            self._strike()
        return due

    def _strike(self) -> None:
        self.struck = True
        match self.cause:
            case "scope":
                self._scope.cancel()
            case "deadline":
                self._scope.deadline = -math.inf
            case "error":
                self._hazards[-1].cancel()
            case "native" | "native3":
                self._cancel_natively()

    def _strike_again(self) -> bool:
        """Cancel a second time where the clean-up begins, and a third time somewhere in it."""
        self._ticks_since += 1
        due = self.cause == "native3" and self._ticks_since in {1, 2 + self.number % 31}
        if due:
            self._cancel_natively()
        return due

    @contextmanager
    def exposed(self, scope: CancelScope) -> Generator[None]:
        """Let an error strike in this scope."""
        self._hazards.append(scope)
        try:
            yield
        finally:
            self._hazards.remove(scope)


_current: ContextVar[_Trial | None] = ContextVar("_current", default=None)


@contextmanager
def error_injection_point() -> Generator[None]:
    """Mark where the cause "error" of a sweep strikes: in this block, as if it were raised there.

    ::

        async with session.scope() as scope:
            with hazard():
                await scope.create(...)

    The innermost block counts. Without any, the error is raised around the whole scenario; outside
    of a sweep, nothing happens.

    Raises:
        InjectedError: at the end of the block, if a sweep struck in it; what the block waited for
            was cancelled.
    """
    trial = _current.get()
    if trial is None:
        yield
        return

    with CancelScope() as scope, trial.exposed(scope):
        yield
    if scope.cancel_called:
        raise InjectedError("a sweep strikes here")


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
    """Try a program with each cause of cancellation, at each place where it can strike.

    The places are the passes of the event loop while the program runs, and then the points of its
    requests, which `MemoryTransport` tells of. Each trial is a run of its own, in virtual time, and
    is in all else the same as the others.

    Args:
        scenario: the program; called with a new world for each trial.
        check: called after each trial, when the program is over and the server has settled, with
            the world and with what the program raised, None for nothing. It raises if it finds
            something wrong. It may be async.
        world: makes the world; its ``on_point`` is taken. Requests that begin together take equally
            long and so keep in step, unless its fault plan has a delay with jitter.
        causes: "scope", a cancel scope around the program; "native", asyncio's ``Task.cancel`` of
            its task; "native3", that three times; "deadline", as of ``fail_after``; "error", an
            exception, see `error_injection_point`. The native ones are left out on trio.
        backend: the event loop.
        start: the first pass of the event loop to strike at.
        step: how many passes from one trial to the next.
        max_ticks: where to stop; None to go on until a trial ends before it was struck.
        eager: as of `run_virtual`.
        seed: as of `run_virtual`.

    Returns:
        How many trials there were.

    Raises:
        Deadlock: a trial hung.
        BaseException: what *check* raised; or the program, if it was not struck. On any of them, a
            note tells which trial it was.
    """
    sweep = _Sweep(scenario, world, check, backend, eager, seed)
    ticks = range(start, sys.maxsize if max_ticks is None else max_ticks, step)
    allowed: list[Cause] = [
        cause for cause in causes if backend == "asyncio" or cause not in _NATIVE
    ]
    return SweepReport(
        backend,
        {cause: sweep.along(ticks, cause, "tick") for cause in allowed},
        {cause: sweep.along(range(sys.maxsize), cause, "point") for cause in allowed},
    )


@frozen
class _Sweep:
    """What all trials of a sweep have in common."""

    scenario: Scenario
    world: Callable[[], MemoryTransport]
    check: Check
    backend: Backend
    eager: bool
    seed: int

    def along(self, numbers: Iterable[int], cause: Cause, place: Place) -> int:
        """Strike at one place after the other, and count the trials that were struck."""
        trials = (_Trial(cause, place, number) for number in numbers)
        return sum(1 for _ in takewhile(self._strikes, trials))

    def _strikes(self, trial: _Trial) -> bool:
        try:
            run_virtual(
                trial.play,
                self.scenario,
                self.world,
                self.check,
                backend=self.backend,
                eager=self.eager,
                seed=self.seed,
                on_tick=trial.tick,
            )
        except BaseException as error:
            where = f"{trial.place} {trial.number}, on {self.backend}"
            error.add_note(f"struck with {trial.cause!r} at {where}")
            raise
        return trial.struck
