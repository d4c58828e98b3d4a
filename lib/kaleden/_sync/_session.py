"""The hand-written parts of `Session` and `SyncScope`: how they open and close."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import Literal, NoReturn, Self, TypeAlias, cast

from kaleden._client._runtime import SessionStatistics
from kaleden._client._session import AsyncSession, runtime_of
from kaleden._errors import ConfigurationError, ScopeError
from kaleden._sessions._scope import Scope
from kaleden._sync._blocking_call import BlockingCall
from kaleden._sync._blocking_context import BlockingContext
from kaleden._sync._loop_thread import LoopThread

Backend: TypeAlias = Literal["asyncio", "trio"]


class SessionBase:
    """A client of one Skaha server for plain code: ``with Session(url, token) as session: ...``.

    It runs an `AsyncSession` in a thread of its own, for which the calling thread waits. It opens
    at its first use, unless ``with`` opens it, and closes when it is no longer referenced, or at
    the end of the program. Any number of threads may use it at once; together they never have more
    than *concurrency* requests in flight. It also works in a notebook or another program with an
    event loop, which it blocks meanwhile. After a fork it works in the parent only; in the child
    every method raises `SessionForked`.

    Ctrl-C ends a call properly: the call is cancelled, and cleaned up as its arguments specify,
    before KeyboardInterrupt is raised. A second Ctrl-C raises it at once. The sessions that scopes
    and `run` have launched are then in the *ledger*, for `reap`, and a warning of the logger
    ``kaleden`` describes how to end them, with a ledger or without.

    Methods over many sessions take one id, an iterable of ids, the `SessionInfo` objects that
    `fetch` returned, or the `Outcomes` of an earlier call. They return `Outcomes`, which contain
    the failures; only an error of the call as a whole is raised. Methods about one thing (`fetch`,
    `stats`, `images`, ...) raise a `RequestError` if it fails. All methods that wait take a
    *timeout*, in seconds for the whole call.

    Iterables are consumed, and ``progress`` functions called, in the calling thread. An ``until``
    function is called in the session's own thread: it has to be quick, and cannot call the session.
    Errors of all of them are raised unchanged.

    A *client* or *transport* is entered and exited with the session, in its event loop.
    """

    # The generated `Session` has this docstring, with the arguments of `AsyncSession` after it.

    def __init__(self, client: AsyncSession, backend: Backend) -> None:
        _check_backend(backend)
        runtime = runtime_of(client)
        options = runtime.options
        self._client = client
        self._create_grace = options.limits.create_grace
        self._loop_thread = LoopThread(
            partial(_enter_all, options.transport, options.client, client),
            backend,
            runtime.describe_leftovers,
        )
        self._finalizer = weakref.finalize(self, self._loop_thread.stop)
        # At the end of the program the thread is closed by its own exit handler, which waits.
        self._finalizer.atexit = False

    def __enter__(self) -> Self:
        self._loop_thread.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or not self._loop_thread.is_forked:
            self._loop_thread.close(error)

    def close(self) -> None:
        """Cancel the calls of all threads, end their scopes, and close the connections.

        Calls that are cut off raise `SessionNotOpen` in their threads. Closing again has no effect.

        Raises:
            SessionForked: the session belongs to the parent of this process, and stays open there.
        """
        self._loop_thread.close()

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncSession", "Session", 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Session is neither copied nor pickled: make another one there")

    @property
    def _open_client(self) -> AsyncSession:
        self._loop_thread.open()
        return self._client

    async def _statistics(self) -> SessionStatistics:
        return self._client.statistics()


@asynccontextmanager
async def _enter_all(*parts: object) -> AsyncGenerator[None]:
    """Enter those of *parts* that are asynchronous context managers."""
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


class ScopeBase:
    """Owns the sessions that are launched in it: ``with session.scope() as scope: ...``.

    It is a `Scope` for plain code: however the block is left, Ctrl-C included, the sessions that it
    owns are destroyed, and a list verifies that, within *grace* seconds. If any could be left, a
    `ScopeError` names it. Any thread may use the scope while its block is open.
    """

    # The generated `SyncScope` has this docstring.

    def __init__(self, session: object, call: BlockingCall, scope: Scope) -> None:
        # The reference keeps the session open.
        self._session = session
        self._loop_thread = call.loop_thread
        self._scope = scope
        self._block = BlockingContext[Scope](call)

    def __enter__(self) -> Self:
        self._block.enter(self._scope)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._block.exit(error)

    @property
    def error(self) -> ScopeError | None:
        """After the block, the sessions that may be left; None if there are none."""
        return self._scope.error

    def __repr__(self) -> str:
        return repr(self._scope)
