"""Parsing of the table of events, a text for people."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.samples import EVENTS, make_response
from kaleden._wire import Event
from kaleden._wire._responses import parse_events

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
    ) == parse_events(make_response(EVENTS))


@pytest.mark.parametrize("table", ["", "<none>\n", HEADER, f"{HEADER}<none>\n", "\n\n"])
def test_empty_event_tables_have_no_events(table: str) -> None:
    assert () == parse_events(make_response(table))


def test_event_message_may_contain_line_breaks() -> None:
    table = (
        f"{HEADER}Warning   Failed   first line\n\n  second line   {TIMES}\r\n"
        f"Normal   Ok   x   {TIMES}\n"
    )

    assert (
        Event("Warning", "Failed", "first line\n\n  second line", TIME, TIME),
        Event("Normal", "Ok", "x", TIME, TIME),
    ) == parse_events(make_response(table))


def test_missing_event_cells_are_empty() -> None:
    table = "<none>   <none>   <none>   <none>   <none>\n"

    assert (Event("", "", ""),) == parse_events(make_response(table))


def test_missing_event_message_is_empty() -> None:
    assert (Event("Normal", "Ok", "", TIME, TIME),) == parse_events(
        make_response(f"Normal  Ok   {TIMES}\n")
    )


def test_truncated_row_does_not_affect_other_rows() -> None:
    table = f"{HEADER}Normal   Pulling   pulling im\nNormal   Ok   x   {TIMES}\nWarning"

    assert (
        Event("Normal", "Pulling", "pulling im"),
        Event("Normal", "Ok", "x", TIME, TIME),
        Event("Warning", "", ""),
    ) == parse_events(make_response(table))


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1))
def test_event_message_of_any_words_round_trips(words: list[str]) -> None:
    message = " ".join(words)
    (event,) = parse_events(make_response(f"{HEADER}Normal   Ok   {message}   {TIMES}\n"))

    assert Event("Normal", "Ok", "" if message == "<none>" else message, TIME, TIME) == event


@given(st.text() | st.binary())
def test_any_text_is_parsed_as_events(table: str | bytes) -> None:
    body = table if isinstance(table, bytes) else table.encode("utf-8", "surrogatepass")

    assert all(isinstance(event, Event) for event in parse_events(make_response(body)))
