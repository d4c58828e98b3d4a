"""How long the import of a client takes, in an interpreter that has just begun."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from benchmarks.drivers.child import Figures, Order, serve


def load(_: Order) -> Figures:
    """Import the module that the command line names, and take off what an empty program costs."""
    name = sys.argv[1]
    empty = _run("pass")
    full = _run(f"import {name}")
    wall, cpu = (with_it - without for with_it, without in zip(full, empty, strict=True))
    return {"wall": wall, "cpu": cpu, "requests": 1}


def _run(code: str) -> tuple[float, float]:
    before, began = _children(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
    return time.perf_counter() - began, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    serve(load)
