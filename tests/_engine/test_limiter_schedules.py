"""The gate under random schedules of visits, cancellations, pauses, overloads and deadlines."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from attrs import define, field, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support import PLAIN_BACKENDS

pytest.importorskip("anycorn")

from kaleden import Failure, FailureKind
from kaleden._engine._limiter import Limiter, Paused
from kaleden.testing import run_virtual

REFUSAL = Failure("any", FailureKind.UNAVAILABLE, "not now", 503, 1.0, sent=True)


@frozen
class Visit:
    """Somebody comes, stays, and tells how it went; and may lose patience or be cancelled."""

    stays: float
    meets: str = "nothing"
    cancelled_after: float | None = None
    deadline: float | None = None


@frozen
class Pause:
    seconds: float


@frozen
class Resume:
    """The pause is over at once."""


@frozen
class Time:
    seconds: float


Step = Visit | Pause | Resume | Time

# Quarters of seconds, so that many things fall on the same moment.
SECONDS = st.integers(0, 12).map(lambda quarters: quarters / 4)
MAYBE = st.none() | SECONDS
STEPS = st.lists(
    st.one_of(
        st.builds(Visit, SECONDS, st.sampled_from(["nothing", "success", "overload"])),
        st.builds(Visit, SECONDS, cancelled_after=MAYBE, deadline=MAYBE),
        st.builds(Pause, SECONDS),
        st.just(Resume()),
        st.builds(Time, SECONDS),
    ),
    max_size=40,
)


@define
class World:
    """Plays a schedule, and watches at every pass of the event loop."""

    limit: int
    adaptive: bool
    limiter: Limiter = field(init=False, repr=False)
    ends: Counter[str] = field(factory=Counter[str])
    left: dict[int, float] = field(factory=dict[int, float])
    paused_at: float = -1.0
    inside: int = 0
    most: int = 0
    wrong: list[str] = field(factory=list[str])

    async def play(self, steps: list[Step]) -> None:
        self.limiter = Limiter(self.limit, adaptive=self.adaptive)
        async with anyio.create_task_group() as group:
            for number, step in enumerate(steps):
                if isinstance(step, Visit):
                    group.start_soon(self.visit, number, step)
                elif isinstance(step, Pause):
                    self.paused_at = anyio.current_time()
                    self.limiter.pause(self.paused_at + step.seconds, REFUSAL)
                elif isinstance(step, Resume):
                    self.limiter.resume()
                else:
                    await anyio.sleep(step.seconds)
                await anyio.wait_all_tasks_blocked()
        self.at_rest()

    def at_rest(self) -> None:
        state = self.limiter.statistics()
        assert (0, 0) == (state.in_flight, state.waiting)
        for _ in range(state.limit):
            assert state.paused or self.limiter.acquire_nowait(object())

    async def visit(self, number: int, visit: Visit) -> None:
        with anyio.CancelScope() as scope:
            now = anyio.current_time()
            if visit.cancelled_after is not None:
                scope.deadline = now + visit.cancelled_after
            try:
                with anyio.fail_after(visit.deadline):
                    await self.stay(number, visit)
            except Paused as paused:
                assert visit.deadline is not None or visit.cancelled_after is not None
                assert paused.seconds > 0
                self.ends["paused"] += 1
            except TimeoutError:
                self.ends["late"] += 1
                waited = max(now, self.paused_at) < anyio.current_time()
                if waited and self.limiter.paused and number not in self.left:
                    self.wrong.append(f"{number} was not told of a pause beyond its deadline")
            else:
                self.ends["done"] += 1
        self.ends["cancelled"] += scope.cancelled_caught

    async def stay(self, number: int, visit: Visit) -> None:
        holder = object()
        if not self.limiter.acquire_nowait(holder):
            await self.limiter.acquire(holder)
        try:
            sent = anyio.current_time()
            if self.limiter.paused:
                self.wrong.append(f"{number} left during a pause")
            self.left[number] = sent
            self.inside += 1
            try:
                await anyio.sleep(visit.stays)
            finally:
                self.inside -= 1
            if visit.meets == "success":
                self.limiter.record_success()
            elif visit.meets == "overload":
                self.limiter.record_overload(sent)
        finally:
            self.limiter.release(holder)

    def watch(self) -> bool:
        """Whoever is inside beyond the limit was there when it was lowered."""
        if hasattr(self, "limiter"):
            if self.inside > max(self.limiter.limit, self.most):
                self.wrong.append(f"{self.inside} inside, and {self.limiter.limit} allowed")
            self.most = self.inside
            if not 1 <= self.limiter.limit <= self.limit:
                self.wrong.append(f"a limit of {self.limiter.limit}")
        return False


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.booleans(), STEPS)
@example(1, False, [Visit(1.0), Visit(1.0), Pause(3.0), Visit(1.0), Visit(1.0, deadline=0.5)])
@example(1, False, [Visit(2.0), Visit(1.0, deadline=1.0), Time(0.25), Pause(3.0)])
@example(4, True, [Pause(1.0), *[Visit(1.0, "overload")] * 9, Pause(0.5), Resume()])
def test_no_schedule_breaks_the_gate(
    backend: str, limit: int, adaptive: bool, steps: list[Step]
) -> None:
    world = World(limit, adaptive)
    run_virtual(world.play, steps, backend=backend, on_tick=world.watch)  # type: ignore[arg-type]
    assert [] == world.wrong

    visits = {number: step for number, step in enumerate(steps) if isinstance(step, Visit)}
    assert len(visits) == sum(world.ends.values())
    # Whoever has the time gets a turn, and nobody before those who came earlier.
    patient = [n for n, v in visits.items() if v.cancelled_after is None and v.deadline is None]
    assert [] == [number for number in patient if number not in world.left]
    turns = [world.left[number] for number in patient]
    assert sorted(turns) == turns
