"""wrk, a load generator in C: what the server can give. It parses replies and decodes no JSON."""

from __future__ import annotations

import re
import resource
import subprocess

from benchmarks import payload
from benchmarks.drivers.child import HEADERS, Figures, Order, serve

_TOTAL = re.compile(r"(\d+) requests in ([0-9.]+)s")


def load(order: Order) -> Figures:
    """Ask for one session for two seconds, from one thread."""
    url = order.session_url(payload.first_keys(1)[0])
    headers = [part for pair in HEADERS.items() for part in ("-H", ": ".join(pair))]
    shape = ["-t1", f"-c{order.concurrency}", "-d2s"]
    before = _children()
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["wrk", *shape, *headers, url],  # noqa: S607 - wherever it was installed
        capture_output=True,
        check=True,
        text=True,
    )
    cpu = _children() - before
    found = _TOTAL.search(done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise ValueError(done.stdout)
    return {"wall": float(found[2]), "cpu": cpu, "requests": int(found[1])}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    serve(load)
