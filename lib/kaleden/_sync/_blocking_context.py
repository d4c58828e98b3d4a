"""An asynchronous context manager that a task holds open for the ``with`` block of a thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Generic, ParamSpec, TypeVar, final

import anyio

from kaleden._errors import CallTimedOut, SessionNotOpen
from kaleden._sync._blocking_call import BlockingCall

P = ParamSpec("P")
A = TypeVar("A")
T = TypeVar("T")


class _BlockFailed(BaseException):
    """Replaces, in the event loop, the exception that ended the block of the thread."""


def _entered() -> None:
    """Message to the waiting thread: the block is open."""


@final
class BlockingContext(Generic[T]):
    """Enters a context manager in a task, and exits it there when the thread leaves its block.

    Args:
        call: the call that holds the context open; its timeout is that of the block.

    Raises:
        SessionForked: the event loop is in another process.
        WrongThread: the calling thread may not wait for the event loop.
    """

    def __init__(self, call: BlockingCall) -> None:
        call.loop_thread.check()
        self._call = call
        self._loop_thread = call.loop_thread
        self._manager: AbstractAsyncContextManager[T]
        self._value: T
        self._leaving: anyio.Event
        self._error: _BlockFailed | None = None
        self._is_broken = False

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter *manager*, and raise its exceptions here."""
        self._manager = manager
        try:
            self._call.start(self._hold)
            self._call.process_inbox(_entered)
        except BaseException as error:
            self._call.cancel(error)
            raise

        if self._call.has_ended:
            self._call.result()
        return self._value

    @contextmanager
    def hold(self, manager: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Hold *manager* open during a ``with`` block."""
        value = self.enter(manager)
        try:
            yield value
        except BaseException as error:
            self.exit(error)
            raise
        self.exit(None)

    def run(self, method: Callable[P, Awaitable[A]], *args: P.args, **kwargs: P.kwargs) -> A:
        """Run ``await method(...)`` inside the block, and return its result.

        Raises:
            BaseException: the method raised it, or it has ended the block meanwhile.
        """
        call = BlockingCall(self._loop_thread, inbox=self._call.inbox)
        try:
            return call.run(method, *args, **kwargs)
        except Exception:
            self.check()
            raise

    def check(self) -> None:
        """Raise the exception that has ended the block, unless this thread ended it."""
        if self._is_broken:
            self._wait_for_end()
            self._call.result()

    def exit(self, error: BaseException | None) -> None:
        """Exit the context after the block, which ended with *error*, or without one.

        Raises:
            BaseException: the exit raised it. The caller raises *error* itself.
        """
        if self._loop_thread.is_forked:
            if error is None:
                self._loop_thread.check()
            return

        self._error = None if error is None else _BlockFailed()
        is_interrupted = isinstance(error, KeyboardInterrupt)
        try:
            if isinstance(error, KeyboardInterrupt) and not self._loop_thread.abandoned:
                self._call.announce_clean_up(error)
            with suppress(SessionNotOpen):
                self._loop_thread.spawn(self._leave)
            if not self._loop_thread.abandoned:
                self._wait_for_end()
        except BaseException as interruption:
            if is_interrupted:
                self._call.abandon()
            else:
                self._call.cancel(interruption)
            raise

        self._raise_result(error)

    def _wait_for_end(self) -> None:
        while not self._call.has_ended:
            self._call.process_inbox()

    def _raise_result(self, error: BaseException | None) -> None:
        """Raise the exception of the exit, unless the caller raises *error* in its place."""
        raised = self._call.error
        if raised is self._error:
            for note in getattr(raised, "__notes__", ()):
                assert error is not None  # noqa: S101  # `_error` was raised in its place
                error.add_note(note)
        elif isinstance(raised, CallTimedOut) or (error and isinstance(raised, SessionNotOpen)):
            # The steps of the block have raised its time-out; its own error takes precedence over
            # the close.
            return
        elif raised is not error:
            self._call.result()

    # --- in the event loop -----------------------------------------------------------------------

    async def _hold(self) -> None:
        self._leaving = anyio.Event()
        async with self._manager as self._value:
            self._call.inbox.put(_entered)
            try:
                await self._leaving.wait()
            except BaseException:
                self._is_broken = True
                raise

            if self._error is not None:
                raise self._error

    def _leave(self) -> None:
        self._leaving.set()
