"""A sweep strikes everywhere, and finds what is not safe to strike."""

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
CREATE = _wire.build_create(LAUNCH)


async def careless(world: MemoryTransport) -> None:
    """Create a session, and delete it if nothing comes between."""
    created = _wire.parse_create(await world.send(CREATE))
    await world.send(_wire.build_destroy(created))


async def careful(world: MemoryTransport) -> None:
    """Let nothing come between, in a task that no native cancellation is for."""

    async def shielded() -> None:
        with CancelScope(shield=True):
            await careless(world)

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)


def nothing_is_left(world: MemoryTransport, _: BaseException | None) -> None:
    assert [] == world.sessions()


def anything_goes(_: MemoryTransport, __: BaseException | None) -> None:
    pass


@pytest.mark.parametrize("cause", CAUSES)
def test_it_finds_a_session_that_is_left_behind(cause: Any) -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(careless, check=nothing_is_left, causes=[cause])

    [note] = caught.value.__notes__
    assert note.startswith(f"struck with {cause!r} at tick ")


def test_it_finds_it_on_each_backend(backend: Backend) -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(careless, check=nothing_is_left, backend=backend)

    assert caught.value.__notes__[-1].endswith(backend)


def test_it_finds_what_a_plain_create_leaves_behind(backend: Backend) -> None:
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


def test_it_passes_what_is_safe(backend: Backend) -> None:
    report = cancel_at_every_checkpoint(careful, check=nothing_is_left, backend=backend)

    assert report.trials > 50


def test_it_strikes_at_every_pass_and_every_point(backend: Backend) -> None:
    report = cancel_at_every_checkpoint(
        careful, check=anything_goes, backend=backend, causes=["scope"]
    )
    others = cancel_at_every_checkpoint(
        careful, check=anything_goes, backend=backend, causes=["scope"], start=1, step=2
    )

    # Two requests; from the end of the second nothing is left to be struck.
    assert {"scope": 2 * len(POINTS)} == report.points
    assert report.ticks["scope"] // 2 == others.ticks["scope"]


def test_it_stops_where_it_is_told_to() -> None:
    report = cancel_at_every_checkpoint(
        careful, check=anything_goes, causes=["scope", "error"], start=2, max_ticks=7
    )

    assert {"scope": 5, "error": 5} == report.ticks


def ends(backend: Backend, **options: Any) -> dict[str, set[str]]:
    """What comes out of a program that is struck, by cause."""
    seen: dict[str, set[str]] = {}
    for cause in CAUSES:
        of_cause = seen[cause] = set()

        def check(
            _: MemoryTransport, error: BaseException | None, into: set[str] = of_cause
        ) -> None:
            into.add(type(error).__name__)

        cancel_at_every_checkpoint(
            careless, check=check, causes=[cause], backend=backend, **options
        )
    return seen


def test_each_cause_is_what_it_says() -> None:
    assert {
        "scope": {"NoneType"},
        "native": {"CancelledError", "NoneType"},
        "native3": {"CancelledError", "NoneType"},
        "deadline": {"TimeoutError", "NoneType"},
        "error": {"InjectedError", "NoneType"},
    } == ends("asyncio")


def test_native_causes_are_left_out_where_there_are_none() -> None:
    pytest.importorskip("trio")
    seen = ends("trio")

    assert (set(), set()) == (seen["native"], seen["native3"])
    assert {"TimeoutError", "NoneType"} == seen["deadline"]
    assert {"InjectedError", "NoneType"} == seen["error"]


@pytest.mark.parametrize(("cause", "times"), [("native", 1), ("native3", 3)])
def test_native_causes_strike_as_often_as_they_say(cause: Any, times: int) -> None:
    counts = Counter[int]()

    async def scenario(_: MemoryTransport) -> None:
        struck = 0
        for _step in range(60):
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class():
                struck += 1
        counts[struck] += 1

    cancel_at_every_checkpoint(scenario, check=anything_goes, causes=[cause], max_ticks=20)

    # The points are none, so that trial is not struck.
    assert {times: 20, 0: 1} == counts


def test_each_point_is_struck_once() -> None:
    struck = Counter[str]()

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
            struck[points[-1]] += 1
            raise

    cancel_at_every_checkpoint(scenario, check=anything_goes, causes=["scope"], max_ticks=0)

    assert dict.fromkeys(POINTS, 1) == struck


def test_an_error_strikes_inside_the_block_that_is_marked(backend: Backend) -> None:
    seen = Counter[str]()

    async def scenario(world: MemoryTransport) -> None:
        try:
            with error_injection_point():
                await world.send(CREATE)
        except InjectedError:
            seen["inside"] += 1
        await world.send(_wire.build_list())

    def check(_: MemoryTransport, error: BaseException | None) -> None:
        seen[type(error).__name__] += 1

    report = cancel_at_every_checkpoint(scenario, check=check, causes=["error"], backend=backend)

    # Outside of the block it strikes around the whole.
    assert seen["inside"] > len(POINTS)
    assert seen["InjectedError"] > len(POINTS)
    assert report.trials == seen["inside"] + seen["InjectedError"]


def test_the_innermost_mark_counts() -> None:
    caught: list[str] = []

    async def scenario(world: MemoryTransport) -> None:
        with suppress(InjectedError), error_injection_point():
            try:
                with error_injection_point():
                    await world.send(CREATE)
            except InjectedError:
                caught.append("inner")

    report = cancel_at_every_checkpoint(scenario, check=anything_goes, causes=["error"])

    assert report.points["error"] == len(POINTS)
    assert len(caught) >= report.points["error"]


def test_a_mark_means_nothing_outside_of_a_sweep(backend: Backend) -> None:
    async def main() -> str:
        with error_injection_point():
            await checkpoint()
        return "done"

    assert "done" == run_virtual(main, backend=backend)


def test_an_error_of_the_blocks_own_is_not_replaced() -> None:
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


def test_the_check_hears_of_a_group_of_errors(backend: Backend) -> None:
    seen: set[type] = set()

    async def scenario(_: MemoryTransport) -> None:
        async with anyio.create_task_group():
            with error_injection_point():
                await anyio.sleep(1)

    def check(_: MemoryTransport, error: BaseException | None) -> None:
        seen.add(type(error))

    cancel_at_every_checkpoint(scenario, check=check, causes=["error"], backend=backend)

    assert ExceptionGroup in seen


def test_each_trial_has_a_world_of_its_own() -> None:
    worlds: list[MemoryTransport] = []

    def make() -> MemoryTransport:
        worlds.append(MemoryTransport(faults=FaultPlan([Fault("delay", seconds=1)])))
        return worlds[-1]

    report = cancel_at_every_checkpoint(
        careful, check=nothing_is_left, world=make, causes=["scope"]
    )

    # And one each for the trials that ended before they were struck.
    assert report.trials + 2 == len(worlds) == len(set(map(id, worlds)))


def test_the_check_comes_when_the_server_has_settled(backend: Backend) -> None:
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

    # Once it has arrived it happens, however late.
    assert {1} == counts


def test_the_check_may_ask_the_platform_itself(backend: Backend) -> None:
    answers = Counter[int]()

    async def check(world: MemoryTransport, _: BaseException | None) -> None:
        answers[(await world.send(_wire.build_list())).status] += 1

    report = cancel_at_every_checkpoint(
        careful, check=check, backend=backend, causes=["scope"], max_ticks=5
    )

    # And the one that ended before it was struck at a point.
    assert {200: report.trials + 1} == answers


def test_a_program_that_fails_by_itself_is_told() -> None:
    async def scenario(_: MemoryTransport) -> None:
        await checkpoint()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        cancel_at_every_checkpoint(scenario, check=anything_goes, causes=["scope"])
    assert "at tick" in caught.value.__notes__[0]


def test_a_program_that_hangs_when_it_is_struck_is_told() -> None:
    async def scenario(_: MemoryTransport) -> None:
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            await anyio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        cancel_at_every_checkpoint(scenario, check=anything_goes, causes=["native"])
    assert "struck with 'native' at tick 0, on asyncio" in caught.value.__notes__


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [SystemExit()])])
def test_ctrl_c_ends_the_sweep(error: BaseException) -> None:
    pytest.importorskip("trio")

    async def scenario(_: MemoryTransport) -> None:
        try:
            await checkpoint()
        finally:
            raise error

    with pytest.raises(type(error)):
        cancel_at_every_checkpoint(scenario, check=anything_goes, backend="trio")


def test_a_report_tells_its_numbers() -> None:
    report = SweepReport("trio", {"scope": 10, "error": 7}, {"scope": 2, "error": 1})

    assert 20 == report.trials
    assert "20 trials on trio: scope 12, error 8" == str(report)
