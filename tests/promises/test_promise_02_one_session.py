"""One specification is at most one session, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

from kaleden.testing import Fault
from programs import faults, launch_under_faults, slow_lists
from promises.loops import Virtual


def test_no_plan_of_faults_makes_two_sessions_of_one(
    virtual: Virtual, trials: Callable[[int], None]
) -> None:
    tried = 0

    @settings(max_examples=40, deadline=None)
    @given(faults=faults, slow=slow_lists, seed=st.integers(0, 2**16))
    def search(faults: list[Fault], slow: list[Fault], seed: int) -> None:
        nonlocal tried
        tried += 1
        virtual.run(launch_under_faults, faults, slow, seed, 6)

    search()
    trials(tried)
