"""Tests of `cancel_at_every_checkpoint`."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

import kaleden
from kaleden import SessionSpec, _wire
from kaleden._wire import _requests, _responses
from kaleden.testing import (
    CAUSES,
    POINTS,
    Deadlock,
    Fault,
    FaultPlan,
    InjectedError,
    MemoryTransport,
    SweepReport,
    cancel_at_every_checkpoint,
    error_injection_point,
    run_virtual,
)
from kaleden.testing._clock import Backend

[LAUNCH] = SessionSpec("fits", "skaha/astroml:latest", cmd="true").launches()
CREATE = _requests.build_create(LAUNCH)


async def create_and_destroy(world: MemoryTransport) -> None:
    """Create a session and delete it; a cancellation in between leaves it behind."""
    created = _responses.parse_create(await world.send(CREATE))
    await world.send(_requests.build_destroy(created))


async def create_and_destroy_shielded(world: MemoryTransport) -> None:
    """Create and delete a session in a shielded task, which a native cancellation cannot reach."""

    async def shielded() -> None:
        with CancelScope(shield=True):
            await create_and_destroy(world)

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)


def check_no_sessions(world: MemoryTransport, _: BaseException | None) -> None:
    assert [] == world.sessions()


def check_nothing(_: MemoryTransport, __: BaseException | None) -> None:
    pass


@pytest.mark.parametrize("cause", CAUSES)
def test_sweep_finds_session_left_behind(cause: Any) -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(create_and_destroy, check=check_no_sessions, causes=[cause])

    [note] = caught.value.__notes__
    assert note.startswith(f"injected {cause!r} at tick ")


def test_sweep_finds_session_left_behind_on_each_backend(backend: Backend) -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(create_and_destroy, check=check_no_sessions, backend=backend)

    assert caught.value.__notes__[-1].endswith(backend)


def test_sweep_finds_sessions_left_by_plain_create(backend: Backend) -> None:
    left = Counter[int]()

    async def scenario(world: MemoryTransport) -> None:
        async with kaleden.AsyncSession(transport=world) as session:
            created = await session.create("fits", "skaha/astroml:latest", replicas=3)
            await session.destroy(created)

    def check(world: MemoryTransport, _: BaseException | None) -> None:
        left[len(world.sessions())] += 1

    cancel_at_every_checkpoint(scenario, check=check, backend=backend, causes=["scope"])

    assert left[0] > 0
    assert left[3] > 0


def test_sweep_passes_safe_program(backend: Backend) -> None:
    report = cancel_at_every_checkpoint(
        create_and_destroy_shielded, check=check_no_sessions, backend=backend
    )

    assert report.trials > 50


def test_sweep_injects_at_every_iteration_and_every_point(backend: Backend) -> None:
    report = cancel_at_every_checkpoint(
        create_and_destroy_shielded, check=check_nothing, backend=backend, causes=["scope"]
    )
    others = cancel_at_every_checkpoint(
        create_and_destroy_shielded,
        check=check_nothing,
        backend=backend,
        causes=["scope"],
        start=1,
        step=2,
    )

    # The program sends two requests.
    assert {"scope": 2 * len(POINTS)} == report.points
    assert report.ticks["scope"] // 2 == others.ticks["scope"]


def test_sweep_stops_at_max_ticks() -> None:
    report = cancel_at_every_checkpoint(
        create_and_destroy_shielded,
        check=check_nothing,
        causes=["scope", "error"],
        start=2,
        max_ticks=7,
    )

    assert {"scope": 5, "error": 5} == report.ticks


def collect_errors(backend: Backend, **options: Any) -> dict[str, set[str]]:
    """Return the names of the exceptions that the program raises, by cause."""
    seen: dict[str, set[str]] = {}
    for cause in CAUSES:
        of_cause = seen[cause] = set()

        def check(
            _: MemoryTransport, error: BaseException | None, into: set[str] = of_cause
        ) -> None:
            into.add(type(error).__name__)

        cancel_at_every_checkpoint(
            create_and_destroy, check=check, causes=[cause], backend=backend, **options
        )
    return seen


def test_each_cause_raises_its_error() -> None:
    assert {
        "scope": {"NoneType"},
        "native": {"CancelledError", "NoneType"},
        "native3": {"CancelledError", "NoneType"},
        "deadline": {"TimeoutError", "NoneType"},
        "error": {"InjectedError", "NoneType"},
    } == collect_errors("asyncio")


def test_native_causes_are_skipped_on_trio() -> None:
    pytest.importorskip("trio")
    seen = collect_errors("trio")

    assert (set(), set()) == (seen["native"], seen["native3"])
    assert {"TimeoutError", "NoneType"} == seen["deadline"]
    assert {"InjectedError", "NoneType"} == seen["error"]


@pytest.mark.parametrize(("cause", "times"), [("native", 1), ("native3", 3)])
def test_native_cause_cancels_once_or_three_times(cause: Any, times: int) -> None:
    counts = Counter[int]()

    async def scenario(_: MemoryTransport) -> None:
        cancellations = 0
        for _step in range(60):
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class():
                cancellations += 1
        counts[cancellations] += 1

    cancel_at_every_checkpoint(scenario, check=check_nothing, causes=[cause], max_ticks=20)

    # The program sends no request, so nothing is injected in the trial of the first point.
    assert {times: 20, 0: 1} == counts


def test_each_point_is_cancelled_once() -> None:
    cancellations = Counter[str]()

    async def scenario(world: MemoryTransport) -> None:
        points: list[str] = []
        forward = world.on_point
        assert forward is not None

        def note(point: str, request: _wire.Request) -> None:
            points.append(point)
            forward(point, request)

        world.on_point = note
        try:
            await world.send(CREATE)
        except anyio.get_cancelled_exc_class():
            cancellations[points[-1]] += 1
            raise

    cancel_at_every_checkpoint(scenario, check=check_nothing, causes=["scope"], max_ticks=0)

    assert dict.fromkeys(POINTS, 1) == cancellations


def test_error_is_raised_in_injection_block(backend: Backend) -> None:
    seen = Counter[str]()

    async def scenario(world: MemoryTransport) -> None:
        try:
            with error_injection_point():
                await world.send(CREATE)
        except InjectedError:
            seen["inside"] += 1
        await world.send(_requests.build_list())

    def check(_: MemoryTransport, error: BaseException | None) -> None:
        seen[type(error).__name__] += 1

    report = cancel_at_every_checkpoint(scenario, check=check, causes=["error"], backend=backend)

    # Outside of the block, the error is raised around the whole scenario.
    assert seen["inside"] > len(POINTS)
    assert seen["InjectedError"] > len(POINTS)
    assert report.trials == seen["inside"] + seen["InjectedError"]


def test_error_is_raised_in_innermost_injection_block() -> None:
    caught: list[str] = []

    async def scenario(world: MemoryTransport) -> None:
        with suppress(InjectedError), error_injection_point():
            try:
                with error_injection_point():
                    await world.send(CREATE)
            except InjectedError:
                caught.append("inner")

    report = cancel_at_every_checkpoint(scenario, check=check_nothing, causes=["error"])

    assert report.points["error"] == len(POINTS)
    assert len(caught) >= report.points["error"]


def test_injection_block_has_no_effect_outside_of_sweep(backend: Backend) -> None:
    async def main() -> str:
        with error_injection_point():
            await checkpoint()
        return "done"

    assert "done" == run_virtual(main, backend=backend)


def test_error_raised_by_the_block_is_not_replaced() -> None:
    seen: set[str] = set()

    async def scenario(_: MemoryTransport) -> None:
        with error_injection_point():
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                raise ValueError("mine") from None

    def check(_: MemoryTransport, error: BaseException | None) -> None:
        seen.add(repr(error))

    cancel_at_every_checkpoint(scenario, check=check, causes=["error"])

    assert "ValueError('mine')" in seen


def test_check_gets_exception_group(backend: Backend) -> None:
    seen: set[type] = set()

    async def scenario(_: MemoryTransport) -> None:
        async with anyio.create_task_group():
            with error_injection_point():
                await anyio.sleep(1)

    def check(_: MemoryTransport, error: BaseException | None) -> None:
        seen.add(type(error))

    cancel_at_every_checkpoint(scenario, check=check, causes=["error"], backend=backend)

    assert ExceptionGroup in seen


def test_each_trial_has_its_own_world() -> None:
    worlds: list[MemoryTransport] = []

    def make() -> MemoryTransport:
        worlds.append(MemoryTransport(faults=FaultPlan([Fault("delay", seconds=1)])))
        return worlds[-1]

    report = cancel_at_every_checkpoint(
        create_and_destroy_shielded, check=check_no_sessions, world=make, causes=["scope"]
    )

    # Two further trials, one for ticks and one for points, ended before their event.
    assert report.trials + 2 == len(worlds) == len(set(map(id, worlds)))


def test_check_runs_after_server_has_settled(backend: Backend) -> None:
    def check(world: MemoryTransport, _: BaseException | None) -> None:
        counts.add(len(world.sessions()))

    counts = set[int]()

    async def scenario(world: MemoryTransport) -> None:
        await world.send(CREATE)

    def slow_world() -> MemoryTransport:
        return MemoryTransport(finish_delay=300)

    cancel_at_every_checkpoint(
        scenario, check=check, world=slow_world, causes=["scope"], backend=backend, start=12
    )

    # A request that has arrived takes effect, however late.
    assert {1} == counts


def test_check_can_send_requests(backend: Backend) -> None:
    statuses = Counter[int]()

    async def check(world: MemoryTransport, _: BaseException | None) -> None:
        statuses[(await world.send(_requests.build_list())).status] += 1

    report = cancel_at_every_checkpoint(
        create_and_destroy_shielded, check=check, backend=backend, causes=["scope"], max_ticks=5
    )

    # One further trial, for the points, ended before its event.
    assert {200: report.trials + 1} == statuses


def test_program_that_fails_without_injection_is_reported() -> None:
    async def scenario(_: MemoryTransport) -> None:
        await checkpoint()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        cancel_at_every_checkpoint(scenario, check=check_nothing, causes=["scope"])
    assert "at tick" in caught.value.__notes__[0]


def test_program_that_hangs_after_injection_is_reported() -> None:
    async def scenario(_: MemoryTransport) -> None:
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            await anyio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        cancel_at_every_checkpoint(scenario, check=check_nothing, causes=["native"])
    assert "injected 'native' at tick 0, on asyncio" in caught.value.__notes__


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [SystemExit()])])
def test_keyboard_interrupt_ends_the_sweep(error: BaseException) -> None:
    pytest.importorskip("trio")

    async def scenario(_: MemoryTransport) -> None:
        try:
            await checkpoint()
        finally:
            raise error

    with pytest.raises(type(error)):
        cancel_at_every_checkpoint(scenario, check=check_nothing, backend="trio")


def test_report_counts_trials() -> None:
    report = SweepReport("trio", {"scope": 10, "error": 7}, {"scope": 2, "error": 1})

    assert 20 == report.trials
    assert "20 trials on trio: scope 12, error 8" == str(report)
