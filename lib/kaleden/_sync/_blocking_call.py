"""A coroutine that runs in the event loop, and the thread that waits for it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast, final

import anyio

from kaleden._errors import CallTimedOut, InvalidRequest, SessionNotOpen
from kaleden._results._batch import FinishedSession, Outcomes
from kaleden._results._progress import (
    ProgressCallback,
    ProgressUpdate,
    check_progress,
    check_synchronous,
)
from kaleden._sync._loop_thread import POLL, LoopThread

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("kaleden")

Message: TypeAlias = "Callable[[], object] | BlockingCall | None"
Inbox: TypeAlias = SimpleQueue[Message]
"""Messages of the event loop to a waiting thread: functions to call there, and calls that have
ended."""


@final
class BlockingCall:
    """Runs work in the event loop while the calling thread waits for it.

    The first Ctrl-C cancels the work and waits until it has cleaned up. A second one ends that
    wait, and the clean-up continues without it.

    Args:
        loop_thread: the thread of the event loop.
        timeout: seconds for the work; None for no limit.
        grace: seconds that its clean-up may take; with 0 no warning announces it.
        inbox: receives the messages for the thread; the calls of one block share it.
        leaves_sessions: whether the result names sessions that only the caller can destroy.

    Raises:
        InvalidRequest: *timeout* is not a number of seconds from 0.

    Attributes:
        has_ended: whether the work has ended, its clean-up included.
        error: the exception that the work raised.
    """

    def __init__(
        self,
        loop_thread: LoopThread,
        timeout: float | None = None,
        grace: float = 0.0,
        inbox: Inbox | None = None,
        *,
        leaves_sessions: bool = False,
    ) -> None:
        _check_timeout(timeout)
        self.loop_thread = loop_thread
        self.grace = grace
        self.inbox: Inbox = SimpleQueue() if inbox is None else inbox
        self.has_ended: bool = False
        self.error: BaseException | None = None
        self._timeout = timeout
        self._leaves_sessions = leaves_sessions
        self._work: Callable[[], Awaitable[Any]]
        self._value: Any = None
        self._scope: anyio.CancelScope
        self._notes: list[str] = []
        self._has_begun = False
        self._is_cancelled = False

    # --- in the waiting thread -------------------------------------------------------------------

    def run(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``await method(...)`` in the event loop, and return its result.

        Raises:
            CallTimedOut: *timeout* has passed.
            SessionNotOpen: the client was closed meanwhile.
            BaseException: the method raised it.
        """
        try:
            self.start(partial(method, *args, **kwargs))
            self.process_inbox()
            # Inside the `try`: if Ctrl-C comes now, `cancel` logs the sessions of the lost result.
            if self.error is None:
                return cast("T", self._value)
        except BaseException as error:
            self.cancel(error)
            raise

        return cast("T", self.result())

    def relay_progress(self, progress: ProgressCallback | None) -> ProgressCallback | None:
        """Return a function that calls *progress* in the waiting thread, which raises its errors.

        If *progress* is slower than the work, it gets only the newest update of each operation.
        """
        if progress is None:
            return None

        check_progress(progress)
        updates: dict[str, ProgressUpdate] = {}

        def report() -> None:
            for operation in tuple(updates):
                progress(updates.pop(operation))

        def relay(update: ProgressUpdate) -> None:
            updates[update.operation] = update
            self.inbox.put(report)

        return relay

    def guard(self, function: T) -> T:
        """Keep ``sys.exit()`` in *function* from ending the event loop, which other threads share.

        Anything but a function is returned as it is.
        """
        if not callable(function):
            return function

        check_synchronous(function)

        def guarded(*args: Any) -> Any:
            try:
                return function(*args)
            except Exception:
                raise
            except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
                self.error = error
                self._cancel()
                return False

        return cast("T", guarded)

    def start(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Start *work* in the event loop."""
        self._work = work
        self.loop_thread.spawn(self._run)

    def process_inbox(self, until: Message = None) -> None:
        """Call the functions in the inbox until *until* arrives or the work has ended."""
        while True:
            message = _receive(self.inbox)
            if message is self or (message is until and until is not None):
                return

            if message is not None and not isinstance(message, BlockingCall):
                message()

    def result(self) -> Any:
        """Return or raise the result of work that has ended."""
        if self.error is None:
            return self._value

        try:
            raise self.error
        finally:
            # Break the reference cycle between the error's traceback and this frame.
            self.error = None

    def cancel(self, reason: BaseException) -> None:
        """Cancel the work and wait until it has cleaned up, before the caller raises *reason*.

        An exception during the wait, such as a second Ctrl-C, abandons the work.
        """
        self._is_cancelled = True
        if not self._has_begun or self.loop_thread.is_forked:
            return

        try:
            if not self.has_ended:
                self.announce_clean_up(reason)
                self._spawn_cancel()
            while not self.has_ended:
                _receive(self.inbox)
        except BaseException:
            self.abandon()
            raise

        self._log_lost_result()
        self.add_notes(reason)

    def abandon(self) -> None:
        """Cancel the work without waiting for it."""
        self.loop_thread.abandoned.add(self)
        if self.has_ended:
            self.loop_thread.abandoned.discard(self)
            self._log_lost_result()
            return

        # In a thread, since `spawn` can block.
        threading.Thread(target=self._spawn_cancel, daemon=True).start()
        self._log_leftovers()

    def _log_leftovers(self) -> None:
        """Log the sessions that are left if the program ends now, in one line."""
        if leftovers := self.loop_thread.describe_leftovers():
            logger.warning("left at once: %s", leftovers)
        elif self._leaves_sessions:
            logger.warning(
                "left at once, while it launched: look with fetch() for what was created, which is "
                "yours to destroy"
            )

    def _spawn_cancel(self) -> None:
        with suppress(SessionNotOpen):
            self.loop_thread.spawn(self._cancel)

    def add_notes(self, error: BaseException) -> None:
        """Copy to *error* the notes of the work's own exception, such as what may be left."""
        for note in self._notes:
            error.add_note(note)

    def _log_lost_result(self) -> None:
        """Log the sessions of a result that the caller does not get, since they still exist."""
        value, self._value = self._value, None
        if self._leaves_sessions and value is not None and (ids := _list_ids(value)):
            logger.warning(
                "a launch ended as it was interrupted: sessions %s were created and are yours to "
                "destroy",
                ids,
            )

    def announce_clean_up(self, reason: BaseException) -> None:
        """Log how long the clean-up may take: without it, users press Ctrl-C again."""
        if self.grace > 0:
            text = "ending what was begun, which may take up to %g seconds"
            if isinstance(reason, KeyboardInterrupt):
                text = f"interrupted: {text}; another Ctrl-C leaves at once"
            logger.warning(text, self.grace)

    # --- in the event loop -----------------------------------------------------------------------

    async def _run(self) -> None:
        # `cancel` sets its flag before it reads ours, and we set ours before we read its flag: one
        # of the two threads sees both.
        self._has_begun = True
        self.loop_thread.running.add(self)
        try:
            if not self._is_cancelled:
                await self._run_scoped()
        finally:
            self.has_ended = True
            self.loop_thread.running.discard(self)
            if self in self.loop_thread.abandoned:
                self.loop_thread.abandoned.discard(self)
                self._log_lost_result()
            self.inbox.put(self)

    async def _run_scoped(self) -> None:
        try:
            with anyio.move_on_after(self._timeout) as self._scope:
                self._value = await self._run_and_keep_notes()
        except anyio.get_cancelled_exc_class():
            self._fail(SessionNotOpen("the session was closed while this call was under way"))
            raise
        except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
            self.error = self.error or error
        else:
            if self._scope.cancelled_caught:
                self._fail(CallTimedOut(f"not done within {self._timeout} seconds"))

    async def _run_and_keep_notes(self) -> Any:
        try:
            return await self._work()
        except anyio.get_cancelled_exc_class() as cancelled:
            self._notes = getattr(cancelled, "__notes__", [])
            raise

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.add_notes(error)
            self.error = error

    def _cancel(self) -> None:
        self._scope.cancel()


def _check_timeout(timeout: object) -> None:
    try:
        is_valid = timeout is None or 0 <= cast("float", timeout) <= math.inf  # NaN fails both
    except TypeError:
        is_valid = False
    if not is_valid:
        raise InvalidRequest(
            f"timeout is a number of seconds from 0, or None for no limit, not {timeout!r}"
        )


def _list_ids(launched: Outcomes[Any]) -> list[str]:
    """List the ids in the outcomes of a `create` or `run`."""
    values = launched.values
    return sorted(
        each.info.id if isinstance(each, FinishedSession) else str(each) for each in values
    )


def _receive(inbox: Inbox) -> Message:
    """Wait for the next message; Ctrl-C interrupts the wait."""
    while True:
        with suppress(Empty):
            return inbox.get(timeout=POLL)
