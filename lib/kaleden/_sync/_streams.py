"""Streams for plain code: ``with`` blocks, and iterators in them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Concatenate, Final, Generic, ParamSpec, Protocol, Self, TypeAlias, TypeVar, final

from anyio.lowlevel import checkpoint

from kaleden._client._session import AsyncSession
from kaleden._engine._targets import Ids, as_keys
from kaleden._errors import SessionNotOpen
from kaleden._results._batch import Outcome
from kaleden._sessions._monitor._follow import LogItem
from kaleden._sync._blocking_call import BlockingCall
from kaleden._sync._blocking_context import BlockingContext
from kaleden._sync._iterables import IdSupply
from kaleden._sync._loop_thread import LoopThread

P = ParamSpec("P")
T = TypeVar("T")

_BATCH_SIZE: Final = 32
"""Items that a thread fetches at once; a few more if they are there already."""

_EMPTY_PASSES: Final = 4
"""Event-loop iterations without a new item, after which a batch ends."""


class ItemStream(Protocol[T]):
    """A stream in the event loop."""

    async def __anext__(self) -> T:
        """Wait for the next item."""
        ...

    def receive_nowait(self) -> list[T]:
        """Return the items that have arrived."""
        ...


Manager: TypeAlias = AbstractAsyncContextManager[ItemStream[T]]


class SyncStream(Generic[T]):
    """Enters a stream in the event loop, and fetches its items in batches.

    Args:
        session: the session; the reference keeps it open.
        call: the call that holds the stream open; its time-out is that of the block.
        manager: the context manager of the stream.
    """

    def __init__(self, session: object, call: BlockingCall, manager: Manager[T]) -> None:
        self._session = session
        self._loop_thread = call.loop_thread
        self._manager = manager
        self._block = BlockingContext[ItemStream[T]](call)
        self._stream: ItemStream[T] | None = None
        # Reentrant: an iterable of ids that reads its own stream gets an error, not a deadlock.
        self._lock = threading.RLock()
        self._ready = deque[T]()
        self._has_ended = False

    def __enter__(self) -> Self:
        self._stream = self._block.enter(self._manager)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream = None
        self._block.exit(error)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._loop_thread.check()
        with self._lock:
            if self._stream is None:
                raise SessionNotOpen("use a stream inside its `with` block")

            while not self._ready and not self._has_ended:
                if not self._fetch(self._stream):
                    # The end may be an error.
                    self._block.check()
                    self._has_ended = True

            if not self._ready:
                raise StopIteration

            return self._ready.popleft()

    def __repr__(self) -> str:
        state = "ended" if self._has_ended else "open" if self._stream is not None else "not open"
        return f"<{type(self).__name__}: {state}, {len(self._ready)} at hand>"

    def _fetch(self, stream: ItemStream[T]) -> bool:
        """Fetch items, if there are any; return False at the end of the stream."""
        return self._block.run(fetch_batch, stream, self._ready)


@final
class SyncOutcomeStream(SyncStream[Outcome[T]]):
    """The outcomes of a stream, each as soon as it is known: ``for outcome in results``.

    The thread that iterates over outcomes also draws the ids from the caller's iterable: a few at a
    time, and only as many as there can be requests in flight. While that thread waits for an id, it
    receives no outcome.
    """

    def __init__(
        self,
        session: object,
        call: BlockingCall,
        manager: Manager[Outcome[T]],
        supply: IdSupply | None = None,
    ) -> None:
        super().__init__(session, call, manager)
        self._supply = supply

    def _fetch(self, stream: ItemStream[Outcome[T]]) -> bool:
        supply = self._supply
        if supply is None or supply.feed.is_complete:
            return super()._fetch(stream)

        supply.draw()
        return self._block.run(exchange, stream, supply, self._ready)


@final
class SyncLogStream(SyncStream[LogItem]):
    """The lines of logs as they appear: ``for item in lines``.

    Each item is a `LogLine`, a `LogReset`, or the `Failure` with which a session's log ends early.
    The lines of one session come in order. A slow loop slows the reading down.
    """


class StreamsBase:
    """Operations that stream outcomes: ``with session.stream.info(ids) as results: ...``.

    Inside the block, ``for outcome in results`` gives a `Success` or a `Failure` for every id, each
    as soon as it is known, so in no set order. Memory does not grow with the number of ids, which
    may come from a generator: outcomes are not kept, and a repeated id is requested again. A slow
    loop slows the requests down. No request is sent before the block is entered.

    An error raised in the block, or by the iterable of ids, is raised unchanged. Leaving the block
    early, by ``break``, an error or Ctrl-C, cancels the requests in flight and frees their slots.
    The *timeout* of a stream is that of its whole block, from entering it to the last outcome.
    """

    # The generated `SyncStreams` has this docstring.

    def __init__(self, session: object, loop_thread: LoopThread, client: AsyncSession) -> None:
        self._session = session
        self._loop_thread = loop_thread
        self._client = client
        self._streams = client.stream

    def _stream(
        self,
        method: Callable[Concatenate[Ids, P], Manager[Outcome[T]]],
        timeout: float | None,
        ids: Ids,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> SyncOutcomeStream[T]:
        """Make a stream that draws its ids as its outcomes are read."""
        call = BlockingCall(self._loop_thread, timeout)
        keys = as_keys(ids)
        if isinstance(keys, AsyncIterable):
            return SyncOutcomeStream(self._session, call, method(keys, *args, **kwargs))

        supply = IdSupply(keys, self._limit)
        manager = method(supply.feed, *args, **kwargs)
        return SyncOutcomeStream(self._session, call, manager, supply)

    def _limit(self) -> int:
        return self._client.statistics().limiter.limit


async def fetch_batch(stream: ItemStream[T], ready: deque[T]) -> bool:
    """Wait for an item, and fetch those that follow it at once; return False at the end.

    Cancellation:
        The items fetched so far are in *ready*.
    """
    try:
        ready.append(await anext(stream))
    except StopAsyncIteration:
        return False

    passes = 0
    while passes < _EMPTY_PASSES and len(ready) < _BATCH_SIZE:
        await checkpoint()
        more = stream.receive_nowait()
        passes = 0 if more else passes + 1
        ready.extend(more)

    return True


async def exchange(stream: ItemStream[T], supply: IdSupply, ready: deque[T]) -> bool:
    """Deliver ids and fetch items, without a wait if more ids are wanted.

    Returns:
        False at the end of the stream.
    """
    if supply.deliver():
        ready.extend(stream.receive_nowait())
        return True

    has_more = await fetch_batch(stream, ready)
    supply.update_wanted()
    return has_more
