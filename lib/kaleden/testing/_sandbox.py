"""`Sandbox`: a platform with faults for one test. The pytest plugin provides it as a fixture."""

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

# Short times, because a sandbox usually runs in real time.
_FAST_OPTIONS: Final[dict[str, Any]] = {"latency": 0.0, "start_delay": 0.0, "duration": 0.2}


@final
class Faults:
    """The faults of a `Sandbox`. They may be changed at any time.

    Each change makes a new plan and restarts the counting of requests.

    Args:
        apply: called with each new plan.
    """

    def __init__(self, apply: Callable[[FaultPlan], None]) -> None:
        self._apply = apply
        self._plan = FaultPlan()

    @property
    def plan(self) -> FaultPlan:
        """The plan. It may be set."""
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        self._apply(plan)
        self._plan = plan

    def add(self, trouble: FaultKind | str, on: str | None = None, **details: Any) -> None:
        """Add a fault.

        Args:
            trouble: the kind of fault, a `FaultKind` or its value, such as "reset-after".
            on: the kind of request to inject into, one of `REQUEST_KINDS`; None for any kind.
            **details: the other arguments of `Fault`.

        Raises:
            ValueError: an argument is invalid, or this platform cannot inject this kind of fault.
        """
        fault = Fault(FaultKind(trouble), on, **details)
        self.plan = evolve(self._plan, faults=(*self._plan.faults, fault))

    def clear(self) -> None:
        """Remove all faults."""
        self.plan = FaultPlan()

    def __repr__(self) -> str:
        return f"<Faults: {', '.join(fault.trouble for fault in self._plan.faults) or 'none'}>"


def _make_platform(kind: str, options: dict[str, Any]) -> MemoryTransport | LocalPlatform:
    if kind == "memory":
        return MemoryTransport(**{**_FAST_OPTIONS, **options})
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
        **options: the arguments of `MemoryTransport` or `LocalPlatform`. In memory, the defaults
            differ: sessions run for 0.2 seconds, and requests take no time.

    Raises:
        ValueError: *kind* is neither "memory" nor "local".

    Attributes:
        faults: the faults to inject.
        platform: the `MemoryTransport` or the `LocalPlatform`.
    """

    def __init__(self, kind: str = "memory", **options: Any) -> None:
        self.platform: MemoryTransport | LocalPlatform = _make_platform(kind, options)
        self.faults: Faults = Faults(self._apply_plan)
        # A placeholder until the platform is open, so that a plan can be checked earlier.
        self._proxy = FaultProxy("tcp://nowhere:1")
        self._open = False

    def _apply_plan(self, plan: FaultPlan) -> None:
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
        """Open a session on the platform.

        If the platform is not open, it is opened for the duration of the session. A test with
        several sessions in a row opens the platform around them with ``async with sandbox:``.

        Args:
            **options: the arguments of `AsyncSession`, except those that locate the platform.
        """
        async with AsyncExitStack() as stack:
            if not self._open:
                await stack.enter_async_context(self)
            yield await stack.enter_async_context(
                AsyncSession(**self._get_connection_options(), **options)
            )

    def _get_connection_options(self) -> dict[str, Any]:
        if isinstance(self.platform, MemoryTransport):
            return {"transport": self.platform}
        where: dict[str, Any] = {"url": self._proxy.url, "token": self.platform.token}
        if self._proxy.url.startswith("https:"):
            where["ssl_context"] = self.platform.ssl_context()
        return where

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables with which another program's session uses this platform.

        Raises:
            RuntimeError: the platform is in memory, or it is not open.
        """
        if not isinstance(self.platform, LocalPlatform) or not self._open:
            raise RuntimeError(
                "only a Sandbox('local') has an address, while it is open: in pytest, mark the test"
                """ with @pytest.mark.kaleden("local"), and use `async with kaleden_platform:`"""
            )
        return {"CANFAR_URL": f"{self._proxy.url}/v1", "CANFAR_TOKEN": self.platform.token}

    @property
    def requests(self) -> Counter[str]:
        """The number of requests so far, by kind (`REQUEST_KINDS`); over TLS, all are "other"."""
        if isinstance(self.platform, MemoryTransport):
            return self.platform.requests
        return self._proxy.exchanges

    def sessions(self) -> list[Session]:
        """Return the sessions on the platform now, oldest first, including finished ones.

        Destroyed sessions are not included, nor are sessions that ended more than an hour ago.
        """
        return self.platform.sessions()

    def __repr__(self) -> str:
        return f"<Sandbox of {self.platform!r}, {self.faults!r}>"
