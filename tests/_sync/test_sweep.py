"""Calls of `Session` that are interrupted, closed or timed out at every point of their requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import frozen

pytest.importorskip("anycorn")

import kaleden
from _sync.helpers import FITS, QUICK, interrupt, posix
from kaleden import Session
from kaleden.testing import MemoryTransport

STEP = 7
IDS = [f"id{number}" for number in range(3)]

Work = Callable[[Session], object]


def run(session: Session) -> None:
    session.run("fits", **FITS)


def scope(session: Session) -> None:
    with session.scope() as scope:
        scope.wait(scope.create("fits", **FITS))


def info(session: Session) -> None:
    session.info(IDS)


def stream(session: Session) -> None:
    with session.stream.info(key for key in IDS) as results:
        assert {*IDS} == {outcome.key for outcome in results}


def follow(session: Session) -> None:
    with session.scope() as scope, session.follow(scope.create("fits", **FITS)) as lines:
        list(lines)


def interrupt_call(_: Session) -> None:
    interrupt()


def close(session: Session) -> None:
    threading.Thread(target=session.close).start()


@frozen
class Result:
    """The result of a call that was disturbed.

    Attributes:
        passed: how many points its requests passed.
        raised: the type of its exception.
        left: how many sessions it left.
    """

    passed: int
    raised: type | None
    left: int


def disturb_at(point: int, work: Work, backend: Any, disturb: Work) -> Result:
    """Call *work*, and disturb it at one point of its requests."""
    passed = 0

    def on_point(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            disturb(session)

    platform = MemoryTransport(on_point=on_point, **QUICK)
    session = Session(transport=platform, backend=backend)
    raised: type | None = None
    try:
        work(session)
    except (KeyboardInterrupt, kaleden.SessionNotOpen) as error:
        raised = type(error)
    platform.on_point = None
    result = Result(passed, raised, sum(platform.platform.count().values()))
    if disturb is interrupt_call:
        assert [] == session.fetch()
        assert 0 == session.statistics().limiter.in_flight
    session.close()
    return result


def sweep(work: Work, backend: Any, disturb: Work) -> Iterator[Result]:
    """Disturb *work* at every seventh point, until it ends before that point."""
    point = 1
    while (result := disturb_at(point, work, backend, disturb)).passed >= point:
        yield result
        point += STEP


@pytest.mark.slow
@posix
@pytest.mark.parametrize("work", [run, scope, info, stream, follow])
def test_interrupt_at_any_point_leaves_nothing(work: Work, backend: Any) -> None:
    results = list(sweep(work, backend, interrupt_call))
    assert len(results) > 2
    assert {(KeyboardInterrupt, 0)} == {(each.raised, each.left) for each in results}


@pytest.mark.slow
@pytest.mark.parametrize("work", [run, stream])
def test_close_at_any_point_leaves_nothing(work: Work, backend: Any) -> None:
    results = list(sweep(work, backend, close))
    assert len(results) > 2
    # A call that had nearly ended when the other thread closed may succeed.
    assert {(kaleden.SessionNotOpen, 0)} <= {(each.raised, each.left) for each in results}
    assert {0} == {each.left for each in results}


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", range(0, 40, 8))
def test_timeout_at_any_time_leaves_nothing(milliseconds: int, backend: Any) -> None:
    platform = MemoryTransport(**QUICK | {"latency": 0.004})
    with Session(transport=platform, backend=backend) as session:
        try:
            session.run("fits", **FITS, timeout=milliseconds / 1000)
        except kaleden.CallTimedOut as error:
            assert isinstance(error, TimeoutError)
        assert [] == session.fetch()
        assert 0 == session.statistics().limiter.in_flight
