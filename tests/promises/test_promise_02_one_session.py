"""One specification creates at most one session, whatever faults occur."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

from kaleden.testing import Fault
from programs import faults, launch_under_faults, slow_lists
from promises.loops import VirtualLoop


def test_no_fault_plan_creates_two_sessions_for_one_spec(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    examples = 0

    @settings(max_examples=40, deadline=None)
    @given(faults=faults, slow=slow_lists, seed=st.integers(0, 2**16))
    def search(faults: list[Fault], slow: list[Fault], seed: int) -> None:
        nonlocal examples
        examples += 1
        virtual.run(launch_under_faults, faults, slow, seed, 6)

    search()
    count_trials(examples)
