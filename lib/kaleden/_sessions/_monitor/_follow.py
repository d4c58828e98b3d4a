"""Following logs: every line once, as it appears."""

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
from attrs import define, evolve, field, frozen

from kaleden._engine import _operations
from kaleden._engine._channel import Channel, SendItem, open_channel
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._targets import Keys
from kaleden._engine._tasks import open_task_group
from kaleden._errors import SessionNotOpen
from kaleden._results._batch import Failure
from kaleden._sessions._monitor._lister import Snapshot
from kaleden._sessions._monitor._poller import ErrorTolerance, Poller, PollInterval, SessionState
from kaleden._sessions._monitor._wait import Item, read_items
from kaleden._wire import SessionInfo

WINDOW: Final = 2**14  # bytes of a log that are cut into lines at once
CHUNK: Final = 2**20  # bytes that are hashed before others get their turn


@final
@frozen
class LogDelta:
    """What one read of a log showed.

    Attributes:
        fresh: what was not seen before.
        reset: whether it is another log than before, of which *fresh* is all.
    """

    fresh: bytes
    reset: bool = False


@final
class LogCursor:
    """What is kept of one log."""

    __slots__ = ("_digest", "_seen", "_unfinished")

    def __init__(self) -> None:
        self._seen = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._unfinished: list[bytes] = []

    async def compare(self, body: bytes) -> LogDelta:
        """Compare the whole log, as it is now, with what was seen of it."""
        # The server also answers with nothing when it cannot reach the container.
        if not body:
            return LogDelta(b"")

        if await self._is_continued_by(body):
            return LogDelta(body[self._seen :])

        return LogDelta(body, reset=True)

    async def _is_continued_by(self, body: bytes) -> bool:
        view, digest = memoryview(body), hashlib.blake2b(digest_size=16)
        for start in range(0, self._seen, CHUNK):
            digest.update(view[start : min(start + CHUNK, self._seen)])
            await checkpoint()

        return digest.digest() == self._digest.digest()

    def feed(self, fresh: bytes) -> Iterator[list[str]]:
        """Take in what is new, and give the lines that it ends, some at a time; or none."""
        for start in range(0, len(fresh), WINDOW):
            piece = fresh[start : start + WINDOW]
            self._seen += len(piece)
            self._digest.update(piece)
            *finished, unfinished = piece.split(b"\n")
            if finished:
                finished[0] = b"".join([*self._unfinished, finished[0]])
                self._unfinished.clear()

            self._unfinished.append(unfinished)
            yield [_decode(line) for line in finished]

    def get_unfinished(self) -> list[str]:
        """Give the unfinished line, if there is one: nothing will be added to it."""
        line = b"".join(self._unfinished)
        return [_decode(line)] if line else []


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace")


READERS: Final = 8  # replies are as long as logs, so few are held at once


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
    """The log is no longer the one that was followed; what comes is the new one from its start.

    Attributes:
        id: the session.
    """

    id: str


LogItem: TypeAlias = LogLine | LogReset | Failure
"""What following a log gives; a `Failure` is the last item of its session."""

Batch: TypeAlias = list[LogItem]


@final
class LogStream:
    """The lines of logs as they appear: ``async for item in lines``.

    Each item is a `LogLine`, a `LogReset`, or the `Failure` with which a session's log ends early.
    The lines of one session come in order. A slow loop slows the reading down.
    """

    __slots__ = ("_batch", "_receive")

    def __init__(self, receive: Channel[Batch]) -> None:
        self._receive = receive
        self._batch = deque[LogItem]()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogItem:
        # Nothing is taken out before the last await: who is cancelled here loses no line.
        await checkpoint()
        while not self._batch:
            try:
                self._batch.extend(await self._receive.__anext__())
            except anyio.ClosedResourceError:
                raise SessionNotOpen("this stream's block was left: use it inside") from None

        return self._batch.popleft()

    def receive_nowait(self) -> list[LogItem]:
        """Take the items that wait to be taken; none if there are none now."""
        taken = list(self._batch)
        self._batch.clear()
        return taken

    def __repr__(self) -> str:
        return f"<LogStream: {len(self._batch)} at hand>"


@asynccontextmanager
async def follow(
    engine: Engine,
    limits: Limits,
    poller: Poller,
    ids: Keys,
    random_source: random.Random | None = None,
) -> AsyncGenerator[LogStream]:
    """Follow the logs of *ids* until their sessions have ended; see `AsyncSession.follow`.

    Args:
        engine: sends the requests.
        limits: how long one may take.
        poller: looks at how the sessions stand.
        ids: the sessions.
        chance: where the jitter of the intervals comes from.
    """
    engine.check()
    await checkpoint()
    follower = _LogFollower(engine, limits, poller, random_source)
    for item in (await read_items(ids)).values():
        follower.add(item)

    async with open_channel(follower.run) as receive:
        yield LogStream(receive)


@define(eq=False)
class _FollowedLog:
    """One session whose log is followed.

    Attributes:
        id: the session.
        pace: when its log is read next.
        sight: how the session was listed last.
        log: what is kept of its log.
        patience: with the reading of it.
        waits: whether it is in the agenda, and not being read.
        ended: whether the session is known to have ended: one more unchanged read is the last.
        verdict: why it ends, if not well.
    """

    id: str
    interval: PollInterval
    state: SessionState
    log: LogCursor = field(factory=LogCursor)
    tolerance: ErrorTolerance = field(factory=ErrorTolerance)
    is_scheduled: bool = False
    has_ended: bool = False
    failure: Failure | None = None


@final
class _Schedule:
    """The sessions whose logs wait to be read, by the time that is due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _FollowedLog]] = []
        self._entries = itertools.count()
        self._changed = anyio.Event()

    def add(self, session: _FollowedLog) -> None:
        """Have *session* read when its pace says; an earlier entry of it counts no more."""
        session.is_scheduled = True
        heapq.heappush(self._heap, (session.interval.due, next(self._entries), session))
        self._changed.set()
        self._changed = anyio.Event()

    async def next(self) -> _FollowedLog:
        """Wait for the next session whose time has come, and take it out."""
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
    """One call of `follow`: a few readers, and a task that looks at how the sessions stand."""

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
        """Follow one session too."""
        if isinstance(item, Failure):
            self._invalid.append(item)
        else:
            # The log of a desktop has those of its applications in it.
            key = item.id if isinstance(item, SessionInfo) else item
            self._open[key] = _FollowedLog(key, PollInterval(self._random), SessionState(key))

    async def run(self, deliver: SendItem[Batch]) -> None:
        """Deliver what the logs give, until all have ended."""
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
        """Look at how the sessions stand, for as long as that can be told."""
        subscription = self._poller.subscribe()
        snapshot: Snapshot | Failure | None = None
        while not isinstance(snapshot, Failure):
            snapshot = await subscription.next()
            for session in self._open.values():
                self._update_status(session, snapshot)

    def _update_status(self, session: _FollowedLog, snapshot: Snapshot | Failure) -> None:
        if isinstance(snapshot, Failure):
            self._mark_ended(session, evolve(snapshot, key=session.id))
            return

        state, before = session.state, session.state.status
        state.update(snapshot)
        if state.status is not None and state.status.is_terminal:
            self._mark_ended(session, None)
        elif state.is_gone:
            self._mark_ended(session, state.to_vanished())
        elif state.status != before:
            self._read_soon(session)

    def _mark_ended(self, session: _FollowedLog, failure: Failure | None) -> None:
        """Note that the session writes nothing more."""
        if not session.has_ended:
            session.has_ended, session.failure = True, failure
            self._read_soon(session)

    def _read_soon(self, session: _FollowedLog) -> None:
        """Have the log read at once, unless that is being done."""
        if session.is_scheduled:
            session.interval.restart(anyio.current_time())
            self._schedule.add(session)

    async def _read(self, deliver: SendItem[Batch]) -> None:
        while True:
            session = await self._schedule.next()
            # Only a read that begins after the session's end can be the last one.
            had_ended = session.has_ended
            delta = await self._fetch(session)
            if isinstance(delta, Failure):
                await self._handle_failure(session, delta, deliver)
                continue

            session.tolerance.reset()
            changed = await _deliver_delta(session, delta, deliver)
            if had_ended and not changed:
                await self._close(session, session.failure, deliver)
            else:
                session.interval.record_poll(
                    anyio.current_time(), changed=changed or session.has_ended
                )
                self._schedule.add(session)

    async def _fetch(self, session: _FollowedLog) -> LogDelta | Failure:
        # The whole reply goes with this frame, however long what is new waits to be taken.
        outcome = await self._engine.perform(self._operation, session.id)
        return outcome if isinstance(outcome, Failure) else await session.log.compare(outcome.value)

    async def _handle_failure(
        self, session: _FollowedLog, failure: Failure, deliver: SendItem[Batch]
    ) -> None:
        if not session.tolerance.allow(failure.kind):
            await self._close(session, failure, deliver)
            return

        now = anyio.current_time()
        session.interval.record_poll(now, changed=False)
        session.interval.pause(now, failure.retry_after)
        self._schedule.add(session)

    async def _close(
        self, session: _FollowedLog, failure: Failure | None, deliver: SendItem[Batch]
    ) -> None:
        """Deliver the last of one session, and end with the last session."""
        last: Batch = [LogLine(session.id, text) for text in session.log.get_unfinished()]
        if failure is not None:
            last.append(failure)

        if last:
            await deliver(last)

        del self._open[session.id]
        if not self._open:
            self._all_closed.set()


async def _deliver_delta(session: _FollowedLog, delta: LogDelta, deliver: SendItem[Batch]) -> bool:
    """Deliver what is new in a log; tell whether anything was."""
    if delta.reset:
        last = [LogLine(session.id, text) for text in session.log.get_unfinished()]
        session.log = LogCursor()
        await deliver([*last, LogReset(session.id)])

    for lines in session.log.feed(delta.fresh):
        if lines:
            await deliver([LogLine(session.id, text) for text in lines])
        else:
            await checkpoint()

    return delta.reset or bool(delta.fresh)
