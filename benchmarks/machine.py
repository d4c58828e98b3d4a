"""The machine: its description, its load, and the cores for clients and servers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SERVER_CORE = 0
CLIENT_CORE = 1


def can_pin() -> bool:
    """Return whether processes can be pinned to cores."""
    return hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1


def pin(pid: int, core: int, *, first: bool = False) -> None:
    """Pin a new process to one core, if the system supports it.

    Args:
        pid: the process.
        core: the core.
        first: whether to run it with real-time priority, which needs privileges.

    Raises:
        PermissionError: *first* is true, and this process lacks the privileges.
    """
    if can_pin():
        os.sched_setaffinity(pid, {core})
    if first:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def read_cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process in seconds; None if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_waiting_seconds(pid: int) -> float | None:
    """Return how long a process has waited for a core, in seconds; None if it is not reported."""
    try:
        threads = [path.read_text(encoding="ascii") for path in _find_thread_files(pid)]
    except OSError:
        return None
    return sum(int(text.split()[1]) for text in threads) / 1e9


def _find_thread_files(pid: int) -> Iterable[Path]:
    return Path(f"/proc/{pid}/task").glob("*/schedstat")


def read_load() -> float | None:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def describe() -> dict[str, Any]:
    """Return a description of this machine."""
    return {
        "cpu": _read_cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pinned": can_pin(),
        "load": read_load(),
    }


def _read_cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.machine()
