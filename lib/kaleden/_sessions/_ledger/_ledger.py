"""The ledger: a durable record of launches, by which another process can destroy the sessions.

A line is on the disk before the request of a launch is sent, and another before its result is
returned. If the process is killed, even with ``kill -9``, `reap` finds its launches there.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeAlias, TypeVar, final

import anyio
import anyio.to_thread
from anyio import AsyncContextManagerMixin
from anyio.lowlevel import RunVar, checkpoint
from attrs import define, evolve, field

from kaleden._engine._tasks import run_shielded
from kaleden._sessions._ledger import _file
from kaleden._sessions._ledger._file import Event, LedgerError, LedgerPath, OpenLaunch, encode
from kaleden._sessions._ledger._process import get_this_owner

T = TypeVar("T")

Change: TypeAlias = tuple[Event, Collection[OpenLaunch]]

_THREADS: Final = 4
_threads = RunVar[anyio.CapacityLimiter]("kaleden.ledger.threads")


async def in_file_thread(work: Callable[[], T]) -> T:
    """Run a blocking function in a thread; once started, it is not cancelled.

    The threads have a limiter of their own, since all threads of the application may be waiting for
    a launch. If the default limiter has a free token, the thread borrows it as well, so that
    observers of that limiter, such as a virtual clock, count the thread.
    """
    with _count_thread(anyio.to_thread.current_default_thread_limiter()):
        return await anyio.to_thread.run_sync(work, limiter=_get_file_limiter())


def _get_file_limiter() -> anyio.CapacityLimiter:
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _threads.set(limiter)
        return limiter


@contextmanager
def _count_thread(limiter: anyio.CapacityLimiter) -> Generator[None]:
    holder = object()
    try:
        limiter.acquire_on_behalf_of_nowait(holder)
    except anyio.WouldBlock:
        yield
        return

    try:
        yield
    finally:
        limiter.release_on_behalf_of(holder)


@define(eq=False)
class _Batch:
    """Changes that are written together.

    Attributes:
        changes: the changes to write.
        error: why they may not be on the disk; None once they are.
    """

    changes: list[Change] = field(factory=list[Change])
    error: str | None = "the ledger was not written: the event loop ended"


@final
class Ledger(AsyncContextManagerMixin):
    """Records the launches of one client: ``async with Ledger(path, server) as ledger: ...``.

    Several clients and processes can use one file. Concurrent calls share one write and one flush
    to the disk. Lines are written in shielded worker threads, so each line is complete or absent.

    Args:
        path: the file. If it does not exist, it is created, readable by its owner only.
        server: the URL of the server of the launches.

    Attributes:
        path: the file, with symbolic links resolved.
    """

    def __init__(self, path: LedgerPath, server: str) -> None:
        self.path: Path = Path(path).resolve()
        self._server = server
        self._client = secrets.token_hex(4)
        self._open: dict[str, OpenLaunch] = {}
        self._batch = _Batch()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        self._writing = anyio.Lock()
        await in_file_thread(self._check)
        yield self

    async def record_launching(self, tokens: Mapping[str, str]) -> None:
        """Record that the requests of launches are about to be sent.

        Args:
            tokens: the name of each session, as it is sent, by the token of the launch.

        Raises:
            LedgerError: the lines may not be on the disk; do not send the requests.

        Cancellation:
            The lines may have been written. Pass the tokens to `record_ended` if nothing is sent.
        """
        await checkpoint()
        owner, at = get_this_owner(self._client), time.time()
        launches = {
            token: OpenLaunch(token, name, None, owner, self._server, at)
            for token, name in tokens.items()
        }
        self._open |= launches
        await self._write(Event.LAUNCHING, launches.values())

    async def record_launched(self, token: str, session_id: str) -> None:
        """Record the session that a launch has made.

        Raises:
            LedgerError: the line may not be on the disk.

        Cancellation:
            The line is written before the cancellation is raised.
        """
        launch = self._open[token] = evolve(self._open[token], session_id=session_id)
        await self._write(Event.LAUNCHED, [launch])

    async def record_ended(self, tokens: Iterable[str]) -> None:
        """Record that launches have ended: destroyed, released, or certainly never created.

        Args:
            tokens: tokens of launches; those that are not open are ignored.

        Raises:
            LedgerError: the lines may not be on the disk; `reap` may look for these launches again.

        Cancellation:
            The lines are written before the cancellation is raised.
        """
        ended = {token: self._open.pop(token) for token in {*tokens} & self._open.keys()}
        try:
            await self._write(Event.ENDED, ended.values())
        except LedgerError:
            self._open |= ended
            raise

    def __repr__(self) -> str:
        return f"<Ledger {self.path}: {len(self._open)} open>"

    def _check(self) -> None:
        """Check, before the first launch, that the file can be written."""
        get_this_owner(self._client)
        _file.append(self.path, b"")

    async def _write(self, event: Event, launches: Collection[OpenLaunch]) -> None:
        if launches:
            await run_shielded(partial(self._commit, (event, launches)), math.inf)
        # Raise a cancellation that arrived during the write, also on trio.
        await checkpoint()

    async def _commit(self, change: Change) -> None:
        """Write *change* to the disk, together with the changes of concurrent calls."""
        batch = self._batch
        batch.changes.append(change)
        async with self._writing:
            if batch is self._batch:
                self._batch = _Batch()
                try:
                    await in_file_thread(partial(_append, self.path, batch.changes))
                except LedgerError as error:
                    batch.error = str(error)
                else:
                    batch.error = None

        if batch.error is not None:
            raise LedgerError(batch.error)


def _append(path: Path, changes: Iterable[Change]) -> None:
    _file.append(path, b"".join(encode(*change) for change in changes))
