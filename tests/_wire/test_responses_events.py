"""The table of events, which was made for eyes and not for programs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.samples import EVENTS, reply
from kaleden._wire import Event, parse_events

HEADER = "TYPE     REASON      MESSAGE   FIRST-TIME   LAST-TIME\n"
TIME = datetime(2026, 8, 1, 10, 20, 29, tzinfo=UTC)
TIMES = "2026-08-01T10:20:29Z   2026-08-01T10:20:29Z"


def test_rows_are_split_from_both_ends() -> None:
    assert (
        Event(
            "Normal",
            "Scheduled",
            "Successfully assigned ns/skaha-headless…",
            TIME,
            datetime(2026, 8, 1, 10, 20, 30, tzinfo=UTC),
        ),
        Event(
            "Warning",
            "BackOff",
            'Back-off   pulling image "x"',
            datetime(2026, 8, 1, 10, 21, tzinfo=UTC),
            None,
        ),
    ) == parse_events(reply(EVENTS))


@pytest.mark.parametrize("table", ["", "<none>\n", HEADER, f"{HEADER}<none>\n", "\n\n"])
def test_no_events_are_none(table: str) -> None:
    assert () == parse_events(reply(table))


def test_a_message_with_line_ends_is_one_message() -> None:
    table = (
        f"{HEADER}Warning   Failed   first line\n\n  second line   {TIMES}\r\n"
        f"Normal   Ok   x   {TIMES}\n"
    )

    assert (
        Event("Warning", "Failed", "first line\n\n  second line", TIME, TIME),
        Event("Normal", "Ok", "x", TIME, TIME),
    ) == parse_events(reply(table))


def test_cells_without_a_value_are_empty() -> None:
    table = "<none>   <none>   <none>   <none>   <none>\n"

    assert (Event("", "", ""),) == parse_events(reply(table))


def test_an_empty_message_is_empty() -> None:
    assert (Event("Normal", "Ok", "", TIME, TIME),) == parse_events(
        reply(f"Normal  Ok   {TIMES}\n")
    )


def test_a_row_that_is_cut_short_is_kept_and_costs_no_other() -> None:
    table = f"{HEADER}Normal   Pulling   pulling im\nNormal   Ok   x   {TIMES}\nWarning"

    assert (
        Event("Normal", "Pulling", "pulling im"),
        Event("Normal", "Ok", "x", TIME, TIME),
        Event("Warning", "", ""),
    ) == parse_events(reply(table))


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1))
def test_any_message_of_words_comes_back(words: list[str]) -> None:
    message = " ".join(words)
    (event,) = parse_events(reply(f"{HEADER}Normal   Ok   {message}   {TIMES}\n"))

    assert Event("Normal", "Ok", "" if message == "<none>" else message, TIME, TIME) == event


@given(st.text() | st.binary())
def test_any_text_is_some_events(table: str | bytes) -> None:
    body = table if isinstance(table, bytes) else table.encode("utf-8", "surrogatepass")

    assert all(isinstance(event, Event) for event in parse_events(reply(body)))
