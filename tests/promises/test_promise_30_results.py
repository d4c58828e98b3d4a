"""The only copy of a result is never deleted, unless its loss was requested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE

faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(
            [
                FaultKind.BUSY,
                FaultKind.ERROR_BEFORE,
                FaultKind.HALF_BODY,
                FaultKind.HTML,
                FaultKind.REFUSED,
                FaultKind.RESET_AFTER,
                FaultKind.STALL,
            ]
        ),
        st.just("logs"),
        probability=st.floats(0.2, 1),
    ),
    min_size=1,
    max_size=2,
)


async def run(plan: FaultPlan, on_unread: Literal["destroy", "release"]) -> None:
    async with (
        MemoryTransport(faults=plan, log=lambda *_: "the result\n") as world,
        kaleden.AsyncSession(transport=world, timeout=5, outage_timeout=60) as session,
    ):
        results = await session.run("fits", IMAGE, replicas=4, on_unread=on_unread)
        left = {each.id for each in world.sessions()}
        unread = {failure.session for failure in results.failures.values()}
        assert all("the result" in finished.log for finished in results.values)
        assert (unread if on_unread == "release" else set()) == left
        world.faults = FaultPlan()
        whole = await results.retry_failed()
        assert whole.ok
        assert ["the result\n"] * 4 == [finished.log for finished in whole.values]
        assert (4 if on_unread == "release" else 4 + len(unread)) == world.created.total()
        assert [] == world.sessions()


@pytest.mark.parametrize("on_unread", ["release", "destroy"])
def test_session_is_kept_until_its_log_was_read(
    virtual: VirtualLoop, count_trials: Callable[[int], None], on_unread: Any
) -> None:
    examples = 0

    @settings(max_examples=20, deadline=None)
    @given(faults, st.integers(0, 2**16))
    def search(faults: list[Fault], seed: int) -> None:
        nonlocal examples
        examples += 1
        virtual.run(run, FaultPlan(faults, seed=seed), on_unread)

    search()
    count_trials(examples)
