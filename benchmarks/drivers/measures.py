"""The memory of this process."""

from __future__ import annotations

import gc
import re
import tracemalloc
from pathlib import Path

from benchmarks.drivers.child import Figures


class Memory:
    """The bytes of memory that the process has gained since this object was made.

    Args:
        traced: whether to count Python's allocations, to the byte. This makes the program several
            times slower. Otherwise, the resident memory of the whole process is measured.
    """

    def __init__(self, *, traced: bool) -> None:
        gc.collect()
        self._traced = traced
        if traced:
            tracemalloc.start()
            self._before = 0
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = _read_status("VmRSS")

    def read(self) -> Figures:
        """Return the peak and the current value. This can be called only once."""
        if self._traced:
            now, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        else:
            now, peak = _read_status("VmRSS"), _read_status("VmHWM")
        return {"peak": peak - self._before, "kept": now - self._before, "whole": peak}


def _read_status(name: str) -> int:
    """Read a size from /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    if found is None:
        raise OSError(f"/proc/self/status has no line for {name}")
    return 1024 * int(found[1])
