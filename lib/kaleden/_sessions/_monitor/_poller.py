"""Polls of the session list, shared by all waits of a client.

No task runs in the background. Each waiting task sleeps until the next poll is due. The first to
wake requests a list, and the others share it. Without waiting tasks no list is requested.
"""

from __future__ import annotations

import logging
import random
from typing import Final, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define

from kaleden._engine._config import MAX_PAUSE, TRANSIENT, Backoff
from kaleden._errors import FailureKind, RequestError
from kaleden._results._batch import Failure
from kaleden._sessions._monitor._lister import SharedList, Snapshot
from kaleden._wire import SessionInfo, SessionStatus

MIN_INTERVAL: Final = 1.0  # seconds
MAX_INTERVAL: Final = 15.0  # seconds
GROWTH: Final = 1.5
JITTER: Final = 0.2

# With the growing intervals, this tolerates a server that is away for a minute and a half.
MAX_FAILURES: Final = 10

# The next poll follows anyway. So tolerate also failures that are not retried elsewhere.
_TOLERATED: Final = TRANSIENT | {FailureKind.PROTOCOL, FailureKind.SERVER_ERROR}


@final
class PollInterval:
    """The time of the next poll: soon after a change, later while nothing changes.

    The interval is one second after a change. It grows by half with each poll that shows no change,
    up to 15 seconds. Each interval has a jitter of up to a fifth, so that many clients do not poll
    at the same time.

    Args:
        random_source: the source of the jitter.

    Attributes:
        due: the time of the next poll, on the clock of the *now* arguments.
    """

    __slots__ = ("_backoff", "_random", "due")

    def __init__(self, random_source: random.Random | None = None) -> None:
        self._random = random_source or random.Random()  # noqa: S311  # spreads load, protects no secret
        self._backoff = Backoff(MIN_INTERVAL, MAX_INTERVAL, GROWTH)
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Make a poll due at once, and reset the interval."""
        self._backoff.reset()
        self.due: float = now

    def record_poll(self, now: float, *, changed: bool) -> None:
        """Set the time of the next poll, after one that ended at *now*."""
        if changed:
            self._backoff.reset()
        self.due = now + self._backoff.next() * self._random.uniform(1 - JITTER, 1 + JITTER)

    def pause(self, now: float, seconds: float | None) -> None:
        """Delay the next poll by *seconds*, as the server requested, but by `MAX_PAUSE` at most."""
        self.due = max(self.due, now + min(seconds or 0.0, MAX_PAUSE))


@final
class ErrorTolerance:
    """Tolerates a number of consecutive failures, if they are of a transient kind."""

    __slots__ = ("_remaining",)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the count, after a success."""
        self._remaining = MAX_FAILURES

    def allow(self, kind: FailureKind) -> bool:
        """Count a failure; return whether to poll again."""
        self._remaining -= 1
        return kind in _TOLERATED and self._remaining >= 0


logger = logging.getLogger("kaleden")

# A single list can miss a session in transition, so require two consecutive misses.
MAX_ABSENCES: Final = 2


@final
class Poller:
    """Shares each list, and the time of the next poll, among its subscriptions.

    Attributes:
        last: the last list; None before the first.
    """

    def __init__(self, sessions: SharedList, interval: PollInterval) -> None:
        self._sessions = sessions
        self._interval = interval
        self.last: Snapshot | None = None
        self._changed = anyio.Event()

    def subscribe(self) -> Subscription:
        """Return a new subscription; it makes a poll due at once."""
        now = anyio.current_time()
        self._interval.restart(now)
        return Subscription(self, now)

    async def poll(self, since: float, seen: Snapshot | None) -> Snapshot:
        """Wait for a list that began at *since* or later and is not the list *seen* last.

        Raises:
            RequestError: the request failed, for every task that shared it.
        """
        while self.last is None or self.last.began < since or self.last is seen:
            if self._interval.due <= anyio.current_time():
                await self._fetch()
            else:
                with anyio.CancelScope(deadline=self._interval.due):
                    await self._changed.wait()

        await checkpoint()
        return self.last

    async def _fetch(self) -> None:
        try:
            snapshot = await self._sessions.since(self._interval.due)
        except RequestError as error:
            self._record_failure(error.failure)
            raise

        # Of the tasks that share a list, only the first records it. A known list counts again if a
        # subscription made a poll due at the time at which that list began.
        if snapshot is not self.last or self._interval.due <= snapshot.began:
            self._record(snapshot)

    def _record(self, snapshot: Snapshot) -> None:
        changed = _get_statuses(snapshot) != _get_statuses(self.last)
        self._interval.record_poll(anyio.current_time(), changed=changed)
        self.last = snapshot
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
    """Returns each list that began after the subscription once."""

    def __init__(self, poller: Poller, since: float) -> None:
        self._poller = poller
        self._since = since
        self._seen: Snapshot | None = None
        self._tolerance = ErrorTolerance()

    async def next(self) -> Snapshot | Failure:
        """Wait for the next list.

        Returns:
            The list; or the failure, if it is not transient or too many polls failed in a row.
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
    """The last known state of one session.

    Attributes:
        key: the session.
        status: its status when it was listed last; None if it never was.
        absences: the number of consecutive lists without it, up to the last.
        unreadable: the number of elements of the last list that could not be parsed.
    """

    key: str
    status: SessionStatus | None = None
    absences: int = 0
    unreadable: int = 0

    def update(self, snapshot: Snapshot) -> SessionInfo | None:
        """Update the state from a list; return the session as listed, or None."""
        info = snapshot.sessions.get(self.key)
        self.unreadable = snapshot.unreadable
        if info is None:
            self.absences += 1
        else:
            self.status, self.absences = info.status, 0

        return info

    @property
    def is_gone(self) -> bool:
        """Whether enough consecutive lists did not show it."""
        return self.absences >= MAX_ABSENCES

    def to_vanished(self) -> Failure:
        """Return the failure of a session that is gone, with its last status."""
        message = (
            f"it was never listed: {MAX_ABSENCES} lists do not show it"
            if self.status is None
            else f"it is no longer listed; it was {self.status} when it was listed last"
        )
        if self.unreadable:
            message += f" (it may be one of {self.unreadable} unreadable elements of the list)"

        return Failure(self.key, FailureKind.VANISHED, message, sent=True)


def _get_statuses(snapshot: Snapshot | None) -> dict[str, SessionStatus]:
    sessions = {} if snapshot is None else snapshot.sessions
    return {key: session.status for key, session in sessions.items()}
