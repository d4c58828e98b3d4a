"""wrk, a load generator in C, which shows the server's limit. It does not decode JSON."""

from __future__ import annotations

import re
import resource
import subprocess

from benchmarks import payload
from benchmarks.drivers.child import HEADERS, Figures, Job, serve_jobs

_TOTAL = re.compile(r"(\d+) requests in ([0-9.]+)s")


def measure_wrk(job: Job) -> Figures:
    """Request one session repeatedly for two seconds, from one thread."""
    url = job.session_url(payload.list_keys(1)[0])
    headers = [part for pair in HEADERS.items() for part in ("-H", ": ".join(pair))]
    shape = ["-t1", f"-c{job.concurrency}", "-d2s"]
    before = _read_children_cpu()
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["wrk", *shape, *headers, url],  # noqa: S607 - found on the PATH
        capture_output=True,
        check=True,
        text=True,
    )
    cpu = _read_children_cpu() - before
    found = _TOTAL.search(done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise ValueError(done.stdout)
    return {"wall": float(found[2]), "cpu": cpu, "requests": int(found[1])}


def _read_children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    serve_jobs(measure_wrk)
