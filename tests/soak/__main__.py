"""Run the soak: ``python -m soak [operations]``, from ``tests``, or ``nox -s soak``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable

from soak.measures import Measure
from soak.memory import soak_in_memory
from soak.sockets import soak_over_sockets
from support import PLAIN_BACKENDS

OPERATIONS = 100_000
SOAKS = {"in virtual time": soak_in_memory, "over sockets": soak_over_sockets}


def print_table(title: str, measures: Iterable[Measure]) -> None:
    """Print one table."""
    print(f"\n{title}")
    rows = [Measure.HEADINGS, *(measure.format_cells() for measure in measures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main(operations: int) -> bool:
    """Run the soak on each backend, in memory and over sockets; return whether all came to rest."""
    # The failures are injected, so do not log them.
    logging.getLogger("kaleden").setLevel(logging.CRITICAL)
    all_at_rest = True
    for backend in PLAIN_BACKENDS:
        for name, soak in SOAKS.items():
            report = soak(backend, operations)
            print_table(
                f"{backend}, {name}: {operations} operations, {report.requests} requests",
                report.table,
            )
            print(f"memory after the first third: {report.describe_slope()}")
            print(f"at rest: {report.rest}")
            print(f"before it: {report.before}, after it: {report.after}", flush=True)
            all_at_rest = all_at_rest and report.at_rest
    return all_at_rest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("operations", nargs="?", type=int, default=OPERATIONS)
    sys.exit(not main(parser.parse_args().operations))
