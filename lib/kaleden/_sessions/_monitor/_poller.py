"""Polls of the session list, shared by all waits of a client.

No task runs in the background. Each waiting task sleeps until the next poll is due. The first to
wake requests a list, and the others share it. Without waiting tasks no list is requested.
"""

from __future__ import annotations

import random
from typing import Final, final

import anyio
from anyio.lowlevel import checkpoint

from kaleden._engine._config import MAX_PAUSE, Backoff
from kaleden._errors import RequestError
from kaleden._results._batch import Failure
from kaleden._sessions._monitor._history import SessionState, Snapshot
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._outage import (
    FAILED_INTERVALS,
    REFUSED,
    ConsecutiveFailures,
    FailedPoll,
    Outage,
    Patience,
)
from kaleden._wire import SessionStatus

MIN_INTERVAL: Final = 1.0  # seconds
MAX_INTERVAL: Final = 15.0  # seconds
GROWTH: Final = 1.5
SHRINKAGE: Final = 3.0
JITTER: Final = 0.2

REFUSED_INTERVAL: Final = 15.0  # seconds, while the login is refused

_LAST_POLL_TIMEOUT: Final = 90.0
"""Seconds after the end of the patience, within which the last poll must end."""


@final
class PollInterval:
    """The time of the next poll: soon after a change, later while nothing changes.

    The first interval is one second. With each poll that shows no change it grows by half, up to 15
    seconds; with each poll that shows a change it falls to a third. So it is short while a few
    sessions start and end, and longer where many sessions change all the time. While polls fail,
    it grows up to a minute. Each interval has a jitter of up to a fifth, so that many clients do
    not poll at the same time.

    Args:
        random_source: the source of the jitter.

    Attributes:
        due: the time of the next poll, on the clock of the *now* arguments.
        earliest: the same without regard to a ``Retry-After`` of the server.
    """

    __slots__ = ("_backoff", "_failed", "_random", "due", "earliest")

    def __init__(self, random_source: random.Random | None = None) -> None:
        self._random = random_source or random.Random()  # noqa: S311  # spreads load, protects no secret
        self._backoff = Backoff(MIN_INTERVAL, MAX_INTERVAL, GROWTH)
        self._failed = Backoff(*FAILED_INTERVALS)
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Make a poll due at once, and reset the interval."""
        self._backoff.reset()
        self.due: float = now
        self.earliest: float = now

    def record_poll(self, now: float, *, changed: bool) -> None:
        """Set the time of the next poll, after one that ended at *now*."""
        self._failed.reset()
        if changed:
            self._backoff.shrink(SHRINKAGE)
        self.due = self.earliest = now + self._draw(self._backoff.next())

    def record_failure(self, now: float, failure: Failure) -> None:
        """Set the time of the next poll, after one that failed at *now*."""
        seconds = self._failed.next()
        if failure.kind in REFUSED:
            # The login may be renewed at any moment.
            seconds = REFUSED_INTERVAL
        self.earliest = now + self._draw(seconds)
        self.due = max(self.earliest, now + min(failure.retry_after or 0.0, MAX_PAUSE))

    def _draw(self, seconds: float) -> float:
        return seconds * self._random.uniform(1 - JITTER, 1 + JITTER)


@final
class Poller:
    """Shares each list, and the time of the next poll, among its subscriptions.

    Attributes:
        patience: for how long failures are tolerated.
        outage: the current outage of the server, if there is one.
        last: the last list; None before the first.
    """

    def __init__(self, sessions: SharedList, interval: PollInterval, patience: Patience) -> None:
        self._sessions = sessions
        self._interval = interval
        self.patience: Patience = patience
        self.outage: Outage = Outage()
        self.last: Snapshot | None = None
        self._changed = anyio.Event()

    def subscribe(self, *, soon: bool = True) -> Subscription:
        """Return a new subscription.

        Args:
            soon: whether to make a poll due at once, unless there is an outage.
        """
        now = anyio.current_time()
        if soon and self.outage.began is None:
            self._interval.restart(now)
        return Subscription(self, now)

    def new_state(self, key: str) -> SessionState:
        """Return the state of a session, to be updated from the lists of a subscription."""
        history = self._sessions.history
        return SessionState(key, history, longest_doubt=history.settle)

    async def wait_available(self, *, soon: bool = True) -> bool:
        """Wait until the sessions can be listed; return False if an outage lasts for too long."""
        subscription = self.subscribe(soon=soon)
        while isinstance(polled := await subscription.next(), FailedPoll):
            if polled.is_final:
                return False

        return True

    async def wait_outage_end(self) -> bool:
        """Wait for the end of an outage; return False if there is none, or if it lasts too long."""
        has_outage = self.outage.began is not None
        subscription = self.subscribe()
        while isinstance(polled := await subscription.next(), FailedPoll):
            if polled.is_final:
                return False

            has_outage = True

        return has_outage

    async def poll(self, since: float, seen: Snapshot | None, latest: float) -> Snapshot:
        """Wait for a list that began at *since* or later and is not the list *seen* last.

        At the time *latest* the caller has no more patience with a ``Retry-After`` of the server.

        Raises:
            RequestError: the request failed, for every task that shared it.
        """
        while self.last is None or self.last.began < since or self.last is seen:
            due = max(self._interval.earliest, min(self._interval.due, latest))
            if due <= anyio.current_time():
                await self._fetch(due)
            else:
                with anyio.CancelScope(deadline=due):
                    await self._changed.wait()

        await checkpoint()
        return self.last

    async def _fetch(self, due: float) -> None:
        try:
            snapshot = await self._sessions.since(due)
        except RequestError as error:
            self._record_failure(error.failure)
            raise

        # Of the tasks that share a list, only the first records it. A known list counts again if a
        # subscription made a poll due at the time at which that list began.
        if snapshot is not self.last or self._interval.due <= snapshot.began:
            self._record(snapshot)

    def _record(self, snapshot: Snapshot) -> None:
        self.outage.record_success()
        changed = _get_statuses(snapshot) != _get_statuses(self.last)
        self._interval.record_poll(anyio.current_time(), changed=changed)
        self.last = snapshot
        self._changed.set()
        self._changed = anyio.Event()

    def _record_failure(self, failure: Failure) -> None:
        now = anyio.current_time()
        if self._interval.earliest <= now:
            self._interval.record_failure(now, failure)
            self.outage.record_failure(failure)


@final
class Subscription:
    """Returns each list that began after the subscription once, and each poll that failed."""

    def __init__(self, poller: Poller, since: float) -> None:
        self._poller = poller
        self._since = since
        self._seen: Snapshot | None = None
        self._failures = ConsecutiveFailures()
        self._last_failure: Failure | None = None

    async def next(self) -> Snapshot | FailedPoll:
        """Wait for the next list, or the next failure to get one."""
        ends_at = self._failures.ends_at
        with anyio.CancelScope(deadline=ends_at + _LAST_POLL_TIMEOUT):
            try:
                self._seen = await self._poller.poll(self._since, self._seen, ends_at)
            except RequestError as error:
                self._last_failure = error.failure
            else:
                self._failures.record_success()
                return self._seen

        assert self._last_failure is not None  # noqa: S101  # else there was no deadline
        return self._to_failed_poll(self._last_failure)

    def _to_failed_poll(self, failure: Failure) -> FailedPoll:
        patience = self._poller.patience
        limit = patience.compute_limit(failure)
        self._failures.record_failure(failure, limit)
        is_outage = patience.has_connected() or limit > 0
        return FailedPoll(failure, self._failures.seconds, self._failures.is_final, is_outage)


def _get_statuses(snapshot: Snapshot | None) -> dict[str, SessionStatus]:
    sessions = {} if snapshot is None else snapshot.sessions
    return {key: session.status for key, session in sessions.items()}
