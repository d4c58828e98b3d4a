"""The machine that is measured on: what it is, how busy it is, and which core does what."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SERVER_CORE = 0
CLIENT_CORE = 1


def can_pin() -> bool:
    """Tell whether processes can be kept on cores of their own."""
    return hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1


def pin(pid: int, core: int, *, first: bool = False) -> None:
    """Keep a process that has just begun on one core, where that can be.

    Args:
        pid: the process.
        core: the core.
        first: whether it runs there before all others: with real-time priority, which needs rights.

    Raises:
        PermissionError: there are no such rights.
    """
    if can_pin():
        os.sched_setaffinity(pid, {core})
    if first:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def cpu_seconds(pid: int) -> float | None:
    """Tell how much CPU time a process has had; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_kept_waiting(pid: int) -> float | None:
    """Tell how long a process could have run while others had its core; None if nobody tells."""
    try:
        threads = [path.read_text(encoding="ascii") for path in _threads(pid)]
    except OSError:
        return None
    return sum(int(told.split()[1]) for told in threads) / 1e9


def _threads(pid: int) -> Iterable[Path]:
    return Path(f"/proc/{pid}/task").glob("*/schedstat")


def load() -> float | None:
    """Tell how many processes wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def describe() -> dict[str, Any]:
    """Tell what this machine is."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pinned": can_pin(),
        "load": load(),
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.machine()
