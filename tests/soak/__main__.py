"""Run the soak: ``python -m soak [operations]``, from ``tests``, or ``nox -s soak``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from soak.measures import Measure
from soak.memory import soak_in_memory
from soak.sockets import soak_over_sockets
from support import PLAIN_BACKENDS

OPERATIONS = 100_000
# Sockets and processes take a hundred times as long as memory does.
SHARE_OVER_SOCKETS = 0.2


def show(title: str, measures: Iterable[Measure]) -> None:
    """Print one table."""
    print(f"\n{title}", flush=True)
    rows = [Measure.HEADINGS, *(measure.cells() for measure in measures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main(operations: int) -> bool:
    """Soak on each backend, in memory and over sockets; tell whether all came to rest."""
    # What goes wrong is what was asked for.
    logging.getLogger("kaleden").setLevel(logging.CRITICAL)
    calm = True
    for backend in PLAIN_BACKENDS:
        for name, soak, count in (
            ("in virtual time", soak_in_memory, operations),
            ("over sockets", soak_over_sockets, int(operations * SHARE_OVER_SOCKETS)),
        ):
            report = soak(backend, count)
            show(f"{backend}, {name}: {count} operations, {report.requests} requests", report.table)
            print(f"memory after the first third: {report.slope()}")
            print(f"at rest: {report.rest}")
            calm = calm and report.at_rest
    return calm


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else OPERATIONS))
