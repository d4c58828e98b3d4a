"""An asynchronous context manager, held open in the event loop for a thread's ``with``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from queue import SimpleQueue
from typing import Generic, ParamSpec, TypeVar, final

import anyio

from kaleden._errors import CallTimedOut, SessionNotOpen
from kaleden._sync._blocking_call import Call, Inbox
from kaleden._sync._loop_thread import LoopThread

P = ParamSpec("P")
A = TypeVar("A")
T = TypeVar("T")


class _Left(BaseException):
    """Stands in the event loop for the error with which a thread left its block."""


def _entered() -> None:
    """Tell the waiting thread that the block is open."""


@final
class BlockingContext(Generic[T]):
    """Enters a context manager in a task of its own, and leaves it there when the thread says so.

    Args:
        bridge: leads to the event loop.
        timeout: seconds until it is left all the same; None for no limit.
        grace: seconds that leaving it may take.

    Attributes:
        host: the work that holds it open.
    """

    def __init__(
        self, bridge: LoopThread, timeout: float | None = None, grace: float = 0.0
    ) -> None:
        self._bridge = bridge
        self._inbox: Inbox = SimpleQueue()
        self.host = Call(bridge, timeout, grace, self._inbox)
        self._manager: AbstractAsyncContextManager[T]
        self._value: T
        self._leaving: anyio.Event
        self._error: _Left | None = None
        self._has_broken = False

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter *manager*; what that raises is raised here."""
        self._manager = manager
        try:
            self.host.start(self._hold)
            self.host.attend(_entered)
        except BaseException as error:
            self.host.end(error)
            raise

        if self.host.is_over:
            self.host.result()
        return self._value

    @contextmanager
    def around(self, manager: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter *manager* for the length of a ``with`` block."""
        value = self.enter(manager)
        try:
            yield value
        except BaseException as error:
            self.leave(error)
            raise
        self.leave(None)

    def run(self, method: Callable[P, Awaitable[A]], *args: P.args, **kwargs: P.kwargs) -> A:
        """Run work on what was entered, and give what it returns.

        Raises:
            BaseException: what the work raised, or what ended the block meanwhile.
        """
        try:
            return Call(self._bridge, inbox=self._inbox).run(method, *args, **kwargs)
        except Exception:
            self.check()
            raise

    def check(self) -> None:
        """Raise what ended the block, if anything but this thread did."""
        if self._has_broken:
            self._await_end()
            self.host.result()

    def leave(self, error: BaseException | None) -> None:
        """Leave the block, which ended with *error*, or well.

        Raises:
            BaseException: what leaving it raised. *error* itself is the caller's to raise.
        """
        if self._bridge.is_forked:
            if error is None:
                self._bridge.check()
            return

        self._error = None if error is None else _Left()
        is_interrupted = isinstance(error, KeyboardInterrupt)
        try:
            if isinstance(error, KeyboardInterrupt) and not self._bridge.abandoned:
                self.host.say_how_long(error)
            with suppress(SessionNotOpen):
                self._bridge.spawn(self._leave_soon)
            if not self._bridge.abandoned:
                self._await_end()
        except BaseException as interruption:
            if is_interrupted:
                self.host.abandon()
            else:
                self.host.end(interruption)
            raise

        self._settle(error)

    def _await_end(self) -> None:
        while not self.host.is_over:
            self.host.attend()

    def _settle(self, error: BaseException | None) -> None:
        """Raise how the block ended, unless the caller knows."""
        raised = self.host.error
        if raised is self._error:
            for note in getattr(raised, "__notes__", ()):
                assert error is not None  # noqa: S101  # it is what stood for it that was raised
                error.add_note(note)
        elif isinstance(raised, CallTimedOut) or (error and isinstance(raised, SessionNotOpen)):
            # The time of a block is that of its steps, and an error of its own goes before.
            return
        elif raised is not error:
            self.host.result()

    # --- in the event loop -----------------------------------------------------------------------

    async def _hold(self) -> None:
        self._leaving = anyio.Event()
        async with self._manager as self._value:
            self._inbox.put(_entered)
            try:
                await self._leaving.wait()
            except BaseException:
                self._has_broken = True
                raise

            if self._error is not None:
                raise self._error

    def _leave_soon(self) -> None:
        self._leaving.set()
