"""A thread with an event loop, in which one client is open for all other threads.

`anyio.from_thread.start_blocking_portal` is not used, for three reasons. The client is entered
around the portal, so every call ends before the client is closed. A client that could not be opened
can be opened again. And a caller can stop waiting for the thread: after a second Ctrl-C, or after a
fork.

The thread is a daemon, as are the worker threads of its event loop, so it never keeps a program
from ending.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from typing import Any, Final, Protocol, TypeVar, final

import anyio
from anyio.from_thread import BlockingPortal

from kaleden._errors import SessionForked, SessionNotOpen, WrongThread

T = TypeVar("T")

CLOSE_SECONDS: Final = 10.0
"""Seconds to close a client at the end of the program, in addition to the grace of its calls."""

POLL: Final = 0.1 if sys.platform == "win32" else None
"""Seconds between two checks for Ctrl-C, on systems where it does not interrupt a lock."""

_SPAWN_SECONDS: Final = 1.0
"""Seconds in which a call must reach the event loop, before the loop is stopped anyway."""


class Work(Protocol):
    """A task that runs in the event loop for a thread."""

    @property
    def grace(self) -> float:
        """Seconds that its clean-up may take."""
        ...


@final
class LoopThread:
    """Opens a client in a thread of its own at first use, and runs calls there.

    Args:
        client: returns the context manager that is entered in the event loop, around all calls.
        backend: ``"asyncio"`` or ``"trio"``.
        describe_leftovers: describes what is left if the program ends now; None if nothing is.

    Attributes:
        running: the work that has not ended.
        abandoned: the work that had not ended when a second Ctrl-C came.
    """

    def __init__(
        self,
        client: Callable[[], AbstractAsyncContextManager[Any]],
        backend: str,
        describe_leftovers: Callable[[], str | None],
    ) -> None:
        self.describe_leftovers = describe_leftovers
        self.running: set[Work] = set()
        self.abandoned: set[Work] = set()
        self._client = client
        self._backend = backend
        self._process = os.getpid()
        # Reentrant: a signal handler may close the client while its own thread opens it.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._opening: Future[BlockingPortal] | None = None
        self._spawning: dict[object, int] = {}
        self._is_closed = False
        self._is_stop_sent = False
        self._error: BaseException | None = None
        self._ended = threading.Event()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the one that made the client."""
        return os.getpid() != self._process

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the event loop's own thread."""
        return threading.current_thread() is self._thread

    def check(self) -> None:
        """Check that the calling thread may wait for the event loop.

        Raises:
            SessionForked: the loop is in another process.
            WrongThread: this is the loop's own thread, which would wait for itself, or trio does
                not let this thread wait.
        """
        if self.is_forked:
            raise SessionForked(
                "this session belongs to the process that was forked, and so do the sessions that "
                "it launched: make another Session here"
            )

        if self.is_current:
            raise WrongThread(
                "this was called in the session's own thread, which would wait for itself: a "
                "function given as `until` can only use the SessionInfo that it is given"
            )

        if self._backend == "trio" and _runs_trio():
            raise WrongThread(
                "trio runs in this thread, and cannot wait for trio in another thread: use "
                "AsyncSession here, or Session(backend='asyncio')"
            )

    def open(self) -> BlockingPortal:
        """Open the client, unless it is open; concurrent callers share one opening.

        Raises:
            SessionNotOpen: the client was closed.
            Exception: the client could not be opened; the next call tries to open it again.
        """
        self.check()
        with self._lock:
            if self._is_closed:
                raise SessionNotOpen("this session is closed: make another one")

            opening = self._opening or self._start()
            if self._is_closed:
                # A signal handler closed it while the thread was started.
                self.stop()
        return _wait_for_result(opening)

    def spawn(self, work: Callable[[], Any]) -> None:
        """Start *work* in the event loop; the caller has to learn of its end by other means.

        Raises:
            SessionNotOpen: the client was closed, or its event loop has failed.
        """
        portal = self.open()
        entry = object()
        self._spawning[entry] = threading.get_ident()
        try:
            if self._is_closed:
                raise SessionNotOpen("this session was closed by another thread")

            self._start_task(portal, work)
        finally:
            del self._spawning[entry]

    def _start_task(self, portal: BlockingPortal, work: Callable[[], Any]) -> None:
        try:
            portal.start_task_soon(work)
        except RuntimeError as error:
            # SystemExit or KeyboardInterrupt in a task has ended the event loop.
            msg = "this session's event loop has ended: make another session"
            raise SessionNotOpen(msg) from self._error or error

    def close(self, error: BaseException | None = None) -> None:
        """Cancel all calls, close the client, and wait for both.

        A first Ctrl-C is raised after the wait. A second one ends the wait: *error* may be the
        first.

        Raises:
            Exception: closing the client raised it.
        """
        self.check()
        self.stop()
        if self._opening is None or self.abandoned:
            return

        try:
            wait(self._ended)
        except BaseException:
            if not isinstance(error, KeyboardInterrupt):
                wait(self._ended)
            raise

        if self._error is not None:
            raised, self._error = self._error, None
            raise raised

    def stop(self) -> None:
        """Make the event loop end, without a wait; safe in any thread and process."""
        if self.is_forked:
            return

        with self._lock:
            self._is_closed = True
            if self._opening is not None and not self._is_stop_sent:
                # A call that reaches the loop after its end would wait for ever.
                deadline = time.monotonic() + _SPAWN_SECONDS
                while self._others_spawn and not self.is_current and time.monotonic() < deadline:
                    time.sleep(0.001)

                self._opening.add_done_callback(self._send_stop)

    @property
    def _others_spawn(self) -> bool:
        this_thread = threading.get_ident()
        return any(thread != this_thread for thread in tuple(self._spawning.values()))

    def close_at_exit(self) -> None:
        """Close the client as the program ends; wait for the longest grace of its calls at most."""
        if self.is_forked or self.abandoned:
            return

        grace = max((work.grace for work in tuple(self.running)), default=0.0)
        self.stop()
        if self._opening is not None:
            self._ended.wait(grace + CLOSE_SECONDS)

    def _start(self) -> Future[BlockingPortal]:
        opening: Future[BlockingPortal] = Future()
        # An empty context: the first caller's context variables do not apply to later calls.
        self._thread = threading.Thread(
            target=Context().run, args=(self._main, opening), name="kaleden", daemon=True
        )
        try:
            # Register before starting, so that a KeyboardInterrupt cannot leak the thread.
            self._opening = opening
            _open.add(self)
            self._thread.start()
        except BaseException:
            # If the thread runs already, keep it for the next call.
            if opening.cancel():
                self._opening = None
            raise

        return opening

    def _main(self, opening: Future[BlockingPortal]) -> None:
        """Run the event loop until it is stopped; the thread's target."""
        if not opening.set_running_or_notify_cancel():
            return

        try:
            anyio.run(self._serve, opening, backend=self._backend)
        except BaseException as error:  # noqa: BLE001  # `open` or `close` raises it
            if opening.done():
                self._error = error
            else:
                self._fail_to_open(opening, error)
                return

        self._ended.set()

    def _fail_to_open(self, opening: Future[BlockingPortal], error: BaseException) -> None:
        with self._lock:
            self._opening = None
            if self._is_closed:
                # Another thread closed the client while it opened, and waits.
                self._ended.set()
        opening.set_exception(error)

    async def _serve(self, opening: Future[BlockingPortal]) -> None:
        self._stopping = anyio.Event()
        async with self._client(), BlockingPortal() as portal:
            opening.set_result(portal)
            await self._stopping.wait()
            await portal.stop(cancel_remaining=True)

    def _send_stop(self, opening: Future[BlockingPortal]) -> None:
        """Make the event loop end, from any thread."""
        if self.is_current:
            self._stopping.set()
            self._is_stop_sent = True
        elif opening.exception() is None:
            # RuntimeError: the loop has ended, or trio runs in this thread. `stop` sends it again.
            with suppress(RuntimeError):
                opening.result().start_task_soon(self._stopping.set)
                self._is_stop_sent = True


_open: weakref.WeakSet[LoopThread] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for loop_thread in tuple(_open):
        loop_thread.close_at_exit()


def wait(event: threading.Event) -> None:
    """Wait for *event*; Ctrl-C interrupts the wait."""
    while not event.wait(POLL):
        pass


def _runs_trio() -> bool:
    try:
        return anyio.get_cancelled_exc_class().__module__.startswith("trio")
    except anyio.NoEventLoopError:
        return False


def _wait_for_result(future: Future[T]) -> T:
    """Wait for *future*; Ctrl-C interrupts the wait."""
    while not futures.wait([future], POLL).done:
        pass

    return future.result()
