"""The ledger: what is launched is written down first, so that it can be ended by another process.

A line is on the disk before a launch's request leaves, and before its result is handed on. If the
process is killed, even with ``kill -9``, `reap` finds there what it left.
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
from kaleden._sessions._ledger._process import this_owner

T = TypeVar("T")

Change: TypeAlias = tuple[Event, Collection[OpenLaunch]]

_THREADS: Final = 4
_threads = RunVar[anyio.CapacityLimiter]("kaleden.ledger.threads")


async def in_file_thread(work: Callable[[], T]) -> T:
    """Run what blocks; once begun, it is not cancelled.

    The threads are not those of the application, which may all be blocked until something is
    launched. Where there is room among those it is counted, so that who looks at them, such as a
    virtual clock, knows of it.
    """
    with _count_thread(anyio.to_thread.current_default_thread_limiter()):
        return await anyio.to_thread.run_sync(work, limiter=_file_threads())


def _file_threads() -> anyio.CapacityLimiter:
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
    """Lines that go to the disk together.

    Attributes:
        changes: what to write.
        fault: why it may not be on the disk; None once it is.
    """

    changes: list[Change] = field(factory=list[Change])
    error: str | None = "the ledger was not written: the event loop ended"


@final
class Ledger(AsyncContextManagerMixin):
    """Writes down what one client launches: ``async with Ledger(path, server) as ledger: ...``.

    Several clients and processes may use one file. Calls that come at the same time share one
    write and one flush to the disk. Lines are written in worker threads and shielded, so each is
    whole or absent.

    Args:
        path: the file; it is made if there is none, readable by its owner only.
        server: the URL of the server that launches go to.

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
        """Write down that launches are about to leave.

        Args:
            tokens: the name of each session, as it is sent, by the launch's token.

        Raises:
            LedgerError: it may not be on the disk; send nothing.

        Cancellation:
            The lines may have been written: give the tokens to `ended` if nothing is sent.
        """
        await checkpoint()
        owner, at = this_owner(self._client), time.time()
        launches = {
            token: OpenLaunch(token, name, None, owner, self._server, at)
            for token, name in tokens.items()
        }
        self._open |= launches
        await self._write(Event.LAUNCHING, launches.values())

    async def record_launched(self, token: str, session_id: str) -> None:
        """Write down which session a launch has made.

        Raises:
            LedgerError: it may not be on the disk.

        Cancellation:
            It is written all the same.
        """
        launch = self._open[token] = evolve(self._open[token], session_id=session_id)
        await self._write(Event.LAUNCHED, [launch])

    async def record_ended(self, tokens: Iterable[str]) -> None:
        """Write down that launches are settled: destroyed, released, or certainly never made.

        Args:
            tokens: tokens of launches; those that are not open are passed over.

        Raises:
            LedgerError: it may not be on the disk; `reap` may look for these once more.

        Cancellation:
            It is written all the same.
        """
        ended = {token: self._open.pop(token) for token in {*tokens} & self._open.keys()}
        try:
            await self._write(Event.ENDED, ended.values())
        except LedgerError:
            self._open |= ended
            raise

    async def compact(self) -> None:
        """Rewrite the file with what is still open, of all owners; other processes may go on.

        Raises:
            LedgerError: the file is as it was.

        Cancellation:
            The file is rewritten, or as it was.
        """
        await in_file_thread(partial(_file.compact, self.path))

    def __repr__(self) -> str:
        return f"<Ledger {self.path}: {len(self._open)} open>"

    def _check(self) -> None:
        """Find out, before anything is launched, whether it could be written down."""
        this_owner(self._client)
        _file.append(self.path, b"")

    async def _write(self, event: Event, launches: Collection[OpenLaunch]) -> None:
        if launches:
            await run_shielded(partial(self._commit, (event, launches)), math.inf)
        # A cancellation meanwhile is told now, on trio too.
        await checkpoint()

    async def _commit(self, change: Change) -> None:
        """Put *change* on the disk, with those of all who wait for the same."""
        batch = self._batch
        batch.changes.append(change)
        async with self._writing:
            if batch is self._batch:
                self._batch = _Batch()
                await self._flush(batch)

        if batch.error is not None:
            raise LedgerError(batch.error)

    async def _flush(self, batch: _Batch) -> None:
        try:
            await in_file_thread(partial(_append, self.path, batch.changes))
        except LedgerError as error:
            batch.error = str(error)
        else:
            batch.error = None


def _append(path: Path, changes: Iterable[Change]) -> None:
    _file.append(path, b"".join(encode(*change) for change in changes))
