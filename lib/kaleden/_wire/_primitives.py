"""Parsers of JSON, error texts and scalar values.

The server sends most scalars (times, sizes, counts) as strings. The parsers of scalars never raise:
a value that cannot be parsed is None or ``""``. Missing values, ``""``, ``<none>`` and
``not-applicable`` are treated alike, because servers of different versions use each of them.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeGuard

JsonObject = dict[str, Any]
JsonArray = list[Any]

_SPACE = " \t\n\r"
_OPENING = re.compile(rf"[{_SPACE}]*\[[{_SPACE}]*(\]?)[{_SPACE}]*")
_AFTER_ELEMENT = re.compile(rf"[{_SPACE}]*([,\]])[{_SPACE}]*")
_decoder = json.JSONDecoder()

_MAX_DEPTH = 100
"""Levels of nesting; `pickle` fails at a few hundred."""


def parse_json(body: bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the body is not JSON.
        RecursionError: the JSON is nested too deeply.
    """
    text = decode_text(body)
    try:
        # For one session, a third of the time of `json.loads` is spent on matching white space at
        # both ends.
        value, end = _decode(_decoder, text, 0)
    except json.JSONDecodeError:
        return json.loads(text)
    except (ValueError, RecursionError):
        value, end = _decode_partly(text, 0)

    return json.loads(text) if text[end:].strip(_SPACE) else value


def iterate_array(body: bytes) -> Iterator[Any]:
    """Parse a JSON array one element at a time.

    A number with more digits than Python converts becomes a string. An element that is nested too
    deeply becomes a string of its first characters; an object loses only those of its members.

    Raises:
        ValueError: the body is not a JSON array. Raised only when the iteration reaches the error.
    """
    text = decode_text(body)
    delimiter = _OPENING.match(text)
    while delimiter is not None and delimiter[1] != "]":
        start = delimiter.end()
        try:
            value, position = _decode(_decoder, text, start)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError):
            value, position = _decode_element(text, start)
        yield value
        delimiter = _AFTER_ELEMENT.match(text, position)

    if delimiter is None or delimiter.end() != len(text):
        raise ValueError("this is not a JSON array")


def _decode(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    """Decode a JSON value; return it, and where it ends.

    Raises:
        ValueError: this is not JSON.
        RecursionError: it is nested too deeply to be decoded, or to be encoded again.
    """
    value, end = decoder.raw_decode(text, start)
    # To count the brackets takes far less time than to measure how deep they are.
    brackets = text.count("[", start, end) + text.count("{", start, end)
    if brackets > _MAX_DEPTH and _measure_depth(text, start, end) > _MAX_DEPTH:
        raise RecursionError

    return value, end


def _measure_depth(text: str, start: int, end: int) -> int:
    depth = deepest = 0
    for token in _TOKEN.finditer(text, start, end):
        depth += _get_step(token[0])
        deepest = max(depth, deepest)
    return deepest


def _get_step(token: str) -> int:
    return (token in {"[", "{"}) - (token in {"]", "}"})


def _decode_element(text: str, start: int) -> tuple[Any, int]:
    """Decode what can be decoded of an array element; return it, and where the element ends."""
    try:
        return _decode_partly(text, start)
    except RecursionError:
        end = _find_end(text, start)
        return text[start : min(end, start + MAX_MESSAGE)], end


def _decode_partly(text: str, start: int) -> tuple[Any, int]:
    """Decode a JSON value; leave out those members of an object that are nested too deeply.

    Raises:
        ValueError: this is not JSON.
        RecursionError: it is nested too deeply, and not an object.
    """
    try:
        return _decode(_lenient_decoder, text, start)
    except RecursionError:
        if text[start : start + 1] != "{":
            raise

    members: dict[str, Any] = {}
    position = start + 1
    while (key := _KEY.match(text, position)) is not None:
        name, _ = _lenient_decoder.raw_decode(key[1])
        try:
            members[name], position = _decode(_lenient_decoder, text, key.end())
        except RecursionError:
            position = _find_end(text, key.end())
        end = _AFTER_MEMBER.match(text, position)
        if end is None:
            break
        if end[1] == "}":
            return members, end.end()
        position = end.end()
    raise ValueError("this is not a JSON object")


def _find_end(text: str, start: int) -> int:
    """Return where an array or object ends, by its brackets.

    Raises:
        ValueError: it does not end.
    """
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] == '"':
            break  # A string does not end.
        depth += _get_step(token[0])
        if depth == 0:
            return token.end()
    raise ValueError("this JSON value does not end")


def _parse_int(digits: str) -> int | str:
    """Parse an integer; return the digits of one with more than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


_lenient_decoder = json.JSONDecoder(parse_int=_parse_int)
_KEY = re.compile(rf"[{_SPACE}]*(\"(?:[^\"\\]|\\.)*\")[{_SPACE}]*:[{_SPACE}]*", re.DOTALL)
_AFTER_MEMBER = re.compile(rf"[{_SPACE}]*([,}}])")
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|[][{}\"]", re.DOTALL)


def is_object(value: Any) -> TypeGuard[JsonObject]:
    """Whether *value* is a JSON object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[JsonArray]:
    """Whether *value* is a JSON array."""
    return isinstance(value, list)


def as_object(value: Any) -> JsonObject:
    """Return *value* if it is a JSON object, otherwise an empty object."""
    return value if is_object(value) else {}


def as_array(value: Any) -> JsonArray:
    """Return *value* if it is a JSON array, otherwise an empty array."""
    return value if is_array(value) else []


MAX_MESSAGE = 500
"""Maximum length of a message, in characters."""

_EXCERPT_BYTES = 16_384  # The message of an error page is near its start.
# These patterns run in linear time on any input: each visits a character only a few times.
_TITLE = re.compile(r"<title\b[^<>]*>([^<]*)", re.IGNORECASE)
_INVISIBLE = re.compile(
    r"<(script|style|head)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL
)
_TAG = re.compile(r"<[^>]*>?")
_STATUS = re.compile(r'"kind"\s*:\s*"Status"')
_MESSAGE = re.compile(r'"message"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)


def decode_text(body: bytes) -> str:
    """Decode a body as UTF-8 without its byte order mark; invalid bytes become U+FFFD."""
    return body.decode("utf-8", "replace").removeprefix("\ufeff")


def decode_excerpt(body: bytes) -> str:
    """Decode the start of a body (16 KiB), enough to extract a message from."""
    return decode_text(body[:_EXCERPT_BYTES])


def format_one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Format *text* as one line without control characters, cut to *limit* characters."""
    printable = "".join(c if c.isprintable() else " " for c in text.strip()[: 4 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def is_html(content_type: str, text: str) -> bool:
    """Whether the content type or the first characters indicate an HTML page."""
    start = text[:64].lstrip().lower()
    return "html" in content_type.lower() or start.startswith(("<!doctype html", "<html"))


def extract_page_text(page: str) -> str:
    """Return the title of an HTML page, or the start of its text if it has no title."""
    title = _TITLE.search(page)
    line = format_one_line(html.unescape(title[1])) if title else ""
    return line or format_one_line(html.unescape(_TAG.sub(" ", _INVISIBLE.sub(" ", page))))


def extract_kubernetes_message(text: str) -> str | None:
    """Return the Kubernetes message if *text* is a Java exception that wraps one, else None."""
    status = _STATUS.search(text)
    match = _MESSAGE.search(text, status.end()) if status else None
    if match is None:
        return None
    try:
        return format_one_line(json.loads(match[1], strict=False)) or None
    except ValueError:
        return None


MISSING_VALUES = frozenset({"", "<none>", "not-applicable"})
"""Strings that servers send in place of a missing value."""

_QUANTITY = re.compile(r"(\d{1,30}(?:\.\d{0,30})?)\s*([A-Za-z]{0,3})", re.ASCII)
# A number without a unit is decimal GB, as in the memory fields of session objects.
_BYTES = {"": 1e9, "B": 1.0, "k": 1e3} | {
    f"{letter}{suffix}": float(base**power)
    for power, letter in enumerate("KMGTPE", 1)
    for suffix, base in {"": 1000, "B": 1000, "i": 1024, "iB": 1024}.items()
}
_EXACT = 2**53  # A float represents every whole number below this exactly.
_GIBIBYTES = {"": float(2**30)}
_NO_UNIT = {"": 1.0}
_CORES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def parse_text(value: Any) -> str:
    """Return *value* if it is a string with a value, otherwise ``""``."""
    if not isinstance(value, str) or value in MISSING_VALUES:
        return ""

    # A lone surrogate can be neither printed nor encoded.
    return value if value.isascii() else _replace_surrogates(value)


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parse_optional_text(value: Any) -> str | None:
    """Return *value* if it is a string with a value, otherwise None."""
    return parse_text(value) or None


def parse_flag(value: Any) -> bool | None:
    """Parse a boolean, or ``"true"`` or ``"false"`` in any case."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(parse_text(value).lower())


def parse_count(value: Any) -> int | None:
    """Parse a whole number, or a string of one, such as a GPU count or a uid."""
    if type(value) is int and 0 <= value < _EXACT:
        return value
    amount = _parse_quantity(value, _NO_UNIT)
    return int(amount) if amount is not None and amount.is_integer() else None


def parse_cores(value: Any) -> float | None:
    """Parse CPU cores: ``"0.25"``, or ``"250m"`` from older servers."""
    return _parse_quantity(value, _CORES)


def parse_size(value: Any) -> int | None:
    """Parse a size into bytes: ``"4.29"`` (GB), ``"16G"``, ``"101M"`` (decimal), ``"90Mi"``."""
    amount = _parse_quantity(value, _BYTES)
    return None if amount is None else round(amount)


def parse_gibibytes(value: Any) -> int | None:
    """Parse a number of GiB into bytes."""
    amount = _parse_quantity(value, _GIBIBYTES)
    return None if amount is None else round(amount)


def parse_time(value: Any) -> datetime | None:
    """Parse an ISO 8601 time into an aware one. Without a zone it is UTC, as the server's are."""
    try:
        # The server omits the seconds when they are zero; fromisoformat accepts that.
        parsed = datetime.fromisoformat(parse_text(value))
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def _parse_quantity(value: Any, units: dict[str, float]) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        amount = float(value) * units[""]
    except (TypeError, ValueError, OverflowError):
        amount = _parse_suffixed(parse_text(value), units)
    return amount if 0 <= amount < math.inf else None


def _parse_suffixed(quantity: str, units: dict[str, float]) -> float:
    """Parse a number followed by a unit; return NaN if that fails."""
    match = _QUANTITY.fullmatch(quantity)
    return float(match[1]) * units.get(match[2], math.nan) if match else math.nan
