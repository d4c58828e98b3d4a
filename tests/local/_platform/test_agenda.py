"""Dates that come, are put off, and are struck off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kaleden.local._platform._state_machine import TimerQueue

KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("strike off"), KEYS, st.none()),
        st.tuples(st.just("take"), st.none(), st.integers(0, 50)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_does_as_a_plain_table_would(steps: list[tuple[str, str, int]]) -> None:
    agenda, table = TimerQueue(), dict[str, float]()
    for step, key, date in steps:
        if step == "put":
            agenda.set(key, date)
            table[key] = date
        elif step == "strike off":
            agenda.discard(key)
            table.pop(key, None)
        else:
            due = sorted((at, each) for each, at in table.items() if at <= date)
            assert [each for _, each in due] == list(agenda.pop_due(date))
            table = {each: at for each, at in table.items() if at > date}


def test_what_is_put_while_others_are_taken_comes_in_its_turn() -> None:
    agenda = TimerQueue()
    agenda.set("a", 1)
    taken = []
    for key in agenda.pop_due(5):
        taken.append(key)
        if len(taken) < 5:
            agenda.set(key, len(taken) + 1)
    assert ["a"] * 5 == taken


def test_what_was_struck_off_takes_no_room() -> None:
    agenda = TimerQueue()
    for number in range(10_000):
        agenda.set(f"session{number}", 10**6 + number)
        agenda.discard(f"session{number}")
    assert len(agenda) < 100
