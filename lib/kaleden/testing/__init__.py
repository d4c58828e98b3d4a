"""Tools for testing programs that use kaleden.

They need no account and no network access:

- `MemoryTransport` is a Skaha platform in memory. It uses no sockets and no processes.
- `run_virtual` runs an async function in virtual time: an hour of waiting takes no real time, and
  each run is the same.
- `FaultPlan` injects faults, such as a lost response or a stalled server, into the requests of a
  `MemoryTransport`. `FaultProxy` injects the same faults into real connections to a server.
- `cancel_at_every_checkpoint` runs a program once for each event-loop iteration, cancels it there,
  and checks that it cleans up.
- `Sandbox` combines a platform and its faults for one test.

For example, this checks that `kaleden.AsyncSession.run` deletes its session, even if the response
to the create request is lost::

    import kaleden
    from kaleden.testing import Fault, FaultPlan, MemoryTransport, run_virtual

    async def main() -> None:
        plan = FaultPlan([Fault("reset-after", on="create", nth=1)])
        async with MemoryTransport(faults=plan) as transport:
            async with kaleden.AsyncSession(transport=transport) as session:
                await session.run("fits", "skaha/astroml:latest", cmd="true")
            assert transport.sessions() == []

    run_virtual(main)

In pytest, use the fixtures ``kaleden_platform``, ``kaleden_session`` and ``kaleden_faults``, which
give a test its own `Sandbox`.

This module needs the extra ``testing``: ``pip install 'kaleden[testing]'``.
"""

from __future__ import annotations

from importlib import import_module as _import

try:
    _import("kaleden.local")
except ImportError as _error:
    raise ImportError(
        "kaleden.testing needs more packages: pip install 'kaleden[testing]'"
    ) from _error

from kaleden._public import publish as _publish
from kaleden.testing._cancellation import (
    CAUSES,
    InjectedError,
    SweepReport,
    cancel_at_every_checkpoint,
    error_injection_point,
)
from kaleden.testing._clock import run_virtual
from kaleden.testing._faults import Fault, FaultKind, FaultPlan
from kaleden.testing._memory._server import POINTS
from kaleden.testing._memory._transport import MemoryTransport
from kaleden.testing._proxy._proxy import FaultProxy
from kaleden.testing._requests import REQUEST_KINDS
from kaleden.testing._sandbox import Faults, Sandbox
from kaleden.testing._virtual_time import Deadlock

__all__ = (
    "CAUSES",
    "POINTS",
    "REQUEST_KINDS",
    "Deadlock",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "FaultProxy",
    "Faults",
    "InjectedError",
    "MemoryTransport",
    "Sandbox",
    "SweepReport",
    "cancel_at_every_checkpoint",
    "error_injection_point",
    "run_virtual",
)

_publish(__name__, __all__, globals())

for _function in (cancel_at_every_checkpoint, error_injection_point, run_virtual):
    _function.__module__ = __name__
