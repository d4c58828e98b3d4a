"""The server's scalars: text, times, sizes and counts, most of which arrive as strings.

Every function here is total: what cannot be read is None (or ``""``), never an exception. Blank,
absent, ``<none>`` and ``not-applicable`` are alike, because servers of different age use each.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

NOTHING = frozenset({"", "<none>", "not-applicable"})
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


def text(value: Any) -> str:
    """Return a string that says something, or ``""``."""
    return value if isinstance(value, str) and value not in NOTHING else ""


def optional_text(value: Any) -> str | None:
    """Return a string that says something, or None."""
    return text(value) or None


def flag(value: Any) -> bool | None:
    """Return a boolean that came as itself or as ``"true"`` or ``"false"``."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(text(value).lower())


def count(value: Any) -> int | None:
    """Return a whole number that came as itself or as digits, such as a GPU count or a uid."""
    if type(value) is int and 0 <= value < _EXACT:
        return value
    amount = _quantity(value, _PIECES)
    return int(amount) if amount is not None and amount.is_integer() else None


def cores(value: Any) -> float | None:
    """Return CPU cores: ``"0.25"``, or ``"250m"`` from older servers."""
    return _quantity(value, _CORES)


def size(value: Any) -> int | None:
    """Return bytes: ``"4.29"`` (GB), ``"16G"`` and ``"101M"`` are decimal, ``"90Mi"`` binary."""
    amount = _quantity(value, _BYTES)
    return None if amount is None else round(amount)


def gibibytes(value: Any) -> int | None:
    """Return bytes from a number of GiB."""
    amount = _quantity(value, _GIBIBYTES)
    return None if amount is None else round(amount)


def time(value: Any) -> datetime | None:
    """Return an aware time; one that names no zone is in UTC, as all of the server's are."""
    try:
        # The server leaves the seconds out when they are zero; fromisoformat takes that.
        moment = datetime.fromisoformat(text(value))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _quantity(value: Any, units: dict[str, float]) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        amount = float(value) * units[""]
    except (TypeError, ValueError, OverflowError):
        amount = _suffixed(text(value), units)
    return amount if 0 <= amount < math.inf else None


def _suffixed(quantity: str, units: dict[str, float]) -> float:
    """Read a number with a unit after it; what cannot be read is not a number."""
    match = _QUANTITY.fullmatch(quantity)
    return float(match[1]) * units.get(match[2], math.nan) if match else math.nan
