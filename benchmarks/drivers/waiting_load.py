"""The number of requests that kaleden sends while it waits for sessions, in virtual time."""

from __future__ import annotations

import kaleden
from benchmarks.drivers.child import Figures, Job, serve_jobs
from kaleden.testing import MemoryTransport, run_virtual


async def measure_waiting(n: int) -> Figures:
    """Launch n sessions that run for ten seconds, and count the requests of the wait."""
    async with (
        MemoryTransport() as transport,
        kaleden.AsyncSession(transport=transport) as session,
        session.scope() as scope,
    ):
        launched = await scope.create("fits", "skaha/astroml:latest", cmd="true", replicas=n)
        before = transport.requests.copy()
        (await scope.wait(launched)).raise_on_failure()
        sent = (transport.requests - before).total()
    return {"requests": sent, "sessions": n}


def run_measurement(job: Job) -> Figures:
    """Run the measurement in virtual time."""
    figures: Figures = run_virtual(
        lambda: measure_waiting(job.n), backend="trio" if job.backend == "trio" else "asyncio"
    )
    return figures


if __name__ == "__main__":
    serve_jobs(run_measurement)
