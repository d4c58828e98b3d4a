"""Looks at all sessions, at one pace, for everybody who waits.

There is no task of its own here. Whoever waits sleeps until the next look is due; the first to wake
asks for a list, the others share it. When nobody waits, nobody asks.
"""

from __future__ import annotations

import logging
import random
from typing import Final, Protocol, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define

from kaleden._engine._config import MAX_PAUSE, TRANSIENT, Backoff
from kaleden._errors import FailureKind, RequestError
from kaleden._results._batch import Failure
from kaleden._sessions._monitor._lister import Snapshot
from kaleden._wire import SessionInfo, SessionStatus

MIN_INTERVAL: Final = 1.0  # seconds
MAX_INTERVAL: Final = 15.0  # seconds
GROWTH: Final = 1.5
JITTER: Final = 0.2

# With the growing intervals this outlasts a minute and a half without a server.
MAX_FAILURES: Final = 10

# A poll comes again anyway, so that it also tolerates failures that a retry would not help.
_TOLERATED: Final = TRANSIENT | {FailureKind.PROTOCOL, FailureKind.SERVER_ERROR}


@final
class PollInterval:
    """Looks often after a change, and ever less often while nothing changes.

    The interval is one second after a change and grows by half with each look that shows none, up
    to 15 seconds; each is up to a fifth shorter or longer, so that many clients do not ask in step.

    Args:
        chance: where the jitter comes from.

    Attributes:
        due: the time of the next look, on the clock that the caller tells *now* from.
    """

    __slots__ = ("_backoff", "_random", "due")

    def __init__(self, random_source: random.Random | None = None) -> None:
        self._random = random_source or random.Random()  # noqa: S311  # spreads load, keeps no secret
        self._backoff = Backoff(MIN_INTERVAL, MAX_INTERVAL, GROWTH)
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Make a look due at once, and the ones after it frequent."""
        self._backoff.reset()
        self.due: float = now

    def record_poll(self, now: float, *, changed: bool) -> None:
        """Set the time of the next look, after one that ended at *now*."""
        if changed:
            self._backoff.reset()
        self.due = now + self._backoff.next() * self._random.uniform(1 - JITTER, 1 + JITTER)

    def pause(self, now: float, seconds: float | None) -> None:
        """Put the next look off as the server asked: by *seconds*, within reason."""
        self.due = max(self.due, now + min(seconds or 0.0, MAX_PAUSE))


@final
class ErrorTolerance:
    """Bears some failures in a row, if they are of a kind that passes."""

    __slots__ = ("_remaining",)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start to count anew, after a success."""
        self._remaining = MAX_FAILURES

    def allow(self, kind: FailureKind) -> bool:
        """Count one more failure, and tell whether to try again after it."""
        self._remaining -= 1
        return kind in _TOLERATED and self._remaining >= 0


logger = logging.getLogger("kaleden")

# One list may have begun while a session was between two places; a second one settles it.
MAX_ABSENCES: Final = 2


class ListSource(Protocol):
    """Where the lists come from; see `kaleden._sessions._monitor._lister.SharedList`."""

    async def since(self, since: float) -> Snapshot:
        """Get a list that began at *since* or later."""
        ...


@final
class Poller:
    """Shares each look, and the time of the next one, among all who joined.

    Args:
        lister: makes the lists.
        pace: says when the next one is due.
    """

    def __init__(self, sessions: ListSource, interval: PollInterval) -> None:
        self._sessions = sessions
        self._interval = interval
        self._last: Snapshot | None = None
        self._changed = anyio.Event()

    @property
    def last(self) -> Snapshot | None:
        """The look that was shared last; None before there was one."""
        return self._last

    def subscribe(self) -> Subscription:
        """Take part from now on; a newcomer makes a look due at once."""
        now = anyio.current_time()
        self._interval.restart(now)
        return Subscription(self, now)

    async def poll(self, since: float, seen: Snapshot | None) -> Snapshot:
        """Wait for a look that began at *since* or later and is not the one that was *seen* last.

        Raises:
            RequestError: the list failed, for all who shared it.
        """
        while self._last is None or self._last.began < since or self._last is seen:
            if self._interval.due <= anyio.current_time():
                await self._fetch()
            else:
                with anyio.CancelScope(deadline=self._interval.due):
                    await self._changed.wait()

        await checkpoint()
        return self._last

    async def _fetch(self) -> None:
        try:
            snapshot = await self._sessions.since(self._interval.due)
        except RequestError as error:
            self._record_failure(error.failure)
            raise

        # Of those who shared a list, only the first notes it; and it may already be known when
        # somebody joins at the moment in which it began.
        if snapshot is not self._last or self._interval.due <= snapshot.began:
            self._record(snapshot)

    def _record(self, snapshot: Snapshot) -> None:
        changed = _get_statuses(snapshot) != _get_statuses(self._last)
        self._interval.record_poll(anyio.current_time(), changed=changed)
        self._last = snapshot
        self._changed.set()
        self._changed = anyio.Event()

    def _record_failure(self, failure: Failure) -> None:
        now = anyio.current_time()
        if self._interval.due <= now:
            self._interval.record_poll(now, changed=False)
            self._interval.pause(now, failure.retry_after)
            logger.warning("the sessions could not be listed: %s", failure)


@final
class Subscription:
    """What one of those who joined gets to see: every look that began since, once."""

    def __init__(self, poller: Poller, since: float) -> None:
        self._poller = poller
        self._since = since
        self._seen: Snapshot | None = None
        self._tolerance = ErrorTolerance()

    async def next(self) -> Snapshot | Failure:
        """Wait for the next look.

        Returns:
            The look, or the failure of a list if that will not pass, or too many failed in a row.
        """
        while True:
            try:
                self._seen = await self._poller.poll(self._since, self._seen)
            except RequestError as error:
                if not self._tolerance.allow(error.failure.kind):
                    return error.failure
            else:
                self._tolerance.reset()
                return self._seen


@final
@define
class SessionState:
    """How one session was seen last.

    Attributes:
        key: the session.
        status: its status when it was listed last; None if it never was.
        absences: how many looks in a row did not show it.
        unreadable: how many elements of the last list could not be read.
    """

    key: str
    status: SessionStatus | None = None
    absences: int = 0
    unreadable: int = 0

    def update(self, snapshot: Snapshot) -> SessionInfo | None:
        """Take in what one look shows of the session."""
        info = snapshot.sessions.get(self.key)
        self.unreadable = snapshot.unreadable
        if info is None:
            self.absences += 1
        else:
            self.status, self.absences = info.status, 0

        return info

    @property
    def is_gone(self) -> bool:
        """Whether enough looks in a row did not show it."""
        return self.absences >= MAX_ABSENCES

    def to_vanished(self) -> Failure:
        """Say that it is gone, and how it was seen last."""
        message = (
            f"it was never listed: {MAX_ABSENCES} lists do not show it"
            if self.status is None
            else f"it is no longer listed; it was {self.status} when it was listed last"
        )
        if self.unreadable:
            message += (
                f" (what could not be read in the list may be it: {self.unreadable} elements)"
            )

        return Failure(self.key, FailureKind.VANISHED, message, sent=True)


def _get_statuses(snapshot: Snapshot | None) -> dict[str, SessionStatus]:
    sessions = {} if snapshot is None else snapshot.sessions
    return {key: session.status for key, session in sessions.items()}
