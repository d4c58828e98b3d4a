"""A session is reported as destroyed only if a later list omits it or shows it as terminating."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden.local import Status
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE

# With a lag, a list shows an earlier state. A duplicate needs a real connection.
KINDS = [kind for kind in FaultKind if kind not in {FaultKind.LAG, FaultKind.DUPLICATE}]
faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(KINDS),
        st.sampled_from(["destroy", "list"]),
        probability=st.floats(0.1, 1),
    ),
    max_size=4,
)
COUNT = 12


async def check_destroy(plan: FaultPlan) -> None:
    async with (
        MemoryTransport(faults=plan, duration=1e6) as world,
        kaleden.AsyncSession(transport=world, timeout=5) as session,
    ):
        created = (await session.create("fits", IMAGE, replicas=COUNT)).ids
        outcomes = await session.destroy(created)
        remaining = {each.id for each in world.sessions() if each.status is not Status.TERMINATING}
        assert created == [outcome.key for outcome in outcomes]
        assert set() == set(outcomes.successes) & remaining
        if not plan.faults:
            assert outcomes.ok


def test_sessions_reported_as_destroyed_are_gone(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    examples = 0

    @settings(max_examples=60, deadline=None)
    @given(faults=faults, seed=st.integers(0, 2**16))
    def search(faults: list[Fault], seed: int) -> None:
        nonlocal examples
        examples += 1
        virtual.run(check_destroy, FaultPlan(faults, seed=seed))

    search()
    count_trials(examples)


async def destroy_on(world: MemoryTransport, settle: float = 30.0) -> kaleden.Outcomes[bool]:
    async with world, kaleden.AsyncSession(transport=world, settle=settle) as session:
        created = await session.create("fits", IMAGE, replicas=COUNT)
        return await session.destroy(created)


@pytest.mark.parametrize("false_deletes", [{1}, {2, 5, 7}, set(range(1, COUNT + 1))], ids=len)
@pytest.mark.parametrize("lag", [0.0, 3.0, 29.0])
def test_delete_without_effect_is_repeated(
    virtual: VirtualLoop, false_deletes: set[int], lag: float
) -> None:
    lie = Fault(FaultKind.LIE, "destroy", nth=false_deletes)
    late = Fault(FaultKind.LAG, "list", seconds=lag)
    world = MemoryTransport(faults=FaultPlan([lie, late] if lag else [lie]), duration=1e6)
    outcomes = virtual.run(destroy_on, world)
    remaining = {each.id for each in world.sessions() if each.status is not Status.TERMINATING}
    assert set() == remaining
    assert COUNT == len(outcomes)
    if lag < 15:
        assert outcomes.ok


@pytest.mark.parametrize("false_deletes", [{1}, {2, 5, 7}, set(range(1, COUNT + 1))], ids=len)
def test_false_success_of_delete_is_detected(virtual: VirtualLoop, false_deletes: set[int]) -> None:
    # Within half a second no delete is repeated.
    lie = Fault(FaultKind.LIE, "destroy", nth=false_deletes)
    world = MemoryTransport(faults=FaultPlan([lie]), duration=1e6)
    failures = virtual.run(partial(destroy_on, world, settle=0.2)).failures.values()
    assert len(false_deletes) == len(failures)
    assert {kaleden.FailureKind.NOT_DESTROYED} == {failure.kind for failure in failures}


async def destroy_by_name(world: MemoryTransport) -> kaleden.Outcomes[bool]:
    async with world, kaleden.AsyncSession(transport=world, retry=None) as session:
        created = await session.create("fits", IMAGE, replicas=2)
        return await session.destroy([*created.successes, created.ids[0]])


@pytest.mark.parametrize("failing", [set[int](), {2}], ids=["listed", "first list fails"])
def test_name_of_a_session_is_refused_with_its_id(virtual: VirtualLoop, failing: set[int]) -> None:
    # The first list is that of the creates.
    world = MemoryTransport(
        faults=FaultPlan([Fault(FaultKind.BUSY, "list", nth=failing)]), duration=1e6
    )
    outcomes = virtual.run(destroy_by_name, world)
    # The list that decides may be from after the end of the first session.
    assert {"fits-2"} <= set(outcomes.failures) <= {"fits-1", "fits-2"}
    [left] = world.sessions()
    assert f"this is the name of session {left.id}: give the id" in str(outcomes.failures["fits-2"])
