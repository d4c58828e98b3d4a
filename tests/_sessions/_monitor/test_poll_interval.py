"""Intervals between polls, and the tolerance for failures."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden import FailureKind
from kaleden._engine._config import MAX_PAUSE
from kaleden._sessions._monitor._poller import (
    GROWTH,
    JITTER,
    MAX_FAILURES,
    MAX_INTERVAL,
    MIN_INTERVAL,
    ErrorTolerance,
    PollInterval,
)

TIMES = st.floats(0, 1e6)
PASSING = [
    FailureKind.CONNECT_FAILED,
    FailureKind.CONNECTION_LOST,
    FailureKind.PROTOCOL,
    FailureKind.SERVER_ERROR,
    FailureKind.TIMED_OUT,
    FailureKind.UNAVAILABLE,
]


def make_random(share: float = 0.5) -> random.Random:
    """Return a random source that always gives the same share of its range."""
    source = random.Random()
    source.random = lambda: share  # type: ignore[method-assign]
    return source


def measure_intervals(interval: PollInterval, changes: list[bool]) -> list[float]:
    seen = []
    for changed in changes:
        before = interval.due
        interval.record_poll(before, changed=changed)
        seen.append(interval.due - before)
    return seen


def test_first_poll_is_due_at_once_and_the_second_soon() -> None:
    interval = PollInterval(make_random())
    assert 0 == interval.due
    assert [MIN_INTERVAL] == pytest.approx(measure_intervals(interval, [False]))


def test_intervals_grow_by_half_up_to_the_longest() -> None:
    expected = [min(MIN_INTERVAL * GROWTH**step, MAX_INTERVAL) for step in range(12)]
    assert expected == pytest.approx(measure_intervals(PollInterval(make_random()), [False] * 12))
    assert MAX_INTERVAL == expected[-1]


def test_change_resets_the_interval() -> None:
    actual = measure_intervals(PollInterval(make_random()), [False, False, False, True, False])
    assert [1, 1.5, 2.25, 1, 1.5] == pytest.approx(actual)


def test_restart_makes_a_poll_due_and_resets_the_interval() -> None:
    interval = PollInterval(make_random())
    measure_intervals(interval, [False] * 12)
    interval.restart(1000.0)
    assert 1000.0 == interval.due
    assert [MIN_INTERVAL] == pytest.approx(measure_intervals(interval, [False]))


@given(st.lists(st.booleans(), max_size=40), st.integers())
def test_jitter_is_at_most_a_fifth_and_never_grows(changes: list[bool], seed: int) -> None:
    jittered = measure_intervals(PollInterval(random.Random(seed)), changes)
    exact = measure_intervals(PollInterval(make_random()), changes)
    for actual, exact_interval in zip(jittered, exact, strict=True):
        assert (
            exact_interval * (1 - JITTER) - 1e-6 <= actual <= exact_interval * (1 + JITTER) + 1e-6
        )


def test_clients_have_different_intervals() -> None:
    assert 2 <= len({measure_intervals(PollInterval(), [False])[0] for _ in range(10)})


@given(TIMES, st.floats(0, 1e12))
def test_pause_lasts_as_requested_up_to_the_maximum(now: float, seconds: float) -> None:
    interval = PollInterval()
    interval.restart(now)
    interval.pause(now, seconds)
    assert now + min(seconds, MAX_PAUSE) == interval.due


@given(TIMES)
def test_pause_never_makes_a_poll_due_earlier(now: float) -> None:
    interval = PollInterval()
    interval.record_poll(now, changed=False)
    due = interval.due
    interval.pause(now, None)
    interval.pause(now, 0.1)
    assert due == interval.due
    assert math.isfinite(due)


@pytest.mark.parametrize("kind", PASSING)
def test_transient_failures_are_tolerated_up_to_a_number_in_a_row(kind: FailureKind) -> None:
    tolerance = ErrorTolerance()
    assert [True] * MAX_FAILURES + [False] == [
        tolerance.allow(kind) for _ in range(MAX_FAILURES + 1)
    ]
    tolerance.reset()
    assert tolerance.allow(kind)


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - set(PASSING)))
def test_permanent_failures_are_not_tolerated(kind: FailureKind) -> None:
    assert not ErrorTolerance().allow(kind)
