"""The event loops in virtual time that the promises are tested on."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

from attrs import frozen

from kaleden.testing import cancel_at_every_checkpoint, run_virtual
from kaleden.testing._clock import Backend
from support import HAS_TRIO

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@frozen
class VirtualLoop:
    """An event loop in virtual time."""

    backend: Backend
    eager: bool = False

    def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """Run an async function, starting at time 0."""
        return run_virtual(fn, *args, backend=self.backend, eager=self.eager)

    def sweep(self, scenario: Any, **options: Any) -> int:
        """Run `cancel_at_every_checkpoint`; return the number of trials."""
        report = cancel_at_every_checkpoint(
            scenario, backend=self.backend, eager=self.eager, **options
        )
        return report.trials

    def __str__(self) -> str:
        return f"{self.backend}-eager" if self.eager else self.backend


VIRTUAL_LOOPS = [VirtualLoop("asyncio")]
if sys.version_info >= (3, 12):
    VIRTUAL_LOOPS.append(VirtualLoop("asyncio", eager=True))
if HAS_TRIO:
    VIRTUAL_LOOPS.append(VirtualLoop("trio"))
