"""The soak on a platform in memory, in virtual time, with faults."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from soak.measures import PARTS, Report, measure
from soak.work import Work

FAULTS = [
    Fault(FaultKind.REFUSED, probability=0.01),
    Fault(FaultKind.BUSY, probability=0.01, seconds=1),
    Fault(FaultKind.RESET_BEFORE, probability=0.01),
    Fault(FaultKind.RESET_AFTER, probability=0.01),
    Fault(FaultKind.ERROR_BEFORE, probability=0.01),
    Fault(FaultKind.ERROR_AFTER, probability=0.01),
    Fault(FaultKind.HALF_BODY, probability=0.01),
    Fault(FaultKind.GARBAGE, probability=0.01),
    Fault(FaultKind.HTML, probability=0.01),
    Fault(FaultKind.LIE, "destroy", probability=0.05),
    Fault(FaultKind.DELAY, probability=0.2, jitter=5),
]


def soak_in_memory(backend: Any, operations: int) -> Report:
    """Run a number of operations on one client."""
    return run_virtual(partial(_soak, operations, backend == "asyncio"), backend=backend)


async def _soak(operations: int, native: bool) -> Report:
    report = Report()
    world = MemoryTransport(faults=FaultPlan(FAULTS, seed=6), duration=20.0)
    tracemalloc.start()
    async with world:
        report.before = measure(0)
        async with kaleden.AsyncSession(transport=world, concurrency=16) as session:
            work = Work(session, 6, 3.0, native)
            for part in range(PARTS + 1):
                await work.run(operations // PARTS if part else 50)
                await world.settled()
                # The platform in memory keeps these counts, which are not memory of the client.
                world.created.clear()
                report.table.append(measure(part * (operations // PARTS)))
            report.requests = world.requests.total()
            report.rest = session.statistics()
        report.after = measure(operations)
    tracemalloc.stop()
    return report
