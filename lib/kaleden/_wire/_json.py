"""JSON as it comes in: any value, of which some are objects and some arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from kaleden._wire._text import decoded

JsonObject = dict[str, Any]
JsonArray = list[Any]

_SPACE = " \t\n\r"
_OPENING = re.compile(rf"[{_SPACE}]*\[[{_SPACE}]*(\]?)[{_SPACE}]*")
_AFTER_ELEMENT = re.compile(rf"[{_SPACE}]*([,\]])[{_SPACE}]*")
_decoder = json.JSONDecoder()


def parse_json(body: bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none.
        RecursionError: it is too deep.
    """
    text = decoded(body)
    try:
        # Looking for space at both ends is a third of what `json.loads` takes for one session.
        value, end = _decoder.raw_decode(text)
    except ValueError:
        return json.loads(text)

    return json.loads(text) if text[end:].strip(_SPACE) else value


def array_elements(body: bytes) -> Iterator[Any]:
    """Read a JSON array, one element at a time.

    Raises:
        ValueError: it is none; only when that is reached.
        RecursionError: it is too deep.
    """
    text = decoded(body)
    mark = _OPENING.match(text)
    while mark is not None and mark[1] != "]":
        value, position = _decoder.raw_decode(text, mark.end())
        yield value
        mark = _AFTER_ELEMENT.match(text, position)

    if mark is None or mark.end() != len(text):
        raise ValueError("this is no JSON array")


def is_object(value: Any) -> TypeGuard[JsonObject]:
    """Tell a JSON object from the rest."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[JsonArray]:
    """Tell a JSON array from the rest."""
    return isinstance(value, list)


def as_object(value: Any) -> JsonObject:
    """Return a JSON object, an empty one if *value* is something else."""
    return value if is_object(value) else {}


def as_array(value: Any) -> JsonArray:
    """Return a JSON array, an empty one if *value* is something else."""
    return value if is_array(value) else []
