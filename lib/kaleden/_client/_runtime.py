"""The lifetime of a client: what it is made of, and when that is open."""

from __future__ import annotations

import shlex
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from os import PathLike, fspath
from typing import NoReturn, Self, TypeVar, final
from weakref import WeakValueDictionary

from anyio import AsyncContextManagerMixin
from attrs import frozen

from kaleden._auth import ClientOptions, ConnectionInfo, TokenFunction, find_server_access, number
from kaleden._engine._config import RETRY, Limits, RetryPolicy
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter, LimiterStatistics
from kaleden._engine._operations import Operation
from kaleden._engine._retry import RetryStatistics
from kaleden._errors import ConfigurationError, SessionNotOpen
from kaleden._http import HttpAuth, HttpClient, Transport, TransportStatistics
from kaleden._sessions._components import Components, build_components
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._scope import Scope
from kaleden._wire import Request, Response

T = TypeVar("T")


@final
@frozen
class SessionStatistics:
    """The state of an `AsyncSession`.

    Attributes:
        gate: requests in flight and waiting, and whether the server asked for a pause.
        retries: what was tried again.
        transport: connections; None for a transport that does not tell.
    """

    gate: LimiterStatistics
    retries: RetryStatistics
    transport: TransportStatistics | None


class Client(AsyncContextManagerMixin):
    """Opens and closes what an `AsyncSession` works with; its arguments are told of there."""

    def __init__(
        self,
        url: str | None = None,
        token: str | TokenFunction | None = None,
        *,
        server: str | None = None,
        certificate: str | PathLike[str] | None = None,
        auth: HttpAuth | None = None,
        client: HttpClient | None = None,
        registry: tuple[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        version: str = "v1",
        timeout: float | None = None,
        create_timeout: float = 180.0,
        concurrency: int | None = None,
        create_concurrency: int = 8,
        settle: float = 10.0,
        create_grace: float = 10.0,
        adaptive: bool = False,
        max_body: int | None = None,
        retry: RetryPolicy | None = RETRY,
        ledger: str | PathLike[str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._limits = Limits(
            number("CANFAR_TIMEOUT", float, 30.0) if timeout is None else timeout,
            create_timeout,
            number("CANFAR_CONCURRENCY", int, 32) if concurrency is None else concurrency,
            create_concurrency,
            settle,
            create_grace,
            adaptive,
            max_body,
        )
        self._retry = _checked(retry)
        self._ledger = ledger
        wanted = ClientOptions(
            url,
            token,
            version,
            server,
            certificate,
            auth,
            client,
            registry,
            proxy,
            ssl_context,
            transport,
        )
        self._access = find_server_access(wanted, self._limits)
        self._opened: Components | None = None
        self._scopes = WeakValueDictionary[int, Scope]()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        access = self._access
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(access.open(self._limits))
            ledger = None
            if self._ledger is not None:
                ledger = await stack.enter_async_context(Ledger(self._ledger, self._where))
            gate = Limiter(self._limits.concurrency, adaptive=self._limits.adaptive)
            engine = Engine(gate, transport, self._retry, access.refusal)
            headers = () if access.registry is None else (access.registry.header,)
            self._opened = build_components(engine, self._limits, ledger, headers)
            try:
                yield self
            finally:
                self._opened = None
                await engine.aclose()

    @property
    def _rooms(self) -> Components:
        if self._opened is None:
            raise SessionNotOpen(
                "open the session first: `async with AsyncSession(...) as session:`"
            )

        return self._opened

    @property
    def _engine(self) -> Engine:
        return self._rooms.engine

    def statistics(self) -> SessionStatistics:
        """Tell the state of the session's gate and connections now.

        Raises:
            SessionNotOpen: the session is not open.
        """
        engine = self._engine
        told = getattr(engine.transport, "statistics", None)
        state = told() if callable(told) else None
        return SessionStatistics(
            engine.limiter.statistics(),
            engine.retrier.statistics(),
            state if isinstance(state, TransportStatistics) else None,
        )

    def describe(self) -> ConnectionInfo:
        """Tell where the server is, who asks, and how both were found: nothing secret.

        ``print(session.describe())`` shows it for people. It works also before the session is open.
        """
        return self._access.login

    def _left_behind(self) -> str | None:
        """Say what is left if the program ends now, and how to end it; None if nothing.

        It waits for nothing, and may be asked in any thread.
        """
        scopes = [scope for known in self._scopes.valuerefs() if (scope := known()) is not None]
        states = [scope.statistics() for scope in scopes]
        count = sum(state.owned + state.launching + state.unconfirmed for state in states)
        if count == 0:
            return None

        told = f"up to {count} sessions may be left: "
        if self._ledger is not None:
            return f"{told}`kaleden reap {shlex.quote(fspath(self._ledger))}` ends them"

        if names := sorted({name for scope in scopes for name in tuple(scope.names)}):
            ways = " and ".join(
                f"`session.destroy_with({f'{name}-'!r}, None, None)`" for name in names
            )
            return f"{told}{ways} ends all whose names begin so"

        ids = [key for scope in scopes for key in scope.ids]
        return f"{told}`session.destroy({ids})` ends them"

    @property
    def _where(self) -> str:
        return self._access.where

    def __repr__(self) -> str:
        state = "not open" if self._opened is None else repr(self._opened.engine.limiter)
        return f"<AsyncSession {self._where}: {state}>"

    def __reduce__(self) -> NoReturn:
        # It would take its token along.
        raise TypeError("an AsyncSession is neither copied nor pickled: make another one there")

    async def _ask(
        self,
        name: str,
        request: Request,
        parse: Callable[[Response], T],
        *,
        server_wide: bool = True,
    ) -> T:
        """Send the one request of a method that is about no session in particular.

        Args:
            name: the method.
            request: what to ask; it changes nothing on the server.
            parse: reads the reply.
            server_wide: whether a refusal is about the server as a whole; if not, it is not
                repeated.
        """
        return await self._engine.ask(
            Operation(
                name,
                lambda _: request,
                parse,
                self._limits.timeout,
                idempotent=server_wide,
                server_wide=server_wide,
            )
        )


def _checked(retry: object) -> RetryPolicy | None:
    if retry is None or isinstance(retry, RetryPolicy):
        return retry

    msg = f"retry= takes a RetryPolicy, such as RetryPolicy(attempts=3), or None, not {retry!r}"
    raise ConfigurationError(msg)
