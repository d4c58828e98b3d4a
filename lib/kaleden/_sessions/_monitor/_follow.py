"""Followed logs: each line once, as it appears."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Final, Self, TypeAlias, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field, frozen

from kaleden._engine import _operations
from kaleden._engine._channel import Channel, SendItem, open_channel
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._targets import Keys
from kaleden._engine._tasks import open_task_group
from kaleden._errors import SessionNotOpen
from kaleden._results._batch import Failure
from kaleden._sessions._monitor._history import SessionState, Snapshot
from kaleden._sessions._monitor._outage import ConsecutiveFailures
from kaleden._sessions._monitor._poller import Poller, PollInterval
from kaleden._sessions._monitor._wait import Item, read_items
from kaleden._wire import SessionInfo

WINDOW: Final = 2**14  # bytes of a log that are split into lines between two checkpoints
OVERLAP: Final = 2**12  # bytes of a long log that are compared with the next read of it
CHUNK: Final = 2**20  # bytes that are hashed between two checkpoints


@final
@frozen
class LogDelta:
    """The difference between two reads of a log.

    Attributes:
        fresh: the new bytes.
        reset: whether the log was replaced; then *fresh* is the whole new log, or its last bytes.
        omitted: the number of bytes before *fresh* that are lost.
    """

    fresh: bytes
    reset: bool = False
    omitted: int = 0


@final
class LogCursor:
    """The position in one log: the length and digest of the part that was read, and its end."""

    __slots__ = ("_digest", "_last", "_seen", "_unfinished")

    def __init__(self) -> None:
        self._seen = 0
        self._last = b""
        self._digest = hashlib.blake2b(digest_size=16)
        self._unfinished: list[bytes] = []

    async def compare(self, body: bytes, omitted: int = 0) -> LogDelta:
        """Compare the log, as it is now, with the part that was read before.

        Args:
            body: the whole log, or its last bytes.
            omitted: the number of bytes before those.
        """
        # The server also sends an empty body when it cannot reach the container.
        if not body:
            return LogDelta(b"")

        if omitted:
            # Only the end of the part that was read before can be compared with the log.
            start = self._seen - omitted
            end = self._last[-start:] if start > 0 else b""
            if 0 <= start <= len(body) and body[start - len(end) : start] == end:
                return LogDelta(body[start:])

            return LogDelta(body, reset=True, omitted=omitted)

        if await self._is_continued_by(body):
            return LogDelta(body[self._seen :])

        return LogDelta(body, reset=True)

    def skip(self, size: int) -> None:
        """Count bytes before those that are fed next."""
        self._seen += size

    async def _is_continued_by(self, body: bytes) -> bool:
        view, digest = memoryview(body), hashlib.blake2b(digest_size=16)
        for start in range(0, self._seen, CHUNK):
            digest.update(view[start : min(start + CHUNK, self._seen)])
            await checkpoint()

        return digest.digest() == self._digest.digest()

    def feed(self, fresh: bytes) -> Iterator[list[str]]:
        """Add new bytes; yield the lines that they finish, in lists that may be empty."""
        for start in range(0, len(fresh), WINDOW):
            piece = fresh[start : start + WINDOW]
            self._seen += len(piece)
            self._last = (self._last + piece)[-OVERLAP:]
            self._digest.update(piece)
            *finished, unfinished = piece.split(b"\n")
            if finished:
                finished[0] = b"".join([*self._unfinished, finished[0]])
                self._unfinished.clear()

            self._unfinished.append(unfinished)
            yield [_decode(line) for line in finished]

    def get_unfinished(self) -> list[str]:
        """Return the unfinished last line, if there is one; call this when nothing can follow."""
        line = b"".join(self._unfinished)
        return [_decode(line)] if line else []


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace")


READERS: Final = 8  # responses are as long as logs, so hold few of them at once


@final
@frozen
class LogLine:
    """One line of a session's log.

    Attributes:
        id: the session.
        text: the line, without the line end.
    """

    id: str
    text: str


@final
@frozen
class LogReset:
    """The log was replaced, or is too long to be read whole.

    The next lines are those of the log from its start, or from the part that can be read.

    Attributes:
        id: the session.
        omitted: bytes of the log before the next lines that cannot be read.
    """

    id: str
    omitted: int = 0


LogItem: TypeAlias = LogLine | LogReset | Failure
"""An item of a followed log; a `Failure` is the last item of its session."""

Batch: TypeAlias = list[LogItem]


@final
class LogStream:
    """The lines of logs as they appear: ``async for item in lines``.

    Each item is a `LogLine`, a `LogReset`, or a `Failure` if a log cannot be followed to its end.
    The lines of one session are in order. A slow consumer slows down the reading.
    """

    __slots__ = ("_batch", "_receive")

    def __init__(self, receive: Channel[Batch]) -> None:
        self._receive = receive
        self._batch = deque[LogItem]()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogItem:
        # Take nothing out before the last await, so that a cancelled task loses no line.
        await checkpoint()
        while not self._batch:
            try:
                self._batch.extend(await self._receive.__anext__())
            except anyio.ClosedResourceError:
                raise SessionNotOpen("this stream's block was left: use it inside") from None

        return self._batch.popleft()

    def receive_nowait(self) -> list[LogItem]:
        """Return the buffered items, without waiting; the list may be empty."""
        items = list(self._batch)
        self._batch.clear()
        return items

    def __repr__(self) -> str:
        return f"<LogStream: {len(self._batch)} buffered>"


@asynccontextmanager
async def follow(
    engine: Engine,
    limits: Limits,
    poller: Poller,
    ids: Keys,
    random_source: random.Random | None = None,
) -> AsyncGenerator[LogStream]:
    """Follow the logs of *ids* until their sessions have ended; see `AsyncSession.follow`."""
    engine.check()
    await checkpoint()
    follower = _LogFollower(engine, limits, poller, random_source)
    for item in (await read_items(ids)).values():
        follower.add(item)

    async with open_channel(follower.run) as receive:
        yield LogStream(receive)


@define(eq=False)
class _FollowedLog:
    """A session with a followed log.

    Attributes:
        id: the session.
        interval: the time of the next read of its log.
        state: the last known state of the session.
        log: the position in its log.
        failures: the consecutive failed reads.
        is_scheduled: whether it is in the schedule, and is not being read.
        has_ended: whether the session has ended, or its status cannot be found; then the first read
            without new lines is the last.
        failure: the failure with which it ends; None if it ends normally.
    """

    id: str
    interval: PollInterval
    state: SessionState
    log: LogCursor = field(factory=LogCursor)
    failures: ConsecutiveFailures = field(factory=ConsecutiveFailures)
    is_scheduled: bool = False
    has_ended: bool = False
    failure: Failure | None = None


@final
class _Schedule:
    """A queue of sessions, by the time at which their logs are due to be read."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _FollowedLog]] = []
        self._entries = itertools.count()
        self._changed = anyio.Event()

    def add(self, session: _FollowedLog) -> None:
        """Schedule the next read of *session* by its interval; this voids an earlier entry."""
        session.is_scheduled = True
        heapq.heappush(self._heap, (session.interval.due, next(self._entries), session))
        self._changed.set()
        self._changed = anyio.Event()

    async def next(self) -> _FollowedLog:
        """Wait for the next session that is due, and remove it."""
        while True:
            due = self._heap[0][0] if self._heap else math.inf
            if due > anyio.current_time():
                with anyio.CancelScope(deadline=due):
                    await self._changed.wait()
                continue

            _, _, session = heapq.heappop(self._heap)
            if session.is_scheduled and session.interval.due == due:
                session.is_scheduled = False
                return session


@final
class _LogFollower:
    """One call of `follow`: a few readers, and a task that polls the statuses of the sessions."""

    def __init__(
        self, engine: Engine, limits: Limits, poller: Poller, random_source: random.Random | None
    ) -> None:
        self._engine = engine
        self._poller = poller
        self._random = random_source
        self._operation = _operations.follow(limits)
        self._schedule = _Schedule()
        self._open: dict[str, _FollowedLog] = {}
        self._invalid: Batch = []
        self._all_closed = anyio.Event()

    def add(self, item: Item) -> None:
        """Add a session, before `run`."""
        if isinstance(item, Failure):
            self._invalid.append(item)
        else:
            # The log of a desktop includes the logs of its applications.
            key = item.id if isinstance(item, SessionInfo) else item
            state = self._poller.new_state(key)
            self._open[key] = _FollowedLog(key, PollInterval(self._random), state)

    async def run(self, deliver: SendItem[Batch]) -> None:
        """Deliver the lines of the logs, until all have ended."""
        if self._invalid:
            await deliver(self._invalid)

        if not self._open:
            return

        readers = min(READERS, self._engine.limiter.limit, len(self._open))
        for session in self._open.values():
            self._schedule.add(session)

        async with open_task_group() as group:
            group.start_soon(self._poll_statuses)
            for _ in range(readers):
                group.start_soon(self._read, deliver)

            await self._all_closed.wait()
            group.cancel_scope.cancel()

    async def _poll_statuses(self) -> None:
        """Poll the statuses of the sessions, until an outage lasts for too long."""
        subscription = self._poller.subscribe()
        while True:
            polled = await subscription.next()
            if isinstance(polled, Snapshot):
                for session in self._open.values():
                    self._update_status(session, polled)
            elif polled.is_final:
                for session in self._open.values():
                    self._mark_ended(session, None)
                    # Also for a session that has ended: its log may never be readable again.
                    session.failure = session.failure or polled.to_failure(session.id)
                return

    def _update_status(self, session: _FollowedLog, snapshot: Snapshot) -> None:
        state, before = session.state, session.state.status
        state.update(snapshot)
        if state.status is not None and state.status.is_terminal:
            self._mark_ended(session, None)
        elif state.is_gone:
            self._mark_ended(session, state.to_failure(snapshot))
        elif state.status != before:
            self._read_soon(session)

    def _mark_ended(self, session: _FollowedLog, failure: Failure | None) -> None:
        """Mark the next reads as the last, since the session ended or its status is not known."""
        if not session.has_ended:
            session.has_ended, session.failure = True, failure
            self._read_soon(session)

    def _read_soon(self, session: _FollowedLog) -> None:
        """Schedule a read at once, unless one is running."""
        if session.is_scheduled:
            session.interval.restart(anyio.current_time())
            self._schedule.add(session)

    async def _read(self, deliver: SendItem[Batch]) -> None:
        while True:
            session = await self._schedule.next()
            # Only a read that begins after the end of the session can be the last.
            had_ended = session.has_ended
            delta = await self._fetch(session)
            if isinstance(delta, Failure):
                await self._handle_failure(session, delta, deliver)
                continue

            session.failures.record_success()
            changed = await _deliver_delta(session, delta, deliver)
            if had_ended and not changed:
                await self._close(session, session.failure, deliver)
            else:
                now = anyio.current_time()
                if session.has_ended:
                    session.interval.restart(now)
                session.interval.record_poll(now, changed=changed)
                self._schedule.add(session)

    async def _fetch(self, session: _FollowedLog) -> LogDelta | Failure:
        # The whole response is freed with this frame, even if the new lines wait to be consumed.
        outcome = await self._engine.perform(self._operation, session.id)
        if isinstance(outcome, Failure):
            return outcome

        return await session.log.compare(outcome.value, outcome.omitted)

    async def _handle_failure(
        self, session: _FollowedLog, failure: Failure, deliver: SendItem[Batch]
    ) -> None:
        if not self._tolerates(session, failure):
            await self._close(session, session.failure or failure, deliver)
            return

        session.interval.record_failure(anyio.current_time(), failure)
        self._schedule.add(session)

    def _tolerates(self, session: _FollowedLog, failure: Failure) -> bool:
        """Return whether to read a log again after a failure."""
        if session.has_ended and session.failure is not None:
            return False

        limit = self._poller.patience.compute_limit_of_log(failure)
        session.failures.record_failure(failure, limit)
        return not session.failures.is_final

    async def _close(
        self, session: _FollowedLog, failure: Failure | None, deliver: SendItem[Batch]
    ) -> None:
        """Deliver the last items of one session; stop after the last session."""
        last: Batch = [LogLine(session.id, text) for text in session.log.get_unfinished()]
        if failure is not None:
            last.append(failure)

        if last:
            await deliver(last)

        del self._open[session.id]
        if not self._open:
            self._all_closed.set()


async def _deliver_delta(session: _FollowedLog, delta: LogDelta, deliver: SendItem[Batch]) -> bool:
    """Deliver the new lines of a log; return whether there were new bytes."""
    if delta.reset:
        last = [LogLine(session.id, text) for text in session.log.get_unfinished()]
        session.log = LogCursor()
        session.log.skip(delta.omitted)
        await deliver([*last, LogReset(session.id, delta.omitted)])

    for lines in session.log.feed(delta.fresh):
        if lines:
            await deliver([LogLine(session.id, text) for text in lines])
        else:
            await checkpoint()

    return delta.reset or bool(delta.fresh)
