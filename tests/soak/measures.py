"""What a process holds, measured again and again."""

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
"""Measures of one soak. The first third is for what a program makes once."""

KIB = 1024


def resident() -> int:
    """Bytes of memory that the process has."""
    if sys.platform != "linux":
        return 0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def traced() -> int:
    """Bytes that Python holds, without those of the platform, which remembers all its sessions."""
    of_others = ["*/kaleden/local/*", "*/kaleden/testing/*", tracemalloc.__file__]
    filters = [tracemalloc.Filter(False, place) for place in of_others]
    snapshot = tracemalloc.take_snapshot().filter_traces(filters)
    return sum(trace.size for trace in snapshot.traces)


@frozen
class Measure:
    """What there was after so many operations."""

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

    def cells(self) -> tuple[str, ...]:
        return (
            str(self.operations),
            str(self.resident // KIB),
            str(self.traced // KIB),
            str(self.tasks),
            str(self.threads),
            str(self.descriptors),
        )


def measure(operations: int) -> Measure:
    """Look at this process; from inside its event loop."""
    gc.collect()
    return Measure(
        operations,
        resident(),
        traced(),
        len(anyio.get_running_tasks()),
        threading.active_count(),
        descriptors(),
    )


@define
class Report:
    """What a soak came to.

    Attributes:
        table: the measures.
        before: what there was before the client was entered.
        after: what there was when it had been left.
        requests: how many were sent.
        rest: the state of the client at the end.
        sessions: how many there are that nobody owns.
    """

    table: list[Measure] = field(factory=list[Measure])
    before: Measure | None = None
    after: Measure | None = None
    requests: int = 0
    rest: kaleden.SessionStatistics | None = None
    sessions: int = 0

    @property
    def at_rest(self) -> bool:
        """Whether nothing is in flight, stuck, or left."""
        if self.rest is None or self.before is None or self.after is None:
            return False
        transport = self.rest.transport
        return (
            (0, 0, 0) == (self.rest.limiter.in_flight, self.rest.limiter.waiting, self.sessions)
            and (transport is None or (0, 0) == (transport.in_flight, transport.stuck))
            and self.after.tasks <= self.before.tasks
            and self.after.descriptors <= self.before.descriptors
            # A loop's worker threads come with the first look-up of an address, and stay.
            and self.after.threads <= self.table[0].threads
        )

    def slope(self) -> str:
        """Tell how much memory ten thousand operations took, by least squares."""
        later = self.table[len(self.table) // 3 :]
        resident = _slope([(each.operations, each.resident) for each in later])
        traced = _slope([(each.operations, each.traced) for each in later])
        return (
            f"RSS {resident * 10_000 / KIB:+.1f}, traced {traced * 10_000 / KIB:+.1f} "
            "KiB per 10 000 operations"
        )


def _slope(points: list[tuple[int, int]]) -> float:
    """Fit a line."""
    count = len(points)
    middle_x = sum(x for x, _ in points) / count
    middle_y = sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
