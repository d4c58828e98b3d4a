"""The JSON parsers agree with the standard library."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from _wire.samples import RUNNING, make_response
from _wire.strategies import json_values
from kaleden._wire import MalformedResponse
from kaleden._wire._primitives import iterate_array, parse_json
from kaleden._wire._responses import parse_list

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
