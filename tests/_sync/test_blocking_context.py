"""Blocks of `Session`: which exception leaves the ``with`` statement, and its notes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("anycorn")

import kaleden
from _sync.helpers import QUICK, CallerError, CallerInterrupt
from kaleden import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from support import FULL_IMAGE, FakeTransport, stalled

IDS = ["id0", "id1", "id2"]


@pytest.mark.parametrize(
    "error", [CallerError, CallerInterrupt, SystemExit, StopIteration, GeneratorExit]
)
def test_errors_of_a_block_are_raised_unchanged(error: Any, backend: Any) -> None:
    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        for block in (session.scope(), session.stream.info(IDS), session.follow(IDS)):
            raised = error("mine")
            with pytest.raises(error) as caught:
                with block:
                    raise raised
            assert raised is caught.value
            assert 1 == len(caught.traceback)
        assert [] == session.fetch()


def test_error_of_a_block_notes_the_sessions_that_its_scope_left(backend: Any) -> None:
    plan = FaultPlan([Fault(FaultKind.LIE, "destroy")])
    platform = MemoryTransport(faults=plan, **QUICK | {"duration": 60})
    with Session(transport=platform, backend=backend) as session:
        with pytest.raises(CallerError) as caught:
            with session.scope(grace=0.2) as scope:
                [key] = scope.create("fits", FULL_IMAGE, cmd="echo").values
                raise CallerError
        assert any(key in note for note in caught.value.__notes__)
        assert scope.error is not None
        with pytest.raises(kaleden.ScopeError, match="may be left"):
            with session.scope(grace=0.2) as scope:
                scope.create("fits", FULL_IMAGE, cmd="echo").raise_on_failure()


def test_error_of_a_block_notes_the_sessions_that_its_scope_released(backend: Any) -> None:
    platform = MemoryTransport(**QUICK | {"duration": 60})
    with Session(transport=platform, backend=backend) as session:
        with pytest.raises(CallerError) as caught:
            with session.scope(on_error="release") as scope:
                [key] = scope.create("fits", FULL_IMAGE, cmd="echo").values
                raise CallerError
        assert any(key in note for note in caught.value.__notes__)
        assert [key] == [each.id for each in session.fetch()]


def test_timeout_of_a_stream_covers_its_block(backend: Any) -> None:
    with Session(transport=FakeTransport(stalled), backend=backend) as session:
        with pytest.raises(kaleden.CallTimedOut, match=r"0\.01 seconds"):
            with session.stream.info(IDS, timeout=0.01) as results:
                list(results)
        assert 0 == session.statistics().limiter.in_flight
