"""Functions that read ``/proc``: usage of process trees, and processes with a marker.

They block, but are fast. Without ``/proc`` they return empty results.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Usage:
    """The usage of a process tree: bytes of resident memory, and seconds of CPU time so far."""

    ram: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.ram + other.ram, self.seconds + other.seconds)


def _list_pids() -> Iterator[int]:
    with suppress(FileNotFoundError):
        for name in os.listdir(PROC):
            if name.isdigit():
                yield int(name)


def _read_stat(pid: int) -> tuple[int, Usage] | None:
    """Read the parent and the usage of a process; None if the process has ended."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The second field is the name in parentheses, which may contain spaces and parentheses
    # (proc_pid_stat(5)).
    fields = text.rpartition(b")")[2].split()
    return int(fields[1]), Usage(
        int(fields[21]) * _PAGE, sum(int(n) for n in fields[11:15]) / _TICKS
    )


def measure_trees(roots: Collection[int]) -> dict[int, Usage]:
    """Measure process trees, in one pass over all processes.

    Args:
        roots: process ids.

    Returns:
        The usage of each root together with its descendants, for the roots that still exist.
    """
    stats = {pid: stat for pid in _list_pids() if (stat := _read_stat(pid)) is not None}
    totals = {root: Usage() for root in roots if root in stats}
    for pid, (_, usage) in stats.items():
        root = _find_root(pid, stats, totals)
        if root is not None:
            totals[root] += usage
    return totals


def _find_root(pid: int, stats: dict[int, tuple[int, Usage]], roots: Collection[int]) -> int | None:
    while pid not in roots:
        if pid not in stats:
            return None
        pid = stats[pid][0]
    return pid


def list_children(pid: int) -> list[int]:
    """List a process's children; empty if it has ended, or the kernel does not list them."""
    try:
        return [int(n) for n in (PROC / f"{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        return []


def kill_marked(mark: str) -> int:
    """Kill every process that was started with this text in its environment.

    A process leaves its group when it calls ``setsid``, and its tree when its parent ends. The
    environment that it was started with does not change.

    Returns:
        The number of processes killed.
    """
    needle = mark.encode()
    own = os.getpid()
    return sum(
        pid != own and _has_in_environment(pid, needle) and _kill(pid) for pid in _list_pids()
    )


def _has_in_environment(pid: int, needle: bytes) -> bool:
    try:
        return needle in (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True
