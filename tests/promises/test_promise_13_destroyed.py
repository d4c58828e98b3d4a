"""Destroyed is what a list that began later does not show, or shows as terminating."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden.local import Status
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from programs import IMAGE
from promises.loops import Virtual

# A lag is no fault of who asks, and nothing comes twice in memory.
TROUBLES = [trouble for trouble in FaultKind if trouble not in {FaultKind.LAG, FaultKind.DUPLICATE}]
faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(TROUBLES),
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
        there = {each.id for each in world.sessions() if each.status is not Status.TERMINATING}
        assert created == [outcome.key for outcome in outcomes]
        assert set() == set(outcomes.successes) & there
        if not plan.faults:
            assert outcomes.ok


def test_what_is_reported_destroyed_is_gone(
    virtual: Virtual, trials: Callable[[int], None]
) -> None:
    tried = 0

    @settings(max_examples=60, deadline=None)
    @given(faults=faults, seed=st.integers(0, 2**16))
    def search(faults: list[Fault], seed: int) -> None:
        nonlocal tried
        tried += 1
        virtual.run(check_destroy, FaultPlan(faults, seed=seed))

    search()
    trials(tried)


@pytest.mark.parametrize("liars", [{1}, {2, 5, 7}, set(range(1, COUNT + 1))], ids=len)
def test_a_server_that_lies_is_caught(virtual: Virtual, liars: set[int]) -> None:
    async def destroy() -> kaleden.Outcomes[bool]:
        plan = FaultPlan([Fault(FaultKind.LIE, "destroy", nth=liars)])
        async with (
            MemoryTransport(faults=plan, duration=1e6) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            created = await session.create("fits", IMAGE, replicas=COUNT)
            return await session.destroy(created)

    failures = virtual.run(destroy).failures.values()
    assert len(liars) == len(failures)
    assert {kaleden.FailureKind.NOT_DESTROYED} == {failure.kind for failure in failures}
