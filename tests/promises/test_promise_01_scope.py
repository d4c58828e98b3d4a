"""No session launched in a scope survives it, or the scope's error names it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("anycorn")

from kaleden.testing import CAUSES, Fault, FaultKind, FaultPlan, MemoryTransport
from programs import Launched
from promises.loops import VirtualLoop

WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "finishes late": {"finish_delay": 300.0},
    "drops what was abandoned": {"abandoned": "dies"},
}
LOST = [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER, FaultKind.STALL_AFTER, FaultKind.HALF_BODY]


def mark_all_but_first_slow(names: Iterable[str]) -> list[Any]:
    """Mark all but the first as slow, for the nox session `sweeps`."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (number > 0), id=str(name))
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize("world", mark_all_but_first_slow(WORLDS))
def test_no_session_survives_cancellation_of_scope(
    virtual: VirtualLoop, count_trials: Callable[[int], None], world: str
) -> None:
    program = Launched(3, grace=30)
    step = 6 if world == "calm" else 37
    done = virtual.sweep(
        program, check=program.check, world=lambda: MemoryTransport(**WORLDS[world]), step=step
    )
    count_trials(done)
    assert done > len(CAUSES)


@pytest.mark.parametrize("trouble", mark_all_but_first_slow(LOST))
def test_no_session_survives_lost_responses(
    virtual: VirtualLoop, count_trials: Callable[[int], None], trouble: FaultKind
) -> None:
    program = Launched(3, grace=30)
    plan = FaultPlan([Fault(trouble, "create", nth={2, 3})])
    done = virtual.sweep(
        program,
        check=program.check,
        world=lambda: MemoryTransport(faults=plan),
        causes=("scope", "native3", "error"),
        step=61,
    )
    count_trials(done)
    assert done > len(CAUSES)
