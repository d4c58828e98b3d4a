"""The lifetime of an `AsyncSession`.

The server and the login are found when the client is made. Entering it opens the transport, the
ledger and the engine.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from os import fspath
from typing import TypeVar, final
from weakref import WeakValueDictionary

from attrs import frozen

from kaleden._auth import ClientOptions, ConnectionInfo, find_server_access
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter, LimiterStatistics
from kaleden._engine._operations import Operation
from kaleden._engine._retry import RetryStatistics
from kaleden._errors import SessionNotOpen
from kaleden._http import TransportStatistics
from kaleden._sessions._components import Components, build_components
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._scope import OnExit, Scope

T = TypeVar("T")


@final
@frozen
class SessionStatistics:
    """The state of an `AsyncSession`.

    Attributes:
        limiter: the requests in flight, the tasks that wait, and the pause, if there is one.
        retries: the retries so far.
        transport: the connections; None for a transport without statistics.
    """

    limiter: LimiterStatistics
    retries: RetryStatistics
    transport: TransportStatistics | None


@final
class Runtime:
    """Opens and closes the components of one client.

    Args:
        options: the arguments of the client.

    Raises:
        ConfigurationError: no server was found, or an argument cannot be used.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._access = find_server_access(options)
        self._opened: Components | None = None
        self._scopes = WeakValueDictionary[int, Scope]()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Open the transport, the ledger and the engine; close them when the block is left."""
        options, access = self.options, self._access
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(access.open())
            ledger = None
            if options.ledger is not None:
                ledger = await stack.enter_async_context(Ledger(options.ledger, self.server))
            limits = options.limits
            limiter = Limiter(limits.concurrency, adaptive=limits.adaptive)
            engine = Engine(limiter, transport, options.retry, access.refusal)
            headers = () if access.registry is None else (access.registry.header,)
            self._opened = build_components(
                engine, limits, ledger, headers, login_can_change=access.login_can_change
            )
            try:
                yield
            finally:
                self._opened = None
                await engine.aclose()

    @property
    def components(self) -> Components:
        """The components of the open client.

        Raises:
            SessionNotOpen: the client is not open.
        """
        if self._opened is None:
            raise SessionNotOpen(
                "open the session first: `async with AsyncSession(...) as session:`"
            )

        return self._opened

    @property
    def server(self) -> str:
        """The URL of the server, or a description of the transport that the caller passed."""
        return self._access.where

    @property
    def connection_info(self) -> ConnectionInfo:
        """The server and the login, and where both were found, without any secret."""
        return self._access.describe()

    async def request(self, operation: Operation[T]) -> T:
        """Send the one request of an operation that does not concern a particular session.

        Raises:
            RequestError: the request failed.
        """
        return await self.components.engine.request(operation)

    def new_scope(self, grace: float, on_success: OnExit, on_error: OnExit) -> Scope:
        """Make a scope, and keep a weak reference to it for `describe_leftovers`."""
        scope = Scope(self.components, grace, on_success, on_error)
        self._scopes[id(scope)] = scope
        return scope

    def statistics(self) -> SessionStatistics:
        """Return the state of the limiter, the retries and the transport."""
        engine = self.components.engine
        read = getattr(engine.transport, "statistics", None)
        state = read() if callable(read) else None
        return SessionStatistics(
            engine.limiter.statistics(),
            engine.retrier.statistics(),
            state if isinstance(state, TransportStatistics) else None,
        )

    def describe_leftovers(self) -> str | None:
        """Describe the sessions that would be left if the program ended now, and how to end them.

        This does not block, and may be called from any thread.

        Returns:
            A sentence; None if no session is left.
        """
        scopes = [scope for ref in self._scopes.valuerefs() if (scope := ref()) is not None]
        states = [scope.statistics() for scope in scopes]
        count = sum(state.owned + state.launching + state.unconfirmed for state in states)
        if count == 0:
            return None

        start = f"up to {count} sessions may be left: "
        if self.options.ledger is not None:
            return f"{start}`kaleden reap {shlex.quote(fspath(self.options.ledger))}` ends them"

        if names := sorted({name for scope in scopes for name in tuple(scope.names)}):
            calls = " and ".join(
                f"`session.destroy_with({f'{name}-'!r}, None, None)`" for name in names
            )
            return f"{start}{calls} ends all sessions with such a prefix"

        ids = [key for scope in scopes for key in scope.ids]
        return f"{start}`session.destroy({ids})` ends them"

    def __repr__(self) -> str:
        state = "not open" if self._opened is None else repr(self._opened.engine.limiter)
        return f"<AsyncSession {self.server}: {state}>"
