"""A thread with an event loop in it, where one client is open for all other threads.

The thread is our own, and not one of `anyio.from_thread.start_blocking_portal`, for three reasons.
The client is entered around the portal, so that every call has ended before the client is left. A
client that could not be opened can be tried again. And nobody has to wait for the thread: whoever
presses Ctrl-C twice, or forks, is let go.

It is a daemon thread, as are those that the event loop starts in turn, so it never keeps a program
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

CLOSING: Final = 10.0
"""Seconds for the end of a client at the program's, beside those that its calls may take."""

POLL: Final = 0.1 if sys.platform == "win32" else None
"""Seconds between two looks for Ctrl-C, where waiting for a lock is not interrupted by it."""

_ENTERING: Final = 1.0
"""Seconds that a call may take to reach the event loop, before the loop is closed all the same."""


class Work(Protocol):
    """What runs in the event loop for a thread."""

    @property
    def grace(self) -> float:
        """Seconds that its clean-up may take."""
        ...


@final
class LoopThread:
    """Opens a client in a thread of its own at first use, and leads calls to it.

    Args:
        client: makes what is entered in the event loop, around all calls.
        backend: ``"asyncio"`` or ``"trio"``.
        left_behind: says what is left if the program ends now; None if nothing.

    Attributes:
        running: what is under way.
        left: what a second Ctrl-C left under way.
    """

    def __init__(
        self,
        client: Callable[[], AbstractAsyncContextManager[Any]],
        backend: str,
        left_behind: Callable[[], str | None],
    ) -> None:
        self.left_behind = left_behind
        self.running: set[Work] = set()
        self.abandoned: set[Work] = set()
        self._client = client
        self._backend = backend
        self._process = os.getpid()
        # A handler of a signal may close what this very thread is opening.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._opening: Future[BlockingPortal] | None = None
        self._entering: dict[object, int] = {}
        self._closed = False
        self._told = False
        self._fault: BaseException | None = None
        self._over = threading.Event()

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process whose client it is."""
        return os.getpid() != self._process

    @property
    def is_here(self) -> bool:
        """Whether this is the event loop's own thread."""
        return threading.current_thread() is self._thread

    def check(self) -> None:
        """Make sure that this thread may wait for the event loop.

        Raises:
            SessionForked: the loop is in another process.
            WrongThread: this is the loop's own thread, which would wait for itself, or trio would
                not let it wait.
        """
        if self.is_forked:
            raise SessionForked(
                "this session belongs to the process that was forked, and so do the sessions that "
                "it launched: make another Session here"
            )

        if self.is_here:
            raise WrongThread(
                "this was called in the session's own thread, which would wait for itself: a "
                "function given as `until` can only look at the SessionInfo that it is given"
            )

        if self._backend == "trio" and _runs_trio():
            raise WrongThread(
                "trio runs in this thread, and lets it not wait for another thread's trio: use "
                "AsyncSession here, or Session(backend='asyncio')"
            )

    def open(self) -> BlockingPortal:
        """Open the client, unless it is open; threads that come at the same time open one.

        Raises:
            SessionNotOpen: it was closed.
            Exception: it could not be opened; the next call tries again.
        """
        self.check()
        with self._lock:
            if self._closed:
                raise SessionNotOpen("this session is closed: make another one")

            opening = self._opening or self._start()
            if self._closed:
                # A handler of a signal did that while the thread was started.
                self.stop()
        return _result(opening)

    def spawn(self, work: Callable[[], Any]) -> None:
        """Start *work* in the event loop; the caller hears of it by his own means.

        Raises:
            SessionNotOpen: the client was closed, or its event loop has broken.
        """
        portal = self.open()
        ticket = object()
        self._entering[ticket] = threading.get_ident()
        try:
            if self._closed:
                raise SessionNotOpen("this session was closed by another thread")

            self._hand_over(portal, work)
        finally:
            del self._entering[ticket]

    def _hand_over(self, portal: BlockingPortal, work: Callable[[], Any]) -> None:
        try:
            portal.start_task_soon(work)
        except RuntimeError as error:
            # An exit that was raised in the event loop has ended that.
            msg = "this session's event loop has ended: make another session"
            raise SessionNotOpen(msg) from self._fault or error

    def close(self, error: BaseException | None = None) -> None:
        """End what is under way, and then the client; wait for it, unless somebody is in a hurry.

        The first Ctrl-C, which may be *error*, is raised when all has ended, the second one at
        once.

        Raises:
            Exception: what leaving the client raised.
        """
        self.check()
        self.stop()
        if self._opening is None or self.abandoned:
            return

        try:
            wait(self._over)
        except BaseException:
            if not isinstance(error, KeyboardInterrupt):
                wait(self._over)
            raise

        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def stop(self) -> None:
        """Have everything ended, and wait for nothing; safe in any thread and process."""
        if self.is_forked:
            return

        with self._lock:
            self._closed = True
            if self._opening is not None and not self._told:
                # A call on its way to a loop that is gone would wait for ever.
                give_up = time.monotonic() + _ENTERING
                while self._others_enter and not self.is_here and time.monotonic() < give_up:
                    time.sleep(0.001)

                self._opening.add_done_callback(self._tell)

    @property
    def _others_enter(self) -> bool:
        me = threading.get_ident()
        return any(thread != me for thread in tuple(self._entering.values()))

    def close_at_exit(self) -> None:
        """End everything, within what that may take, since the program ends."""
        if self.is_forked or self.abandoned:
            return

        grace = max((work.grace for work in tuple(self.running)), default=0.0)
        self.stop()
        if self._opening is not None:
            self._over.wait(grace + CLOSING)

    def _start(self) -> Future[BlockingPortal]:
        opening: Future[BlockingPortal] = Future()
        # A context of its own: what the first caller has in his is not for all later calls.
        self._thread = threading.Thread(
            target=Context().run, args=(self._live, opening), name="kaleden", daemon=True
        )
        try:
            # Known before it runs: a Ctrl-C at any moment leaves no thread that nobody can end.
            self._opening = opening
            _open.add(self)
            self._thread.start()
        except BaseException:
            # Should it run already, it is as good as any.
            if opening.cancel():
                self._opening = None
            raise

        return opening

    def _live(self, opening: Future[BlockingPortal]) -> None:
        """Run the event loop; the thread's whole life."""
        if not opening.set_running_or_notify_cancel():
            return

        try:
            anyio.run(self._serve, opening, backend=self._backend)
        except BaseException as error:  # noqa: BLE001  # whoever opens or closes hears of it
            if opening.done():
                self._fault = error
            else:
                self._give_up(opening, error)
                return

        self._over.set()

    def _give_up(self, opening: Future[BlockingPortal], error: BaseException) -> None:
        with self._lock:
            self._opening = None
            if self._closed:
                # Somebody closed what was still opening, and waits.
                self._over.set()
        opening.set_exception(error)

    async def _serve(self, opening: Future[BlockingPortal]) -> None:
        self._stopping = anyio.Event()
        async with self._client(), BlockingPortal() as portal:
            opening.set_result(portal)
            await self._stopping.wait()
            await portal.stop(cancel_remaining=True)

    def _tell(self, opening: Future[BlockingPortal]) -> None:
        """Have the event loop end, from whichever thread."""
        if self.is_here:
            self._stopping.set()
            self._told = True
        elif opening.exception() is None:
            # Refused if the loop is gone, or if trio runs here too: then it is told another time.
            with suppress(RuntimeError):
                opening.result().start_task_soon(self._stopping.set)
                self._told = True


_open: weakref.WeakSet[LoopThread] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for bridge in tuple(_open):
        bridge.close_at_exit()


def wait(event: threading.Event) -> None:
    """Wait for *event*; Ctrl-C gets through."""
    while not event.wait(POLL):
        pass


def _runs_trio() -> bool:
    try:
        return anyio.get_cancelled_exc_class().__module__.startswith("trio")
    except anyio.NoEventLoopError:
        return False


def _result(future: Future[T]) -> T:
    """Wait for *future*; Ctrl-C gets through."""
    while not futures.wait([future], POLL).done:
        pass

    return future.result()
