"""Streams in plain code: ``with`` blocks, and iterators in them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

from anyio.lowlevel import checkpoint

from kaleden._client._session import AsyncSession
from kaleden._client._streams import Streams
from kaleden._engine._targets import Ids, as_keys
from kaleden._errors import SessionNotOpen
from kaleden._results._batch import Outcome
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._monitor._follow import LogItem
from kaleden._sessions._monitor._wait import Until
from kaleden._sync._blocking_call import Call
from kaleden._sync._blocking_context import BlockingContext
from kaleden._sync._iterables import Feed, Source, drawn, drawn_goal
from kaleden._sync._loop_thread import LoopThread
from kaleden._sync._mirror import mirrors
from kaleden._wire import TERMINAL_STATUSES, Event, SessionInfo

T = TypeVar("T")

_BATCH: Final = 32
"""Items that are brought to a thread at once; a few more if they are there."""

_PASSES: Final = 4
"""Turns of the event loop without an item, after which none comes right away."""


class Batches(Protocol[T]):
    """A stream in the event loop."""

    async def __anext__(self) -> T:
        """Wait for the next item."""
        ...

    def receive_nowait(self) -> list[T]:
        """Take the items that are there already."""
        ...


Manager: TypeAlias = AbstractAsyncContextManager[Batches[T]]


class SyncStream(Generic[T]):
    """Enters a stream of the event loop, and brings its items here, as many at once as there are.

    Args:
        home: the session; as long as somebody has its stream, it is not forgotten and closed.
        bridge: leads to the event loop.
        timeout: seconds from entering the block to the last item; None for no limit.
        manager: makes what is entered, for the work that will hold it open.
    """

    def __init__(
        self,
        home: object,
        bridge: LoopThread,
        timeout: float | None,
        manager: Callable[[Call], Manager[T]],
    ) -> None:
        bridge.check()
        self._home = home
        self._bridge = bridge
        self._manager = manager
        self._block = BlockingContext[Batches[T]](bridge, timeout)
        self._stream: Batches[T] | None = None
        # Ids that ask for the outcomes of their own stream get an error, and no endless wait.
        self._lock = threading.RLock()
        self._ready = deque[T]()
        self._has_ended = False

    def __enter__(self) -> Self:
        self._stream = self._block.enter(self._manager(self._block.host))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream = None
        self._block.leave(error)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._bridge.check()
        with self._lock:
            if self._stream is None:
                raise SessionNotOpen("use a stream inside its `with` block")

            while not self._ready and not self._has_ended:
                self._fill(self._stream)

            if not self._ready:
                raise StopIteration

            return self._ready.popleft()

    def __repr__(self) -> str:
        state = "ended" if self._has_ended else "open" if self._stream is not None else "not open"
        return f"<{type(self).__name__}: {state}, {len(self._ready)} at hand>"

    def _fill(self, stream: Batches[T]) -> None:
        """Wait for more items, or for the end."""
        self._note(self._block.run(_batch, stream, self._ready))

    def _note(self, goes_on: bool) -> None:
        if not goes_on:
            # What ended it may be an error.
            self._block.check()
            self._has_ended = True


@final
class SyncOutcomeStream(SyncStream[Outcome[T]]):
    """The outcomes of a stream, each as soon as it is known: ``for outcome in results``.

    Ids are drawn from the caller's iterable by the thread that asks for outcomes, a few at a time,
    and only as many as there can be requests in flight. As long as that thread waits for an id, it
    gets no outcome.
    """

    def __init__(
        self,
        home: object,
        bridge: LoopThread,
        timeout: float | None,
        manager: Callable[[Call], Manager[Outcome[T]]],
        supply: Supply | None = None,
    ) -> None:
        super().__init__(home, bridge, timeout, manager)
        self._supply = supply

    def _fill(self, stream: Batches[Outcome[T]]) -> None:
        supply = self._supply
        if supply is None or supply.is_over:
            super()._fill(stream)
        else:
            supply.draw()
            self._note(self._block.run(_exchange, stream, supply, self._ready))


@final
class SyncLogStream(SyncStream[LogItem]):
    """The lines of logs as they appear: ``for item in lines``.

    Each item is a `LogLine`, a `LogReset`, or the `Failure` with which a session's log ends early.
    The lines of one session come in order. A slow loop slows the reading down.
    """


@final
class SyncStreams:
    """Operations that hand on outcomes: ``with session.stream.info(ids) as results: ...``.

    Inside the block, ``for outcome in results`` gives a `Success` or a `Failure` for every id, each
    as soon as it is known, so in no set order. Memory does not grow with the number of ids, which
    may come from a generator: outcomes are not kept, and an id that comes twice is asked for twice.
    A slow loop slows the requests down. No request is sent before the block is entered.

    An error raised in the block, or by the iterable of ids, comes out as itself. Leaving the block
    early, by ``break``, an error or Ctrl-C, gives up what is on its way and frees its places. The
    *timeout* of a stream is that of its whole block, from entering it to the last outcome.
    """

    __slots__ = ("_bridge", "_client", "_home")

    def __init__(self, home: object, bridge: LoopThread, client: AsyncSession) -> None:
        self._home = home
        self._bridge = bridge
        self._client = client

    @overload
    def info(
        self, ids: Ids, *, raw: Literal[False] = False, timeout: float | None = None
    ) -> SyncOutcomeStream[SessionInfo]: ...

    @overload
    def info(
        self, ids: Ids, *, raw: Literal[True], timeout: float | None = None
    ) -> SyncOutcomeStream[dict[str, Any]]: ...

    @overload
    def info(
        self, ids: Ids, *, raw: bool, timeout: float | None = None
    ) -> SyncOutcomeStream[SessionInfo] | SyncOutcomeStream[dict[str, Any]]: ...

    @mirrors(Streams.info)
    def info(
        self, ids: Ids, *, raw: bool = False, timeout: float | None = None
    ) -> SyncOutcomeStream[Any]:
        info = cast("Callable[..., Manager[Outcome[Any]]]", self._client.stream.info)
        return self._feed(partial(info, raw=raw), ids, timeout)

    @mirrors(Streams.logs)
    def logs(self, ids: Ids, *, timeout: float | None = None) -> SyncOutcomeStream[str]:
        return self._feed(self._client.stream.logs, ids, timeout)

    @mirrors(Streams.events)
    def events(
        self, ids: Ids, *, timeout: float | None = None
    ) -> SyncOutcomeStream[tuple[Event, ...]]:
        return self._feed(self._client.stream.events, ids, timeout)

    @mirrors(Streams.renew)
    def renew(self, ids: Ids, *, timeout: float | None = None) -> SyncOutcomeStream[bool]:
        return self._feed(self._client.stream.renew, ids, timeout)

    @mirrors(Streams.wait)
    def wait(
        self,
        ids: Ids,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> SyncOutcomeStream[SessionInfo]:
        keys, goal = drawn(ids), drawn_goal(until)

        def manager(host: Call) -> Manager[Outcome[SessionInfo]]:
            return self._client.stream.wait(
                keys,
                host.guarded(goal),
                pending_timeout=pending_timeout,
                progress=host.here(progress),
            )

        return SyncOutcomeStream(self._home, self._bridge, timeout, manager)

    def _feed(
        self, stream: Callable[[Ids], Manager[Outcome[T]]], ids: Ids, timeout: float | None
    ) -> SyncOutcomeStream[T]:
        keys = as_keys(ids)
        if isinstance(keys, AsyncIterable):
            return SyncOutcomeStream(self._home, self._bridge, timeout, lambda _: stream(keys))

        supply = Supply(Source(keys), self._limit)
        return SyncOutcomeStream(
            self._home, self._bridge, timeout, lambda _: stream(supply.feed), supply
        )

    def _limit(self) -> int:
        return self._client.statistics().limiter.limit


@final
class Supply:
    """Brings the ids of a thread to the event loop, as many as can be worked on there.

    Attributes:
        feed: where they arrive.
    """

    def __init__(self, source: Source, limit: Callable[[], int]) -> None:
        self.feed: Feed = Feed()
        self._source = source
        self._limit = limit
        self._drawn = deque[Any]()
        self._room = 0

    @property
    def is_over(self) -> bool:
        """Whether all ids have arrived."""
        return self.feed.is_whole

    def draw(self) -> None:
        """Draw what there is room for, in the thread."""
        if self._room > len(self._drawn):
            self._source.draw(self._drawn, self._room)

    def put(self) -> bool:
        """Bring what was drawn to the event loop, which this is; tell whether more may come."""
        self.feed.put(self._drawn, is_whole=self._source.is_empty)
        self._drawn.clear()
        self.measure()
        return self._room > 0 and not self.is_over

    def measure(self) -> None:
        """Look in the event loop how many more it can take."""
        self._room = self._limit() - len(self.feed)


async def _batch(stream: Batches[T], ready: deque[T]) -> bool:
    """Wait for an item, and take those that come right after it; tell whether there was one.

    Cancellation:
        What was taken is in *ready*.
    """
    try:
        ready.append(await anext(stream))
    except StopAsyncIteration:
        return False

    empty = 0
    while empty < _PASSES and len(ready) < _BATCH:
        await checkpoint()
        more = stream.receive_nowait()
        empty = 0 if more else empty + 1
        ready.extend(more)

    return True


async def _exchange(stream: Batches[T], supply: Supply, ready: deque[T]) -> bool:
    """Bring ids, and take items; none if more ids are wanted first."""
    if supply.put():
        ready.extend(stream.receive_nowait())
        return True

    goes_on = await _batch(stream, ready)
    supply.measure()
    return goes_on
