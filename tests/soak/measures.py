"""Repeated measurements of the resources of a process."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import ClassVar

import anyio
from attrs import define, field, frozen

import kaleden

PARTS = 12
"""The number of measurements of a soak. The first third covers allocations that are made once."""

KIB = 1024


def read_resident() -> int:
    """Return the resident memory of the process, in bytes."""
    if sys.platform != "linux":
        return 0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def measure_traced() -> int:
    """Return the bytes that Python has allocated, except in the platform, which keeps all sessions.

    The allocations of tracemalloc are not counted either.
    """
    excluded = ["*/kaleden/local/*", "*/kaleden/testing/*", tracemalloc.__file__]
    filters = [tracemalloc.Filter(False, pattern) for pattern in excluded]
    snapshot = tracemalloc.take_snapshot().filter_traces(filters)
    return sum(trace.size for trace in snapshot.traces)


@frozen
class Measure:
    """The resources of the process after a number of operations."""

    operations: int
    resident: int
    traced: int
    tasks: int
    threads: int
    descriptors: int

    HEADINGS: ClassVar[tuple[str, ...]] = (
        "operations",
        "RSS KiB",
        "traced KiB",
        "tasks",
        "threads",
        "descriptors",
    )

    def format_cells(self) -> tuple[str, ...]:
        return (
            str(self.operations),
            str(self.resident // KIB),
            str(self.traced // KIB),
            str(self.tasks),
            str(self.threads),
            str(self.descriptors),
        )


def measure(operations: int) -> Measure:
    """Measure the resources of this process. Call this in its event loop."""
    gc.collect()
    return Measure(
        operations,
        read_resident(),
        measure_traced(),
        len(anyio.get_running_tasks()),
        threading.active_count(),
        count_descriptors(),
    )


@define
class Report:
    """The result of a soak.

    Attributes:
        table: the measurements during the soak.
        before: the measurement before the client was opened.
        after: the measurement after the client was closed.
        requests: the number of requests sent.
        rest: the state of the client at the end.
        sessions: the number of sessions that were left without an owner.
    """

    table: list[Measure] = field(factory=list[Measure])
    before: Measure | None = None
    after: Measure | None = None
    requests: int = 0
    rest: kaleden.SessionStatistics | None = None
    sessions: int = 0

    @property
    def at_rest(self) -> bool:
        """Whether nothing is in flight, stuck or left over."""
        if self.rest is None or self.before is None or self.after is None:
            return False
        transport = self.rest.transport
        return (
            (0, 0, 0) == (self.rest.limiter.in_flight, self.rest.limiter.waiting, self.sessions)
            and (transport is None or (0, 0) == (transport.in_flight, transport.stuck))
            and self.after.tasks <= self.before.tasks
            and self.after.descriptors <= self.before.descriptors
            # An event loop starts worker threads at its first address look-up, and keeps them.
            and self.after.threads <= self.table[0].threads
        )

    def describe_slope(self) -> str:
        """Return the memory growth for ten thousand operations, by least squares."""
        later = self.table[len(self.table) // 3 :]
        resident = fit_slope([(each.operations, each.resident) for each in later])
        traced = fit_slope([(each.operations, each.traced) for each in later])
        return (
            f"RSS {resident * 10_000 / KIB:+.1f}, traced {traced * 10_000 / KIB:+.1f} "
            "KiB per 10 000 operations"
        )


def fit_slope(points: list[tuple[int, int]]) -> float:
    """Fit a line by least squares, and return its slope."""
    count = len(points)
    middle_x = sum(x for x, _ in points) / count
    middle_y = sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
