"""The lifetime of a client: what it is made of, and when that is open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from os import PathLike
from typing import Self, TypeVar, final

from anyio import AsyncContextManagerMixin
from attrs import frozen

from kaleden._credentials import Endpoint, check_token, parse_endpoint
from kaleden._engine import Engine, Operation
from kaleden._errors import ConfigurationError, SessionNotOpen
from kaleden._gate import Gate, GateStatistics
from kaleden._http import DirectTransport, HttpxTransport, Transport, TransportStatistics
from kaleden._ledger import Ledger
from kaleden._policy import Limits
from kaleden._rooms import Rooms, open_rooms
from kaleden._wire import Request, Response

T = TypeVar("T")


@final
@frozen
class SessionStatistics:
    """The state of an `AsyncSession`.

    Attributes:
        gate: requests in flight and waiting.
        transport: connections; None for a transport that does not tell.
    """

    gate: GateStatistics
    transport: TransportStatistics | None


class Client(AsyncContextManagerMixin):
    """Opens and closes what an `AsyncSession` works with; its arguments are told of there."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        version: str = "v1",
        timeout: float = 30.0,
        create_timeout: float = 180.0,
        concurrency: int = 32,
        create_concurrency: int = 8,
        settle: float = 10.0,
        create_grace: float = 10.0,
        ledger: str | PathLike[str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._limits = Limits(
            timeout, create_timeout, concurrency, create_concurrency, settle, create_grace
        )
        self._ledger = ledger
        self._transport = transport
        self._token = token
        self._endpoint: Endpoint | None = None
        if transport is not None and (url is not None or token is not None):
            msg = "a transport of your own takes no url and token: give them to the transport"
            raise ConfigurationError(msg)

        if transport is None:
            self._endpoint = parse_endpoint(url, version)
            check_token(token, self._endpoint)
        self._opened: Rooms | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        async with AsyncExitStack() as stack:
            transport = self._transport
            if transport is None:
                transport = await stack.enter_async_context(self._http())
            ledger = None
            if self._ledger is not None:
                ledger = await stack.enter_async_context(Ledger(self._ledger, self._where))
            engine = Engine(Gate(self._limits.concurrency), transport)
            self._opened = open_rooms(engine, self._limits, ledger)
            try:
                yield self
            finally:
                self._opened = None
                await engine.aclose()

    def _http(self) -> HttpxTransport:
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101  # set whenever no transport was given
        return HttpxTransport(
            endpoint.root,
            endpoint.base,
            self._token,
            connections=self._limits.concurrency,
            # A proxy has no business between two programs of this machine.
            trust_env=not endpoint.loopback,
        )

    @property
    def _rooms(self) -> Rooms:
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
        transport = self._engine.transport
        told = None
        if isinstance(transport, DirectTransport | HttpxTransport):
            told = transport.statistics()
        return SessionStatistics(self._engine.gate.statistics(), told)

    @property
    def _where(self) -> str:
        return "own transport" if self._endpoint is None else self._endpoint.base

    def __repr__(self) -> str:
        state = "not open" if self._opened is None else repr(self._opened.engine.gate)
        return f"<AsyncSession {self._where}: {state}>"

    async def _ask(self, name: str, request: Request, parse: Callable[[Response], T]) -> T:
        """Send the one request of a method that is about no session in particular."""
        return await self._engine.ask(
            Operation(name, lambda _: request, parse, self._limits.timeout)
        )
