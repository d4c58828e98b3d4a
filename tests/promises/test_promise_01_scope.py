"""No session launched in a scope survives it, or the scope's error names it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("anycorn")

from kaleden.testing import CAUSES, Fault, FaultKind, FaultPlan, MemoryTransport
from programs import Launched
from promises.loops import Virtual

WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "finishes late": {"finish_delay": 300.0},
    "drops what was abandoned": {"abandoned": "dies"},
}
LOST = [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER, FaultKind.STALL_AFTER, FaultKind.HALF_BODY]


def first_is_quick(names: Iterable[str]) -> list[Any]:
    """Leave all but the first to the session `sweeps`."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (number > 0), id=str(name))
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize("world", first_is_quick(WORLDS))
def test_nothing_survives_however_the_scope_is_struck(
    virtual: Virtual, trials: Callable[[int], None], world: str
) -> None:
    program = Launched(3, grace=30)
    step = 6 if world == "calm" else 37
    done = virtual.sweep(
        program, check=program.check, world=lambda: MemoryTransport(**WORLDS[world]), step=step
    )
    trials(done)
    assert done > len(CAUSES)


@pytest.mark.parametrize("trouble", first_is_quick(LOST))
def test_nothing_survives_when_answers_are_lost(
    virtual: Virtual, trials: Callable[[int], None], trouble: FaultKind
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
    trials(done)
    assert done > len(CAUSES)
