"""The timer queue: setting, discarding and yielding times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kaleden.local._platform._state_machine import TimerQueue

KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("discard"), KEYS, st.none()),
        st.tuples(st.just("pop"), st.none(), st.integers(0, 50)),
    ),
    max_size=60,
)


@given(STEPS)
def test_queue_matches_plain_dictionary(steps: list[tuple[str, str, int]]) -> None:
    queue, expected = TimerQueue(), dict[str, float]()
    for step, key, time in steps:
        if step == "set":
            queue.set(key, time)
            expected[key] = time
        elif step == "discard":
            queue.discard(key)
            expected.pop(key, None)
        else:
            due = sorted((at, other) for other, at in expected.items() if at <= time)
            assert [other for _, other in due] == list(queue.pop_due(time))
            expected = {other: at for other, at in expected.items() if at > time}


def test_time_set_during_iteration_is_yielded_in_order() -> None:
    queue = TimerQueue()
    queue.set("a", 1)
    taken = []
    for key in queue.pop_due(5):
        taken.append(key)
        if len(taken) < 5:
            queue.set(key, len(taken) + 1)
    assert ["a"] * 5 == taken


def test_discarded_times_use_no_memory() -> None:
    queue = TimerQueue()
    for number in range(10_000):
        queue.set(f"session{number}", 10**6 + number)
        queue.discard(f"session{number}")
    assert len(queue) < 100
