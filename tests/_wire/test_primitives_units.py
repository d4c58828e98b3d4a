"""Parsers of the server's scalar values."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given

from _wire.strategies import json_values
from kaleden._wire import _primitives as units

MISSING: list[Any] = [
    None,
    "",
    "<none>",
    "not-applicable",
    "soon",
    True,
    [],
    {},
    "-1",
    -1,
    "nan",
    math.inf,
]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("4.29", 4_290_000_000),
        (4.29, 4_290_000_000),
        (4, 4_000_000_000),
        ("0", 0),
        ("16G", 16_000_000_000),
        ("101M", 101_000_000),
        ("9432.822G", 9_432_822_000_000),
        ("5k", 5_000),
        ("7B", 7),
        ("2 GB", 2_000_000_000),
        ("90Mi", 90 * 2**20),
        ("147GiB", 147 * 2**30),
        ("1.5Ti", 1_649_267_441_664),
    ],
)
def test_sizes_are_bytes_and_bare_numbers_are_decimal_gigabytes(written: Any, size: int) -> None:
    assert size == units.parse_size(written)


@pytest.mark.parametrize(
    ("written", "cores"), [("2m", 0.002), ("0.250", 0.25), (1.5, 1.5), ("500u", 5e-4), ("1", 1.0)]
)
def test_cores_are_parsed_with_and_without_unit(written: Any, cores: float) -> None:
    assert cores == pytest.approx(units.parse_cores(written))


@pytest.mark.parametrize("written", [3, 3.0, "3", "3.0"])
def test_counts_are_parsed_from_any_type(written: Any) -> None:
    count = units.parse_count(written)

    assert 3 == count
    assert isinstance(count, int)


@pytest.mark.parametrize(
    "read", [units.parse_size, units.parse_cores, units.parse_count, units.parse_gibibytes]
)
@pytest.mark.parametrize("invalid", [*MISSING, "12Q", "1e999", 10**400, "G"])
def test_invalid_quantity_is_none(read: Any, invalid: Any) -> None:
    assert read(invalid) is None


def test_fractional_count_is_none() -> None:
    assert units.parse_count("1.5") is None


def test_gibibytes_are_converted_to_bytes() -> None:
    assert 3 * 2**29 == units.parse_gibibytes("1.5")


@pytest.mark.parametrize("read", [units.parse_size, units.parse_gibibytes])
def test_overflowing_size_is_none(read: Any) -> None:
    assert read(1e308) is None
    assert read("1e308") is None


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ("2026-08-01T10:20:30Z", datetime(2026, 8, 1, 10, 20, 30, tzinfo=UTC)),
        ("2025-04-10T15:45Z", datetime(2025, 4, 10, 15, 45, tzinfo=UTC)),
        ("2025-04-10T15:45:01", datetime(2025, 4, 10, 15, 45, 1, tzinfo=UTC)),
        ("2025-04-10T15:45:01.123456789Z", datetime(2025, 4, 10, 15, 45, 1, 123456, tzinfo=UTC)),
        (
            "2025-04-10T15:45-07:00",
            datetime(2025, 4, 10, 15, 45, tzinfo=timezone(timedelta(hours=-7))),
        ),
    ],
)
def test_times_are_aware(written: str, time: datetime) -> None:
    read = units.parse_time(written)

    assert time == read
    assert read is not None
    assert read.tzinfo is not None


@pytest.mark.parametrize("invalid", [*MISSING, "yesterday", "2025-13-01T00:00Z"])
def test_invalid_time_is_none(invalid: Any) -> None:
    assert units.parse_time(invalid) is None


@pytest.mark.parametrize(
    ("written", "flag"),
    [(True, True), (False, False), ("true", True), ("False", False), (1, None), ("", None)],
)
def test_flags_are_parsed_from_booleans_and_strings(written: Any, flag: bool | None) -> None:
    assert flag is units.parse_flag(written)


@pytest.mark.parametrize("invalid", ["", "<none>", "not-applicable", None, 5, ["x"]])
def test_missing_text_is_empty(invalid: Any) -> None:
    assert "" == units.parse_text(invalid)
    assert units.parse_optional_text(invalid) is None


@given(json_values)
def test_any_json_value_is_parsed_without_an_error(value: Any) -> None:
    for read in (units.parse_size, units.parse_cores, units.parse_count, units.parse_gibibytes):
        amount = read(value)
        assert amount is None or 0 <= amount < math.inf
    assert isinstance(units.parse_text(value), str)
    assert units.parse_flag(value) in {True, False, None}
    assert units.parse_time(value) is None or isinstance(units.parse_time(value), datetime)
