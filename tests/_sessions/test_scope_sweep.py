"""Scopes that are cancelled at each iteration of the event loop, and that meet all faults."""

from __future__ import annotations

from typing import Any

import pytest

from support import PLAIN_BACKENDS

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

from kaleden.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    MemoryTransport,
    cancel_at_every_checkpoint,
    run_virtual,
)
from programs import Launched, faults, launch_under_faults, slow_lists

pytestmark = pytest.mark.parametrize("backend", PLAIN_BACKENDS)


PLATFORMS: dict[str, dict[str, Any]] = {
    "calm": {},
    "slow to finish cancelled creates": {"finish_delay": 3.0},
    "finishes late": {"finish_delay": 300.0},
    "drops cancelled creates": {"abandoned": "dies"},
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_no_session_survives_its_scope(backend: Any, platform: str) -> None:
    program = Launched(grace=30)
    report = cancel_at_every_checkpoint(
        program,
        check=program.check,
        world=lambda: MemoryTransport(**PLATFORMS[platform]),
        backend=backend,
        step=1 if platform == "calm" else 5,
    )
    assert report.trials > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault",
    [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER, FaultKind.STALL_AFTER, FaultKind.HALF_BODY],
    ids=str,
)
def test_no_session_survives_its_scope_if_responses_are_lost(
    backend: Any, fault: FaultKind
) -> None:
    program = Launched(grace=30)
    report = cancel_at_every_checkpoint(
        program,
        check=program.check,
        world=lambda: MemoryTransport(faults=FaultPlan([Fault(fault, "create", nth={2, 5})])),
        backend=backend,
        causes=("scope", "native3", "error"),
        step=7,
    )
    assert report.trials > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=150, deadline=None)
@given(faults=faults, slow=slow_lists, seed=st.integers(0, 2**16))
def test_specification_is_launched_at_most_once(
    backend: Any, faults: list[Fault], slow: list[Fault], seed: int
) -> None:
    run_virtual(launch_under_faults, faults, slow, seed, 10, backend=backend)
