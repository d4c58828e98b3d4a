"""Intervals between polls."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden import Failure, FailureKind
from kaleden._engine._config import MAX_PAUSE
from kaleden._sessions._monitor._outage import FAILED_INTERVALS
from kaleden._sessions._monitor._poller import (
    GROWTH,
    JITTER,
    MAX_INTERVAL,
    MIN_INTERVAL,
    REFUSED_INTERVAL,
    PollInterval,
)

TIMES = st.floats(0, 1e6)
REFUSED = Failure("a", FailureKind.NOT_AUTHENTICATED, "log in", 401)


def fail(retry_after: float | None = None) -> Failure:
    return Failure("a", FailureKind.UNAVAILABLE, "busy", 503, retry_after)


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


def test_change_shortens_the_interval_to_a_third() -> None:
    actual = measure_intervals(PollInterval(make_random()), [False, False, False, True, False])
    assert [1, 1.5, 2.25, 1.125, 1.6875] == pytest.approx(actual)
    actual = measure_intervals(PollInterval(make_random()), [False, True, True])
    assert [1, 1, 1] == pytest.approx(actual)


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
def test_retry_after_delays_the_next_poll_up_to_a_maximum(now: float, seconds: float) -> None:
    interval = PollInterval(make_random())
    interval.record_failure(now, fail(seconds))
    assert now + max(MIN_INTERVAL, min(seconds, MAX_PAUSE)) == interval.due


def test_intervals_grow_to_a_minute_while_polls_fail() -> None:
    interval, now, seconds = PollInterval(make_random()), 0.0, list[float]()
    for _ in range(15):
        interval.record_failure(now, fail())
        seconds.append(interval.due - now)
        now = interval.due
    assert [MIN_INTERVAL * GROWTH**n for n in range(5)] == pytest.approx(seconds[:5])
    assert FAILED_INTERVALS[1] == pytest.approx(seconds[-1])
    # The longest interval is reached in the first minutes.
    assert sum(each for each in seconds if each < FAILED_INTERVALS[1] - 1) < 240
    interval.record_poll(now, changed=False)
    assert interval.due - now < MAX_INTERVAL
    interval.record_failure(now, fail())
    assert MIN_INTERVAL == pytest.approx(interval.due - now)


def test_refused_login_is_tried_again_at_one_interval() -> None:
    interval = PollInterval(make_random())
    for _ in range(5):
        interval.record_failure(0.0, REFUSED)
        assert REFUSED_INTERVAL == interval.due


def test_other_failure_late_in_an_outage_has_a_long_interval() -> None:
    interval = PollInterval(make_random())
    for _ in range(20):
        interval.record_failure(0.0, REFUSED)
    interval.record_failure(0.0, fail())
    assert FAILED_INTERVALS[1] == pytest.approx(interval.due)
