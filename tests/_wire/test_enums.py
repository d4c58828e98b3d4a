"""Kinds and statuses: known values ignoring case, unknown values unchanged."""

from __future__ import annotations

import copy
import json
import pickle
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden import Outcomes, Success
from kaleden._wire import TERMINAL_STATUSES, SessionKind, SessionStatus
from kaleden._wire._decoders import read_session_info


@pytest.mark.parametrize("text", ["Running", "running", "RUNNING"])
def test_known_status_is_found_in_any_case(text: str) -> None:
    assert SessionStatus.RUNNING is SessionStatus(text)


def test_unknown_value_becomes_a_member_equal_to_its_string() -> None:
    member = SessionStatus("Hibernated")

    assert isinstance(member, SessionStatus)
    assert "Hibernated" == member == member.value == member.name == str(member)
    assert "<SessionStatus.Hibernated: 'Hibernated'>" == repr(member)


def test_unknown_values_are_compared_case_sensitively() -> None:
    assert SessionStatus("hibernated") != SessionStatus("Hibernated")


def test_equal_unknown_members_are_the_same_key() -> None:
    assert {SessionKind("vscode"): 1} == {SessionKind("vscode"): 1, "vscode": 1}


def test_unknown_values_are_not_stored_in_the_class() -> None:
    SessionKind("vscode")

    assert "vscode" not in list(SessionKind)
    assert not SessionKind("vscode").is_known
    assert SessionKind.CARTA.is_known


# Names of attributes of an enumeration, and strings that JSON can escape but UTF-8 cannot encode.
ODD_VALUES = ["Paused", "", "__dict__", "mro", "name", "CARTA", "\ud800", "\x00", "a b"]
ANY_TEXT = st.text() | st.sampled_from(ODD_VALUES)


def make_copies(value: Any) -> list[Any]:
    """Return copies of *value* by each protocol of pickle, and by `copy` and `deepcopy`."""
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    pickled = [pickle.loads(pickle.dumps(value, protocol)) for protocol in protocols]
    # The pure Python pickler has separate code for each protocol.
    pure = [pickle.loads(pickle._dumps(value, protocol)) for protocol in protocols]  # type: ignore[attr-defined]  # no stub has it
    return [*pickled, *pure, copy.copy(value), copy.deepcopy(value)]


@given(ANY_TEXT)
def test_members_of_any_string_pickle_copy_and_serialize(text: str) -> None:
    for member in (SessionKind(text), SessionStatus(text)):
        for other in make_copies(member):
            assert type(member) is type(other)
            assert (member, member.name, member.value) == (other, other.name, other.value)
            assert member.is_known is other.is_known
        assert member == json.loads(json.dumps(member))
        assert hash(member) == hash(member.value)


@pytest.mark.parametrize("member", [*SessionKind, *SessionStatus])
def test_known_members_stay_the_same_object(member: SessionKind | SessionStatus) -> None:
    assert all(member is other for other in make_copies(member))


@pytest.mark.parametrize("text", ODD_VALUES)
def test_members_pickle_and_copy_if_python_looks_them_up_by_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reduce_by_name(self: Enum, _protocol: object) -> Any:
        return getattr, (type(self), self._name_)

    # Python 3.11.2 does this.
    monkeypatch.setattr(Enum, "__reduce_ex__", reduce_by_name)

    for other in make_copies(SessionStatus(text)):
        assert (SessionStatus, SessionStatus(text)) == (type(other), other)


@pytest.mark.parametrize("text", ODD_VALUES)
def test_outcomes_with_unknown_members_pickle_and_copy(text: str) -> None:
    info = read_session_info({"id": "a", "type": text, "status": text})
    outcomes = Outcomes("info", [Success("a", info)])

    for other in make_copies(outcomes):
        [same] = other.values
        assert info == same
        assert (info.kind, info.status) == (same.kind, same.status)


def test_value_of_unknown_member_is_a_plain_string() -> None:
    class Foreign(str):
        def __str__(self) -> str:
            return "something else"

    member = SessionKind(Foreign("vscode"))

    assert "vscode" == member == member.value == str(member)
    assert str is type(member.value)


@pytest.mark.parametrize("value", [None, 5, b"Running"])
def test_non_strings_are_not_members(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid SessionStatus"):
        SessionStatus(value)


def test_terminal_statuses_are_four() -> None:
    ended = {status for status in SessionStatus if status.is_terminal}

    assert {"Completed", "Succeeded", "Failed", "Error"} == ended == TERMINAL_STATUSES
    assert not SessionStatus("Hibernated").is_terminal


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
    assert same is SessionStatus(one).matches(other) is SessionStatus(other).matches(one)
