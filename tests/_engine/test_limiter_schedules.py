"""The limiter under random schedules of requests, pauses, overloads and cancellations."""

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
class Attempt:
    """A request, which may have a deadline or be cancelled."""

    seconds: float
    result: str = "nothing"
    cancelled_after: float | None = None
    deadline: float | None = None


@frozen
class Pause:
    seconds: float


@frozen
class Resume:
    """End the pause at once."""


@frozen
class Sleep:
    seconds: float


Step = Attempt | Pause | Resume | Sleep

# Quarters of seconds, so that many events happen at the same time.
SECONDS = st.integers(0, 12).map(lambda quarters: quarters / 4)
MAYBE = st.none() | SECONDS
STEPS = st.lists(
    st.one_of(
        st.builds(Attempt, SECONDS, st.sampled_from(["nothing", "success", "overload"])),
        st.builds(Attempt, SECONDS, cancelled_after=MAYBE, deadline=MAYBE),
        st.builds(Pause, SECONDS),
        st.just(Resume()),
        st.builds(Sleep, SECONDS),
    ),
    max_size=40,
)


@define
class ScheduleRun:
    """Plays a schedule, and checks the limiter in every event-loop iteration."""

    limit: int
    adaptive: bool
    limiter: Limiter = field(init=False, repr=False)
    ended: Counter[str] = field(factory=Counter[str])
    sent: dict[int, float] = field(factory=dict[int, float])
    paused_at: float = -1.0
    in_flight: int = 0
    held: int = 0
    highest: int = 0
    violations: list[str] = field(factory=list[str])

    async def play(self, steps: list[Step]) -> None:
        self.limiter = Limiter(self.limit, adaptive=self.adaptive)
        async with anyio.create_task_group() as group:
            for number, step in enumerate(steps):
                if isinstance(step, Attempt):
                    group.start_soon(self.run_attempt, number, step)
                elif isinstance(step, Pause):
                    self.paused_at = anyio.current_time()
                    self.limiter.pause(self.paused_at + step.seconds, REFUSAL)
                elif isinstance(step, Resume):
                    self.limiter.resume()
                else:
                    await anyio.sleep(step.seconds)
                await anyio.wait_all_tasks_blocked()
        self.check_idle()

    def check_idle(self) -> None:
        state = self.limiter.statistics()
        assert (0, 0) == (state.in_flight, state.waiting)
        for _ in range(state.limit):
            assert state.paused or self.limiter.acquire_nowait(object())

    async def run_attempt(self, number: int, attempt: Attempt) -> None:
        with anyio.CancelScope() as scope:
            now = anyio.current_time()
            if attempt.cancelled_after is not None:
                scope.deadline = now + attempt.cancelled_after
            try:
                with anyio.fail_after(attempt.deadline):
                    await self.hold_slot(number, attempt)
            except Paused as paused:
                assert attempt.deadline is not None or attempt.cancelled_after is not None
                assert paused.seconds > 0
                self.ended["paused"] += 1
            except TimeoutError:
                self.ended["late"] += 1
                waited = max(now, self.paused_at) < anyio.current_time()
                if waited and self.limiter.paused and number not in self.sent:
                    self.violations.append(
                        f"{number} was not refused although the pause ends after its deadline"
                    )
            else:
                self.ended["done"] += 1
        self.ended["cancelled"] += scope.cancelled_caught

    async def hold_slot(self, number: int, attempt: Attempt) -> None:
        holder = object()
        if not self.limiter.acquire_nowait(holder):
            await self.limiter.acquire(holder)
        try:
            sent = anyio.current_time()
            if self.limiter.paused:
                self.violations.append(f"{number} was sent during a pause")
            self.sent[number] = sent
            self.in_flight += 1
            try:
                await anyio.sleep(attempt.seconds)
            finally:
                self.in_flight -= 1
            if attempt.result == "success":
                self.limiter.record_success()
            elif attempt.result == "overload":
                self.limiter.record_overload(sent)
            self.highest = max(self.highest, self.limiter.limit)
        finally:
            self.limiter.release(holder)

    def check(self) -> bool:
        """Check that more slots than the limit are held only after it was lowered.

        Slots are counted, and not requests in flight: a task may be given its slot just before the
        limit is lowered, and send its request later.
        """
        if hasattr(self, "limiter"):
            held = self.limiter._limiter.borrowed_tokens
            # The limit may have been higher for a part of this iteration.
            if held > max(self.highest, self.limiter.limit, self.held):
                self.violations.append(f"{held} slots, and {self.limiter.limit} allowed")
            if self.in_flight > held:
                self.violations.append(f"{self.in_flight} in flight, with {held} slots")
            self.held, self.highest = held, self.limiter.limit
            if not 1 <= self.limiter.limit <= self.limit:
                self.violations.append(f"a limit of {self.limiter.limit}")
        return False


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.booleans(), STEPS)
@example(
    1, False, [Attempt(1.0), Attempt(1.0), Pause(3.0), Attempt(1.0), Attempt(1.0, deadline=0.5)]
)
@example(1, False, [Attempt(2.0), Attempt(1.0, deadline=1.0), Sleep(0.25), Pause(3.0)])
@example(4, True, [Pause(1.0), *[Attempt(1.0, "overload")] * 9, Pause(0.5), Resume()])
# The last request takes the slot of the second before the first lowers the limit, or after it.
@example(
    4, True, [Attempt(0.25, "overload"), Attempt(0.25), Attempt(0.5), Attempt(0.5), Attempt(0.0)]
)
# Three requests take slots during a pause, in which the limit is lowered to 2.
@example(
    4,
    True,
    [*[Attempt(1.0)] * 3, Attempt(1.5, "overload"), *[Attempt(1.0)] * 3, Sleep(0.5), Pause(3.0)],
)
def test_limiter_keeps_its_invariants_under_random_schedules(
    backend: str, limit: int, adaptive: bool, steps: list[Step]
) -> None:
    run = ScheduleRun(limit, adaptive)
    run_virtual(run.play, steps, backend=backend, on_tick=run.check)  # type: ignore[arg-type]
    assert [] == run.violations

    attempts = {number: step for number, step in enumerate(steps) if isinstance(step, Attempt)}
    assert len(attempts) == sum(run.ended.values())
    # Every request without a deadline or cancellation is sent, in FIFO order.
    unbounded = [n for n, v in attempts.items() if v.cancelled_after is None and v.deadline is None]
    assert [] == [number for number in unbounded if number not in run.sent]
    times = [run.sent[number] for number in unbounded]
    assert sorted(times) == times
