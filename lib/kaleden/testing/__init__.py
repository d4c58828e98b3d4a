"""Test what uses kaleden: a platform in memory, virtual time, faults, and cancellation everywhere.

::

    async def scenario() -> None:
        async with MemoryTransport() as transport:
            async with kaleden.AsyncSession(transport=transport) as session:
                ...

    run_virtual(scenario, backend="trio")

The same faults befall real connections on a `FaultProxy`, in front of `kaleden.local` or of any
other server.

In pytest, the fixtures ``kaleden_platform``, ``kaleden_session`` and ``kaleden_faults`` give a
`Sandbox` with all of this to whoever asks for it.

It needs the extra ``testing``.
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
