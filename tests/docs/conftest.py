"""A summary with the number of executed examples."""

from __future__ import annotations

from typing import Any

EXAMPLES = "examples"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the number of executed examples."""
    counts = [
        number
        for report in terminalreporter.getreports("passed")
        for name, number in report.user_properties
        if name == EXAMPLES
    ]
    if counts:
        terminalreporter.section("documentation")
        terminalreporter.write_line(f"{sum(counts)} examples executed, in {len(counts)} runs")
