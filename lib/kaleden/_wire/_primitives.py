"""The server's scalars: text, times, sizes and counts, most of which arrive as strings.

Every function here is total: what cannot be read is None (or ``""``), never an exception. Blank,
absent, ``<none>`` and ``not-applicable`` are alike, because servers of different age use each.
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


def parse_json(body: bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none.
        RecursionError: it is too deep.
    """
    text = decode_text(body)
    try:
        # Looking for space at both ends is a third of what `json.loads` takes for one session.
        value, end = _decoder.raw_decode(text)
    except ValueError:
        return json.loads(text)

    return json.loads(text) if text[end:].strip(_SPACE) else value


def iterate_array(body: bytes) -> Iterator[Any]:
    """Read a JSON array, one element at a time.

    Raises:
        ValueError: it is none; only when that is reached.
        RecursionError: it is too deep.
    """
    text = decode_text(body)
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


MAX_MESSAGE = 500
"""Longest message, in characters."""

_EXCERPT_BYTES = 16_384  # bytes; an error page has said what it has to say by then
# None of these looks at a character more than a few times, whatever a server sends.
_TITLE = re.compile(r"<title\b[^<>]*>([^<]*)", re.IGNORECASE)
_INVISIBLE = re.compile(
    r"<(script|style|head)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL
)
_TAG = re.compile(r"<[^>]*>?")
_STATUS = re.compile(r'"kind"\s*:\s*"Status"')
_MESSAGE = re.compile(r'"message"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)


def decode_text(body: bytes) -> str:
    """Return the text of a body, whatever bytes it has."""
    return body.decode("utf-8", "replace").removeprefix("\ufeff")


def decode_excerpt(body: bytes) -> str:
    """Return the text of as much of a body as a message can be made of."""
    return decode_text(body[:_EXCERPT_BYTES])


def format_one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return *text* on one line, without control characters, cut to *limit* characters."""
    printable = "".join(c if c.isprintable() else " " for c in text.strip()[: 4 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def is_html(content_type: str, text: str) -> bool:
    """Tell an HTML page by its content type, or by how it begins."""
    start = text[:64].lstrip().lower()
    return "html" in content_type.lower() or start.startswith(("<!doctype html", "<html"))


def extract_page_text(page: str) -> str:
    """Return an HTML page's title, or else its first words."""
    title = _TITLE.search(page)
    said = format_one_line(html.unescape(title[1])) if title else ""
    return said or format_one_line(html.unescape(_TAG.sub(" ", _INVISIBLE.sub(" ", page))))


def extract_kubernetes_message(text: str) -> str | None:
    """Return what Kubernetes said, if *text* is a Java exception that wraps it."""
    status = _STATUS.search(text)
    match = _MESSAGE.search(text, status.end()) if status else None
    if match is None:
        return None
    try:
        return format_one_line(json.loads(match[1], strict=False)) or None
    except ValueError:
        return None


MISSING_VALUES = frozenset({"", "<none>", "not-applicable"})
"""The strings by which servers say that there is no value."""

_QUANTITY = re.compile(r"(\d{1,30}(?:\.\d{0,30})?)\s*([A-Za-z]{0,3})", re.ASCII)
# Session objects give memory as decimal GB without a unit, so that is what a bare number is.
_BYTES = {"": 1e9, "B": 1.0, "k": 1e3} | {
    f"{letter}{suffix}": float(base**power)
    for power, letter in enumerate("KMGTPE", 1)
    for suffix, base in {"": 1000, "B": 1000, "i": 1024, "iB": 1024}.items()
}
_EXACT = 2**53  # below, a float holds every whole number
_GIBIBYTES = {"": float(2**30)}
_PIECES = {"": 1.0}
_CORES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def parse_text(value: Any) -> str:
    """Return a string that says something, or ``""``."""
    return value if isinstance(value, str) and value not in MISSING_VALUES else ""


def parse_optional_text(value: Any) -> str | None:
    """Return a string that says something, or None."""
    return parse_text(value) or None


def parse_flag(value: Any) -> bool | None:
    """Return a boolean that came as itself or as ``"true"`` or ``"false"``."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(parse_text(value).lower())


def parse_count(value: Any) -> int | None:
    """Return a whole number that came as itself or as digits, such as a GPU count or a uid."""
    if type(value) is int and 0 <= value < _EXACT:
        return value
    amount = _parse_quantity(value, _PIECES)
    return int(amount) if amount is not None and amount.is_integer() else None


def parse_cores(value: Any) -> float | None:
    """Return CPU cores: ``"0.25"``, or ``"250m"`` from older servers."""
    return _parse_quantity(value, _CORES)


def parse_size(value: Any) -> int | None:
    """Return bytes: ``"4.29"`` (GB), ``"16G"`` and ``"101M"`` are decimal, ``"90Mi"`` binary."""
    amount = _parse_quantity(value, _BYTES)
    return None if amount is None else round(amount)


def parse_gibibytes(value: Any) -> int | None:
    """Return bytes from a number of GiB."""
    amount = _parse_quantity(value, _GIBIBYTES)
    return None if amount is None else round(amount)


def parse_time(value: Any) -> datetime | None:
    """Return an aware time; one that names no zone is in UTC, as all of the server's are."""
    try:
        # The server leaves the seconds out when they are zero; fromisoformat takes that.
        moment = datetime.fromisoformat(parse_text(value))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _parse_quantity(value: Any, units: dict[str, float]) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        amount = float(value) * units[""]
    except (TypeError, ValueError, OverflowError):
        amount = _parse_suffixed(parse_text(value), units)
    return amount if 0 <= amount < math.inf else None


def _parse_suffixed(quantity: str, units: dict[str, float]) -> float:
    """Read a number with a unit after it; what cannot be read is not a number."""
    match = _QUANTITY.fullmatch(quantity)
    return float(match[1]) * units.get(match[2], math.nan) if match else math.nan
