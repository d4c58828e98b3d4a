"""The retry policy, the retry budget and the adaptive limit."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden import ConfigurationError, FailureKind
from kaleden._engine._config import (
    Backoff,
    Limits,
    RetryPolicy,
    check_number,
    is_overload,
    is_transient,
)
from kaleden._engine._limiter import INITIAL_LIMIT, AdaptiveLimit
from kaleden._engine._retry import RetryBudget


def make_constant_random(share: float) -> random.Random:
    """Make a random source that always draws the same share of its range."""
    source = random.Random()
    source.random = lambda: share  # type: ignore[method-assign]
    return source


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 0.5, Fraction(1, 2)])
def test_real_number_is_accepted(value: object) -> None:
    check_number("grace", value, "seconds")


def test_number_of_numpy_is_accepted() -> None:
    numpy = pytest.importorskip("numpy")
    check_number("grace", numpy.float32(0.5), "seconds")
    check_number("replicas", numpy.int64(2), "sessions", whole=True)


@pytest.mark.parametrize("value", [True, "1", math.nan])
def test_value_that_is_not_a_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="grace is a number of seconds above 0, not"):
        check_number("grace", value, "seconds")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "a is a number of hours above 0, not 'x'"),
        ({"least": 2}, "a is a number of hours, 2 or more, not 'x'"),
        ({"whole": True}, "a is a whole number of hours above 0, not 'x'"),
        ({"whole": True, "least": 1}, "a is a whole number of hours, 1 or more, not 'x'"),
    ],
)
def test_message_states_the_bounds(bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_number("a", "x", "hours", **bounds)
    assert message == str(caught.value)


def test_max_body_is_at_least_a_byte() -> None:
    with pytest.raises(ConfigurationError, match="max_body is a whole number of bytes, 1 or more"):
        Limits(max_body=0)


# --- intervals of polls --------------------------------------------------------------------------


def test_backoff_doubles_up_to_the_longest_interval() -> None:
    backoff = Backoff(0.25, 1.5)
    assert [0.25, 0.5, 1.0, 1.5, 1.5] == [backoff.next() for _ in range(5)]
    backoff.reset()
    assert [0.25, 0.5] == [backoff.next() for _ in range(2)]


# --- transient failures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (FailureKind.CONNECT_FAILED, None),
        (FailureKind.CONNECTION_LOST, None),
        (FailureKind.TIMED_OUT, None),
        (FailureKind.UNAVAILABLE, 429),
        (FailureKind.UNAVAILABLE, 503),
        (FailureKind.SERVER_ERROR, 502),
        (FailureKind.SERVER_ERROR, 504),
    ],
)
def test_transient_failures_are_recognised(kind: FailureKind, status: int | None) -> None:
    assert is_transient(kind, status)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (FailureKind.BAD_REQUEST, 400),
        (FailureKind.QUOTA, 400),
        (FailureKind.NOT_AUTHENTICATED, 401),
        (FailureKind.NOT_AUTHORIZED, 403),
        (FailureKind.NOT_FOUND, 404),
        (FailureKind.SERVER_ERROR, 500),
        (FailureKind.SERVER_ERROR, 501),
        (FailureKind.PROTOCOL, 200),
        (FailureKind.INVALID, None),
        (FailureKind.INTERNAL, None),
        (FailureKind.UNKNOWN_EFFECT, None),
    ],
)
def test_permanent_failures_are_recognised(kind: FailureKind, status: int | None) -> None:
    assert not is_transient(kind, status)


def test_overloads_are_unavailable_and_timed_out() -> None:
    overloads = {kind for kind in FailureKind if is_overload(kind)}
    assert {FailureKind.UNAVAILABLE, FailureKind.TIMED_OUT} == overloads


# --- back-off ------------------------------------------------------------------------------------


def test_longest_back_off_doubles_up_to_its_cap() -> None:
    policy = RetryPolicy(base=1.0, cap=5.0)
    longest = [
        policy.draw_backoff(attempts, make_constant_random(1.0)) for attempts in (1, 2, 3, 4, 5)
    ]
    assert [1.0, 2.0, 4.0, 5.0, 5.0] == longest


@given(
    st.floats(0.001, 100), st.floats(0.001, 1000), st.integers(1, 10**6), st.integers(0, 2**32 - 1)
)
def test_back_off_is_between_zero_and_the_longest(
    base: float, cap: float, attempts: int, seed: int
) -> None:
    policy = RetryPolicy(base=base, cap=cap)
    drawn = policy.draw_backoff(attempts, random.Random(seed))
    assert 0.0 <= drawn <= policy.draw_backoff(attempts, make_constant_random(1.0)) <= cap
    assert 0.0 == policy.draw_backoff(attempts, make_constant_random(0.0))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("attempts", 0),
        ("attempts", 1.5),
        ("attempts", True),
        ("base", 0),
        ("base", math.inf),
        ("base", math.nan),
        ("cap", -1),
        ("cap", "long"),
        ("total", 0),
        ("reserve", -1),
        ("reserve", math.inf),
        ("reserve", math.nan),
        ("share", None),
        ("share", False),
    ],
)
def test_invalid_policy_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        RetryPolicy(**{argument: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "long"])
def test_max_body_is_a_positive_number_of_bytes(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_body is a whole number of bytes"):
        Limits(max_body=value)
    assert (1, None) == (Limits(max_body=1).max_body, Limits(max_body=None).max_body)


def test_defaults_are_the_documented_ones() -> None:
    assert (32, 8, 30.0, 180.0) == (
        Limits().concurrency,
        Limits().create_concurrency,
        Limits().timeout,
        Limits().create_timeout,
    )
    assert (10.0, 0.2) == (RetryPolicy().reserve, RetryPolicy().share)


# --- the budget ----------------------------------------------------------------------------------


def test_budget_begins_with_its_reserve() -> None:
    budget = RetryBudget(10, 0.2)
    assert [True] * 10 + [False] == [budget.spend() for _ in range(11)]
    assert (10, 1) == (budget.granted, budget.refused)


def test_five_first_attempts_earn_one_retry() -> None:
    budget = RetryBudget(0, 0.2)
    budget.first += 5
    # A budget with a reserve of 0 holds nothing.
    assert not budget.spend()

    budget = RetryBudget(1, 0.2)
    assert budget.spend()
    budget.first += 4
    assert not budget.spend()
    budget.first += 1
    assert budget.spend()


@given(
    st.floats(0, 50),
    st.floats(0, 2),
    st.lists(st.one_of(st.integers(1, 100), st.just(None)), max_size=200),
)
def test_budget_bounds_the_retries_in_any_stretch_of_time(
    reserve: float, share: float, steps: list[int | None]
) -> None:
    budget = RetryBudget(reserve, share)
    states = [(0, 0)]
    for step in steps:
        if step is None:
            budget.spend()
        else:
            budget.first += step
        states.append((budget.first, budget.granted))
        assert 0 <= budget.held <= reserve
    for begin, (first, granted) in enumerate(states):
        for later, more in states[begin:]:
            assert more - granted <= reserve + share * (later - first) + 1e-6


# --- the adaptive limit --------------------------------------------------------------------------


def run_rounds(limit: AdaptiveLimit, capacity: int, count: int) -> list[int]:
    """Send as many requests as the limit allows, in each round trip, and return the limits."""
    seen = []
    for time in range(count):
        sent = limit.limit
        seen.append(sent)
        for _ in range(min(sent, capacity)):
            limit.record_success(sent)
        for _ in range(sent - capacity):
            limit.record_overload(time + 0.5, time + 0.9)
    return seen


def test_limit_of_a_healthy_server_soon_reaches_the_ceiling() -> None:
    assert [INITIAL_LIMIT, 2 * INITIAL_LIMIT, 32, 32] == run_rounds(AdaptiveLimit(32), 100, 4)


@given(st.integers(1, 64), st.integers(2, 64))
def test_limit_converges_to_the_capacity(capacity: int, ceiling: int) -> None:
    limit = AdaptiveLimit(ceiling)
    seen = run_rounds(limit, capacity, 300)
    settled = seen[100:]
    assert max(seen) <= ceiling
    assert 1 <= min(seen)
    # It probes with one more request, and decreases by three tenths.
    assert max(settled) <= min(ceiling, capacity + 1)
    assert min(settled) >= int(0.7 * min(ceiling, capacity))


def test_limit_decreases_once_in_a_round_trip() -> None:
    limit = AdaptiveLimit(10)
    for _ in range(10):
        limit.record_success(10)
    assert 10 == limit.limit
    for _ in range(10):
        limit.record_overload(1.0, 2.0)
    assert (7, 1) == (limit.limit, limit.decreases)
    # A request that was sent after the decrease counts again.
    limit.record_overload(2.1, 3.0)
    assert (4, 2) == (limit.limit, limit.decreases)


def test_limit_falls_to_one_and_recovers_to_the_ceiling() -> None:
    limit = AdaptiveLimit(32)
    assert 1 == run_rounds(limit, 0, 50)[-1]
    assert 32 == run_rounds(limit, 100, 50)[-1]


def test_overload_at_the_floor_is_not_counted_as_a_decrease() -> None:
    limit = AdaptiveLimit(2)
    for sent in range(10):
        limit.record_overload(sent + 0.5, sent + 1.0)
    assert (1, 2) == (limit.limit, limit.decreases)
    limit.record_success(1)
    limit.record_overload(20.0, 21.0)
    assert (1, 3) == (limit.limit, limit.decreases)


def test_unused_limit_does_not_grow() -> None:
    limit = AdaptiveLimit(32)
    for _ in range(1000):
        limit.record_success(INITIAL_LIMIT // 2 - 1)
    assert INITIAL_LIMIT == limit.limit
    limit.record_success(INITIAL_LIMIT // 2)
    assert INITIAL_LIMIT + 1 == limit.limit
