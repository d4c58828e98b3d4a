"""The import time of a client, in a new interpreter."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from benchmarks.drivers.child import Figures, Job, serve_jobs


def measure_import(_: Job) -> Figures:
    """Time the import of the module that the command line names, less that of an empty program."""
    name = sys.argv[1]
    empty = _time_program("pass")
    full = _time_program(f"import {name}")
    wall, cpu = (with_it - without for with_it, without in zip(full, empty, strict=True))
    return {"wall": wall, "cpu": cpu, "requests": 1}


def _time_program(code: str) -> tuple[float, float]:
    before, began = _read_children_cpu(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
    return time.perf_counter() - began, _read_children_cpu() - before


def _read_children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    serve_jobs(measure_import)
