"""How many requests kaleden sends while it waits for sessions, in virtual time."""

from __future__ import annotations

import kaleden
from benchmarks.drivers.child import Figures, Order, serve
from kaleden.testing import MemoryTransport, run_virtual


async def wait_for(n: int) -> Figures:
    """Launch n sessions of ten seconds, and wait for their ends."""
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


def load(order: Order) -> Figures:
    """Wait once."""
    figures: Figures = run_virtual(
        lambda: wait_for(order.n), backend="trio" if order.backend == "trio" else "asyncio"
    )
    return figures


if __name__ == "__main__":
    serve(load)
