"""Memory, as this process has it."""

from __future__ import annotations

import gc
import re
import tracemalloc
from pathlib import Path

from benchmarks.drivers.child import Figures


class Memory:
    """Bytes that have been added since this was made, at most.

    Args:
        traced: whether Python's own allocations are counted, to the byte; that makes everything
            several times slower. Else it is what the system has given to the whole process.
    """

    def __init__(self, *, traced: bool) -> None:
        gc.collect()
        self._traced = traced
        if traced:
            tracemalloc.start()
            self._before = 0
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = _status("VmRSS")

    def read(self) -> Figures:
        """Tell the peak, and what of it is still there; this can be told once."""
        if self._traced:
            now, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        else:
            now, peak = _status("VmRSS"), _status("VmHWM")
        return {"peak": peak - self._before, "kept": now - self._before, "whole": peak}


def _status(name: str) -> int:
    """Read one of the sizes that Linux tells of this process, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    if found is None:
        raise OSError(f"the system does not tell {name}")
    return 1024 * int(found[1])
