"""Kinds and statuses: known in any case, unknown as they are."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden._wire import TERMINAL, Kind, Status


@pytest.mark.parametrize("text", ["Running", "running", "RUNNING"])
def test_a_known_status_is_found_in_any_case(text: str) -> None:
    assert Status.RUNNING is Status(text)


def test_an_unknown_value_becomes_a_member_that_is_its_own_string() -> None:
    member = Status("Hibernated")

    assert isinstance(member, Status)
    assert "Hibernated" == member == member.value == member.name == str(member)
    assert "<Status.Hibernated: 'Hibernated'>" == repr(member)


def test_an_unknown_value_keeps_its_case_and_is_compared_by_it() -> None:
    assert Status("hibernated") != Status("Hibernated")


def test_equal_unknown_members_are_one_key() -> None:
    assert {Kind("vscode"): 1} == {Kind("vscode"): 1, "vscode": 1}


def test_unknown_values_do_not_grow_the_class() -> None:
    Kind("vscode")

    assert "vscode" not in list(Kind)
    assert not Kind("vscode").is_known
    assert Kind.CARTA.is_known


@given(st.text())
def test_any_string_is_a_member_that_pickles_and_copies_and_becomes_json(text: str) -> None:
    member = Kind(text)

    assert member == pickle.loads(pickle.dumps(member)) == copy.deepcopy(member)
    assert type(member) is type(pickle.loads(pickle.dumps(member)))
    assert member == json.loads(json.dumps(member))
    assert hash(member) == hash(member.value)


@pytest.mark.parametrize("value", [None, 5, b"Running"])
def test_only_strings_are_members(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid Status"):
        Status(value)


def test_sessions_end_in_four_statuses() -> None:
    ended = {status for status in Status if status.is_terminal}

    assert {"Completed", "Succeeded", "Failed", "Error"} == ended == TERMINAL
    assert not Status("Hibernated").is_terminal


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Completed", "Succeeded", True),
        ("Succeeded", "completed", True),
        ("Failed", "Error", False),
        ("Hibernated", "hibernated", True),
        ("Running", "Pending", False),
    ],
)
def test_statuses_match_across_servers_and_cases(one: str, other: str, same: bool) -> None:
    assert same is Status(one).matches(other) is Status(other).matches(one)
