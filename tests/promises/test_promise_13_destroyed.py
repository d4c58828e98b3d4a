"""A session is reported as destroyed only if a later list omits it or shows it as terminating."""

from __future__ import annotations

from collections.abc import Callable

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


@pytest.mark.parametrize("false_deletes", [{1}, {2, 5, 7}, set(range(1, COUNT + 1))], ids=len)
def test_false_success_of_delete_is_detected(virtual: VirtualLoop, false_deletes: set[int]) -> None:
    async def destroy() -> kaleden.Outcomes[bool]:
        plan = FaultPlan([Fault(FaultKind.LIE, "destroy", nth=false_deletes)])
        async with (
            MemoryTransport(faults=plan, duration=1e6) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            created = await session.create("fits", IMAGE, replicas=COUNT)
            return await session.destroy(created)

    failures = virtual.run(destroy).failures.values()
    assert len(false_deletes) == len(failures)
    assert {kaleden.FailureKind.NOT_DESTROYED} == {failure.kind for failure in failures}
