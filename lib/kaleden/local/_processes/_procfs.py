"""Reading ``/proc``: what process trees use, and which processes carry a mark.

All of it is blocking, quick, and empty where there is no ``/proc``.
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
    """What a process tree uses: bytes of resident memory, and seconds of processor time so far."""

    ram: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.ram + other.ram, self.seconds + other.seconds)


def _pids() -> Iterator[int]:
    with suppress(FileNotFoundError):
        for name in os.listdir(PROC):
            if name.isdigit():
                yield int(name)


def _read_stat(pid: int) -> tuple[int, Usage] | None:
    """Read a process's parent and what it uses; None if it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The second field is the name in parentheses, and may itself have spaces and parentheses.
    fields = text.rpartition(b")")[2].split()
    return int(fields[1]), Usage(
        int(fields[21]) * _PAGE,
        sum(int(n) for n in fields[11:15]) / _TICKS,
    )


def tree_usage(roots: Collection[int]) -> dict[int, Usage]:
    """Measure process trees, with one pass over all processes.

    Args:
        roots: process ids.

    Returns:
        What each root and its descendants use, for the roots that are still there.
    """
    stats = {pid: stat for pid in _pids() if (stat := _read_stat(pid)) is not None}
    totals = {root: Usage() for root in roots if root in stats}
    for pid, (_, usage) in stats.items():
        root = _root_of(pid, stats, totals)
        if root is not None:
            totals[root] += usage
    return totals


def _root_of(pid: int, stats: dict[int, tuple[int, Usage]], roots: Collection[int]) -> int | None:
    while pid not in roots:
        if pid not in stats:
            return None
        pid = stats[pid][0]
    return pid


def children_of(pid: int) -> list[int]:
    """List the children of a process; empty if it is gone or the kernel does not tell."""
    try:
        return [int(n) for n in (PROC / f"{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        return []


def kill_marked(mark: str) -> int:
    """Kill every process that was started with this text in its environment.

    A process that calls ``setsid`` leaves its group, and one whose parent dies leaves its tree;
    the environment it was started with stays.

    Returns:
        How many were killed.
    """
    needle = mark.encode()
    own = os.getpid()
    return sum(pid != own and _carries(pid, needle) and _kill(pid) for pid in _pids())


def _carries(pid: int, needle: bytes) -> bool:
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
