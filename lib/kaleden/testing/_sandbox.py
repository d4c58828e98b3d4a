"""`Sandbox`: a platform for one test, and sessions on it; what the pytest plugin gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self, final

from anyio import AsyncContextManagerMixin
from attrs import evolve

from kaleden import AsyncSession
from kaleden.local import LocalPlatform, Session
from kaleden.testing._faults import Fault, FaultKind, FaultPlan
from kaleden.testing._memory._transport import MemoryTransport
from kaleden.testing._proxy._proxy import FaultProxy

# In real time, so that a test that waits for sessions does not wait long.
_QUICK: Final[dict[str, Any]] = {"latency": 0.0, "start_delay": 0.0, "duration": 0.2}


@final
class Faults:
    """What goes wrong on a `Sandbox`; may be changed at any time.

    Each change makes a plan anew, which begins to count requests then.

    Args:
        apply: takes the plan.
    """

    def __init__(self, apply: Callable[[FaultPlan], None]) -> None:
        self._apply = apply
        self._plan = FaultPlan()

    @property
    def plan(self) -> FaultPlan:
        """The plan; may be set."""
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        self._apply(plan)
        self._plan = plan

    def add(self, trouble: FaultKind | str, on: str | None = None, **details: Any) -> None:
        """Add a fault.

        Args:
            trouble: what goes wrong.
            on: the kind of request that it befalls, one of `REQUEST_KINDS`; None for any.
            **details: as of `Fault`.

        Raises:
            ValueError: there is no such thing, or it cannot be done on this platform.
        """
        fault = Fault(FaultKind(trouble), on, **details)
        self.plan = evolve(self._plan, faults=(*self._plan.faults, fault))

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self.plan = FaultPlan()

    def __repr__(self) -> str:
        return f"<Faults: {', '.join(fault.trouble for fault in self._plan.faults) or 'none'}>"


def _make_platform(kind: str, options: dict[str, Any]) -> MemoryTransport | LocalPlatform:
    if kind == "memory":
        return MemoryTransport(**{**_QUICK, **options})
    if kind == "local":
        return LocalPlatform(**options)
    raise ValueError(f"a platform is 'memory' or 'local', not {kind!r}")


@final
class Sandbox(AsyncContextManagerMixin):
    """A platform for one test, with faults.

    ::

        sandbox = Sandbox()
        sandbox.faults.add("reset-after", on="create", nth=1)
        async with sandbox.session() as session:
            ...
        assert sandbox.sessions() == []

    Args:
        kind: "memory", a `MemoryTransport`; or "local", a `kaleden.local.LocalPlatform` behind a
            `FaultProxy`.
        **options: as of `MemoryTransport` or `LocalPlatform`. In memory, sessions run for 0.2
            seconds and requests take no time, if nothing else is said.

    Raises:
        ValueError: there is no such kind.

    Attributes:
        faults: what goes wrong.
        platform: the `MemoryTransport` or the `LocalPlatform`.
    """

    def __init__(self, kind: str = "memory", **options: Any) -> None:
        self.platform: MemoryTransport | LocalPlatform = _make_platform(kind, options)
        self.faults: Faults = Faults(self._apply)
        # Before there is anything to be in front of, for the sake of its checks.
        self._proxy = FaultProxy("tcp://nowhere:1")
        self._open = False

    def _apply(self, plan: FaultPlan) -> None:
        if isinstance(self.platform, MemoryTransport):
            self.platform.faults = plan
        else:
            self._proxy.faults = plan

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.platform)
            if isinstance(self.platform, LocalPlatform):
                self._proxy = FaultProxy(self.platform.url, self.faults.plan)
                await stack.enter_async_context(self._proxy)
            self._open = True
            try:
                yield self
            finally:
                self._open = False

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncGenerator[AsyncSession]:
        """Open a session on the platform; and the platform, for as long, if it is not open.

        A test with several sessions, one after the other, opens the platform around them:
        ``async with sandbox:``.

        Args:
            **options: as of `AsyncSession`, but where the platform is.
        """
        async with AsyncExitStack() as stack:
            if not self._open:
                await stack.enter_async_context(self)
            yield await stack.enter_async_context(AsyncSession(**self._where(), **options))

    def _where(self) -> dict[str, Any]:
        if isinstance(self.platform, MemoryTransport):
            return {"transport": self.platform}
        where: dict[str, Any] = {"url": self._proxy.url, "token": self.platform.token}
        if self._proxy.url.startswith("https:"):
            where["ssl_context"] = self.platform.ssl_context()
        return where

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead a program which makes its own session to this platform.

        Raises:
            RuntimeError: the platform is in memory, or not open.
        """
        if not isinstance(self.platform, LocalPlatform) or not self._open:
            raise RuntimeError(
                "only a Sandbox('local') has an address, while it is open: in pytest, mark the test"
                """ with @pytest.mark.kaleden("local"), and use `async with kaleden_platform:`"""
            )
        return {"CANFAR_URL": f"{self._proxy.url}/v1", "CANFAR_TOKEN": self.platform.token}

    @property
    def requests(self) -> Counter[str]:
        """How many were sent, by kind, one of `REQUEST_KINDS`; all of them "other" through TLS."""
        if isinstance(self.platform, MemoryTransport):
            return self.platform.requests
        return self._proxy.exchanges

    def sessions(self) -> list[Session]:
        """List the sessions that are there now, oldest first, finished ones included.

        What was destroyed is not; nor are, an hour later, those that have ended.
        """
        return self.platform.sessions()

    def __repr__(self) -> str:
        return f"<Sandbox of {self.platform!r}, {self.faults!r}>"
