"""The event loops on which promises are kept in virtual time."""

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
class Virtual:
    """A loop whose clock jumps to what is due next."""

    backend: Backend
    eager: bool = False

    def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """Run an async function, from time 0."""
        return run_virtual(fn, *args, backend=self.backend, eager=self.eager)

    def sweep(self, scenario: Any, **options: Any) -> int:
        """Cancel a program everywhere; see `cancel_at_every_checkpoint`. Give the trials."""
        report = cancel_at_every_checkpoint(
            scenario, backend=self.backend, eager=self.eager, **options
        )
        return report.trials

    def __str__(self) -> str:
        return f"{self.backend}-eager" if self.eager else self.backend


VIRTUAL = [Virtual("asyncio")]
if sys.version_info >= (3, 12):
    VIRTUAL.append(Virtual("asyncio", eager=True))
if HAS_TRIO:
    VIRTUAL.append(Virtual("trio"))
