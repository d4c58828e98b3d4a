"""The JSON parsers agree with the standard library."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from _wire.samples import RUNNING, make_response
from _wire.strategies import json_values
from kaleden._wire import MalformedResponse
from kaleden._wire._primitives import iterate_array, parse_json
from kaleden._wire._responses import parse_info, parse_list

nearly_json = st.text('[]{},:" \t\n\r01.-eatruf\\\u00a0', max_size=12)


def parse_or_error(parse: Callable[[Any], Any], text: Any) -> Any:
    try:
        return repr(parse(text))  # compared as text, because NaN is not equal to itself
    except ValueError:
        return ValueError


def parse_array(body: bytes) -> list[Any]:
    return list(iterate_array(body))


def parse_array_with_json(text: str) -> list[Any]:
    value = json.loads(text)
    if isinstance(value, list):
        return value
    raise ValueError


@given(nearly_json | json_values.map(json.dumps) | st.lists(json_values).map(json.dumps))
@example("")
@example("[1,]")
@example("[,1]")
@example("[1 2]")
@example("[1][2]")
@example(" [ ] ")
@example("[] 1")
@example("[1,2")
@example("[NaN, 1e999, 1]")
def test_json_is_parsed_as_by_the_standard_library(text: str) -> None:
    assert parse_or_error(json.loads, text) == parse_or_error(parse_json, text.encode())
    assert parse_or_error(parse_array_with_json, text) == parse_or_error(parse_array, text.encode())


def test_list_is_parsed_in_slices() -> None:
    response = make_response(json.dumps([RUNNING] * 1000))
    assert 10 == sum(1 for _ in parse_list.steps(response))
    assert 1000 == len(parse_list(response).sessions)


@pytest.mark.parametrize("end", ["", "]]", ", ]", " 1]", "}"])
def test_truncated_list_is_malformed(end: str) -> None:
    elements = ", ".join(["{}"] * 1000)
    with pytest.raises(MalformedResponse):
        parse_list(make_response(f"[{elements}{end}"))


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("member", "value"),
    [
        (f'"runAsUID": {"9" * 5000}', "9" * 5000),
        (f'"other": {DEEP}', None),
        ('"other": ' + '{"a":' * 50_000 + "1" + "}" * 50_000, None),
        (f'"other": {{"strings": ["]", "}}", "\\""], "deep": {DEEP}}}', None),
    ],
    ids=["digits", "arrays", "objects", "mixed"],
)
def test_member_that_python_cannot_hold_costs_only_itself(member: str, value: object) -> None:
    strange = f'{{"id": "b1234567", {member}, "name": "fits", "status": "Running"}}'
    plain = json.dumps(RUNNING)
    sessions = parse_list(make_response(f"[{plain}, {strange} ,{plain}]")).sessions
    assert [RUNNING["id"], "b1234567", RUNNING["id"]] == [info.id for info in sessions]
    info = sessions[1]
    assert ("fits", "Running") == (info.name, info.status)
    assert value == info.raw.get("runAsUID")
    assert pickle.loads(pickle.dumps(info)) == info
    assert "fits" in repr(info)
    assert json.loads(json.dumps(info.raw)) == info.raw
    assert "b1234567" == parse_info(make_response(strange)).id


@pytest.mark.parametrize("element", ["9" * 5000, DEEP], ids=["digits", "arrays"])
def test_element_that_python_cannot_hold_costs_only_itself(element: str) -> None:
    plain = json.dumps(RUNNING)
    listing = parse_list(make_response(f"[{plain}, {element}, {plain}]"))
    assert 2 == len(listing.sessions)
    [malformed] = listing.malformed
    assert element.startswith(malformed)


def test_lone_surrogates_are_replaced() -> None:
    text = r'[{"id": "b1234567", "name": "a\ud800b", "status": "St\udfff", "type": "headless"}]'
    [info] = parse_list(make_response(text)).sessions
    assert ("a\ufffdb", "St\ufffd") == (info.name, info.status)
    assert str(info).encode()
    assert "a\ud800b" == info.raw["name"]
    assert json.dumps(info.raw).encode()
    pair = r'[{"id": "b1234567", "name": "\ud83d\ude00"}]'
    assert "\U0001f600" == parse_list(make_response(pair)).sessions[0].name


@pytest.mark.parametrize("end", ["", "}", ', "x": 1'])
def test_deep_object_that_does_not_end_is_malformed(end: str) -> None:
    with pytest.raises(MalformedResponse):
        parse_list(make_response(f'[{{"id": "b1234567", "other": {DEEP[:-1]}{end}'))
