"""The lifetime of a client in plain code: opened at first use, in a thread of its own."""

from __future__ import annotations

import ssl
import weakref
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from os import PathLike
from types import TracebackType
from typing import Literal, NoReturn, Self, TypeAlias, cast

from kaleden._auth import ConnectionInfo, TokenFunction
from kaleden._client._runtime import SessionStatistics
from kaleden._client._session import AsyncSession, runtime_of
from kaleden._engine._config import RETRY, RetryPolicy
from kaleden._errors import ConfigurationError
from kaleden._http import HttpAuth, HttpClient, Transport
from kaleden._sync._blocking_call import Call
from kaleden._sync._loop_thread import LoopThread
from kaleden._sync._mirror import mirrors
from kaleden._sync._streams import SyncStreams

Backend: TypeAlias = Literal["asyncio", "trio"]


class SyncClient:
    """Opens and closes what a `Session` works with; its arguments are told of there."""

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
        backend: Backend = "asyncio",
    ) -> None:
        _check_backend(backend)
        self._create_grace = create_grace
        self._client = AsyncSession(
            url,
            token,
            server=server,
            certificate=certificate,
            auth=auth,
            client=client,
            registry=registry,
            proxy=proxy,
            ssl_context=ssl_context,
            version=version,
            timeout=timeout,
            create_timeout=create_timeout,
            concurrency=concurrency,
            create_concurrency=create_concurrency,
            settle=settle,
            create_grace=create_grace,
            adaptive=adaptive,
            max_body=max_body,
            retry=retry,
            ledger=ledger,
            transport=transport,
        )
        self._bridge = LoopThread(
            partial(_opened, transport, client, self._client),
            backend,
            runtime_of(self._client).describe_leftovers,
        )
        self._finalizer = weakref.finalize(self, self._bridge.stop)
        # At the end of the program the bridge itself is closed, and waited for.
        self._finalizer.atexit = False

    def __enter__(self) -> Self:
        self._bridge.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or not self._bridge.is_forked:
            self._bridge.close(error)

    def close(self) -> None:
        """End what is under way in any thread, scopes included, and close the connections.

        Calls that are cut off raise `SessionNotOpen` in their threads. Closing again does nothing.

        Raises:
            SessionForked: the session belongs to the parent of this process, and goes on there.
        """
        self._bridge.close()

    @property
    @mirrors(AsyncSession.stream)
    def stream(self) -> SyncStreams:
        self._bridge.open()
        return SyncStreams(self, self._bridge, self._client)

    @mirrors(AsyncSession.statistics)
    def statistics(self) -> SessionStatistics:
        async def read() -> SessionStatistics:
            return self._client.statistics()

        return self._begin().run(read)

    @mirrors(AsyncSession.describe)
    def describe(self) -> ConnectionInfo:
        return self._client.describe()

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncSession", "Session", 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Session is neither copied nor pickled: make another one there")

    def _begin(
        self, timeout: float | None = None, grace: float = 0.0, *, makes: bool = False
    ) -> Call:
        return Call(self._bridge, timeout, grace, makes=makes)


@asynccontextmanager
async def _opened(*parts: object) -> AsyncGenerator[None]:
    """Enter those of *parts* that can be: nobody else can in this event loop."""
    async with AsyncExitStack() as stack:
        for part in parts:
            if isinstance(part, AbstractAsyncContextManager):
                await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", part))
        yield


def _check_backend(backend: str) -> None:
    if backend not in {"asyncio", "trio"}:
        raise ConfigurationError(f"backend is 'asyncio' or 'trio', not {backend!r}")

    if backend == "trio" and find_spec("trio") is None:
        raise ConfigurationError("trio is not installed: pip install 'kaleden[trio]'")
