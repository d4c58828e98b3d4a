"""One piece of work in the event loop, and the thread that waits for it."""

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

Message: TypeAlias = "Callable[[], object] | Call | None"
Inbox: TypeAlias = SimpleQueue[Message]
"""What the event loop has for a waiting thread: functions to run there, and calls that are over;
None wakes it."""


@final
class Call:
    """Runs work in the event loop while this thread waits, and cancels it if the thread must go.

    The first Ctrl-C cancels the work, and waits until it has cleaned up; the second one, while that
    is waited for, leaves it to that.

    Args:
        bridge: leads to the event loop.
        timeout: seconds for the work; None for no limit.
        grace: seconds that its clean-up may take; nothing is said of it if it takes no time.
        inbox: where the thread is told of things; the calls of one block share one.
        makes: whether sessions come of it that nobody but its caller answers for.

    Raises:
        InvalidRequest: *timeout* is no number of seconds from 0.

    Attributes:
        is_over: whether the work has ended, its clean-up included.
        error: what it raised.
    """

    def __init__(
        self,
        bridge: LoopThread,
        timeout: float | None = None,
        grace: float = 0.0,
        inbox: Inbox | None = None,
        *,
        makes: bool = False,
    ) -> None:
        _check_timeout(timeout)
        self.grace = grace
        self.inbox: Inbox = SimpleQueue() if inbox is None else inbox
        self.is_over = False
        self.error: BaseException | None = None
        self._bridge = bridge
        self._timeout = timeout
        self._makes = makes
        self._work: Callable[[], Awaitable[Any]]
        self._value: Any = None
        self._scope: anyio.CancelScope
        self._notes: list[str] = []
        self._has_begun = False
        self._is_dropped = False

    # --- in the waiting thread -------------------------------------------------------------------

    def run(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``await method(...)`` in the event loop, and give what it returns.

        Raises:
            CallTimedOut: *timeout* was over.
            SessionNotOpen: the client was closed meanwhile.
            BaseException: what the method raised.
        """
        try:
            self.start(partial(method, *args, **kwargs))
            self.attend()
            # Given from in here: a Ctrl-C that comes meanwhile does not lose it unseen.
            if self.error is None:
                return cast("T", self._value)
        except BaseException as error:
            self.end(error)
            raise

        return cast("T", self.result())

    def here(self, progress: ProgressCallback | None) -> ProgressCallback | None:
        """Have *progress* called in the waiting thread; its errors are that thread's.

        If it is slower than the work, it gets only the newest tally of each operation.
        """
        if progress is None:
            return None

        check_progress(progress)
        news: dict[str, ProgressUpdate] = {}

        def tell() -> None:
            for operation in tuple(news):
                progress(news.pop(operation))

        def note(tally: ProgressUpdate) -> None:
            news[tally.operation] = tally
            self.inbox.put(tell)

        return note

    def guarded(self, function: T) -> T:
        """Let no ``sys.exit()`` in *function* end the event loop, which other threads use too."""
        if not callable(function):
            return function

        check_synchronous(function)

        def safe(*args: Any) -> Any:
            try:
                return function(*args)
            except Exception:
                raise
            except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
                self.error = error
                self._cancel()
                return False

        return cast("T", safe)

    def start(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Start *work* in the event loop."""
        self._work = work
        self._bridge.spawn(self._run)

    def attend(self, event: Message = None) -> None:
        """Run what the event loop has for this thread, until *event* comes or the work is over."""
        while True:
            message = _take(self.inbox)
            if message is self or (message is event and event is not None):
                return

            if message is not None and not isinstance(message, Call):
                message()

    def result(self) -> Any:
        """Give what the work returned, or raise what it raised; it is over."""
        if self.error is None:
            return self._value

        try:
            raise self.error
        finally:
            # The error knows this frame, and should not be known by it.
            self.error = None

    def end(self, reason: BaseException) -> None:
        """Cancel the work, and wait until it has cleaned up, since *reason* is about to leave.

        Whatever is raised meanwhile, such as a second Ctrl-C, leaves the work to that.
        """
        self._is_dropped = True
        if not self._has_begun or self._bridge.is_forked:
            return

        try:
            if not self.is_over:
                self.say_how_long(reason)
                self._cancel_soon()
            while not self.is_over:
                _take(self.inbox)
        except BaseException:
            self.abandon()
            raise

        self._tell_unseen()
        self.note(reason)

    def abandon(self) -> None:
        """Have the work cancelled, and wait for nothing."""
        self._bridge.abandoned.add(self)
        if self.is_over:
            self._bridge.abandoned.discard(self)
            self._tell_unseen()
            return

        # Even to reach the event loop could take its time.
        threading.Thread(target=self._cancel_soon, daemon=True).start()
        self._tell_left()

    def _tell_left(self) -> None:
        """Say what the end of the program would leave; who is in a hurry reads one line."""
        if told := self._bridge.left_behind():
            logger.warning("left at once: %s", told)
        elif self._makes:
            logger.warning(
                "left at once, while it launched: look with fetch() for what was created, which is "
                "yours to destroy"
            )

    def _cancel_soon(self) -> None:
        with suppress(SessionNotOpen):
            self._bridge.spawn(self._cancel)

    def note(self, error: BaseException) -> None:
        """Put on *error* what the work noted on its own end, such as what may be left."""
        for note in self._notes:
            error.add_note(note)

    def _tell_unseen(self) -> None:
        """Name the sessions of a result that nobody will see, since they are still there."""
        value, self._value = self._value, None
        if self._makes and value is not None and (names := _sessions(value)):
            logger.warning(
                "a launch ended as it was interrupted: sessions %s were created and are yours to "
                "destroy",
                names,
            )

    def say_how_long(self, reason: BaseException) -> None:
        """Say how long the clean-up may take: after a Ctrl-C silence makes people press again."""
        if self.grace > 0:
            text = "ending what was begun, which may take up to %g seconds"
            if isinstance(reason, KeyboardInterrupt):
                text = f"interrupted: {text}; another Ctrl-C leaves at once"
            logger.warning(text, self.grace)

    # --- in the event loop -----------------------------------------------------------------------

    async def _run(self) -> None:
        # Said before it is asked, as the waiting thread asks after it has said: one of them sees.
        self._has_begun = True
        self._bridge.running.add(self)
        try:
            if not self._is_dropped:
                await self._run_scoped()
        finally:
            self.is_over = True
            self._bridge.running.discard(self)
            if self in self._bridge.abandoned:
                self._bridge.abandoned.discard(self)
                self._tell_unseen()
            self.inbox.put(self)

    async def _run_scoped(self) -> None:
        try:
            with anyio.move_on_after(self._timeout) as self._scope:
                self._value = await self._noted()
        except anyio.get_cancelled_exc_class():
            self._fail(SessionNotOpen("the session was closed while this call was under way"))
            raise
        except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
            self.error = self.error or error
        else:
            if self._scope.cancelled_caught:
                self._fail(CallTimedOut(f"not done within {self._timeout} seconds"))

    async def _noted(self) -> Any:
        try:
            return await self._work()
        except anyio.get_cancelled_exc_class() as cancelled:
            self._notes = getattr(cancelled, "__notes__", [])
            raise

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.note(error)
            self.error = error

    def _cancel(self) -> None:
        self._scope.cancel()


def _check_timeout(timeout: object) -> None:
    try:
        usable = timeout is None or 0 <= cast("float", timeout) <= math.inf  # which NaN is not
    except TypeError:
        usable = False
    if not usable:
        raise InvalidRequest(
            f"timeout is a number of seconds from 0, or None for no limit, not {timeout!r}"
        )


def _sessions(made: Outcomes[Any]) -> list[str]:
    """The ids in the outcomes of a `create` or `run`."""
    values = made.values
    return sorted(
        each.info.id if isinstance(each, FinishedSession) else str(each) for each in values
    )


def _take(inbox: Inbox) -> Message:
    """Wait for the next message; Ctrl-C gets through."""
    while True:
        with suppress(Empty):
            return inbox.get(timeout=POLL)
