"""Fixtures for the promises: event loops, and a counter of trials."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from conftest import BACKENDS
from promises.loops import VIRTUAL_LOOPS, VirtualLoop

LOOPS = list(BACKENDS)
if find_spec("uvloop") is not None:
    LOOPS.insert(-1, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))

TRIALS = "trials"


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=VIRTUAL_LOOPS, ids=str)
def virtual(request: pytest.FixtureRequest) -> VirtualLoop:
    """Return an event loop in virtual time."""
    loop: VirtualLoop = request.param
    return loop


@pytest.fixture
def count_trials(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Record the number of trials of a test. Without a record, a test counts as one trial."""

    def count(number: int) -> None:
        record_property(TRIALS, number)

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the number of trials of each promise."""
    counts = Counter[int]()
    for report in terminalreporter.getreports("passed"):
        promise = re.search(r"promises/test_promise_(\d+)_", report.nodeid)
        if promise is not None:
            numbers = [number for name, number in report.user_properties if name == TRIALS]
            counts[int(promise[1])] += sum(numbers) or 1
    if counts:
        summary = "  ".join(f"{promise}: {counts[promise]}" for promise in sorted(counts))
        terminalreporter.section(f"trials by promise, Python {sys.version.split()[0]}")
        terminalreporter.write_line(summary)
