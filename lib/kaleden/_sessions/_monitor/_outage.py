"""Outages: for how long tasks that wait tolerate a server that does not respond as it should."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, final

import anyio
from attrs import evolve, frozen

from kaleden._engine._config import TRANSIENT
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure

logger = logging.getLogger("kaleden")

REFUSED: Final = frozenset({FailureKind.NOT_AUTHENTICATED, FailureKind.NOT_AUTHORIZED})
"""Failures of a server that does not accept the login."""

OUTAGE_KINDS: Final = REFUSED | {FailureKind.UNAVAILABLE}
"""The kinds of failures of a wait that ended because an outage lasted for too long."""

MAY_PASS: Final = TRANSIENT | {FailureKind.PROTOCOL, FailureKind.SERVER_ERROR}
"""Failures that may pass, also for a server that has never responded."""

FAILED_INTERVALS: Final = (1.0, 60.0, 1.5)
"""Seconds between two requests that fail: the first interval, the longest, and the growth."""

_LOG_INTERVAL: Final = 600.0
"""Seconds between two log messages about one outage."""


@final
@frozen
class Patience:
    """For how long consecutive failures of lists are tolerated.

    Attributes:
        outage: seconds, for a server that does not respond as it should; infinite for no limit.
        login: seconds, for a login that the server refuses.
        has_connected: returns whether any request has succeeded. If none has, the URL or the login
            may be wrong, so a failure that will not pass by itself is not tolerated.
    """

    outage: float
    login: float
    has_connected: Callable[[], bool]

    def compute_limit(self, failure: Failure) -> float:
        """Return the seconds for which failures of lists like this one are tolerated."""
        if not self.has_connected() and (failure.final or failure.kind not in MAY_PASS):
            return 0.0

        return self.login if failure.kind in REFUSED else self.outage

    def compute_limit_of_log(self, failure: Failure) -> float:
        """Return the seconds for which failures to read one log are tolerated."""
        may_pass = failure.kind in MAY_PASS | REFUSED and not failure.final
        return self.compute_limit(failure) if may_pass else 0.0


@final
class ConsecutiveFailures:
    """The consecutive failures of one kind of request, and the end of the patience with them.

    Attributes:
        seconds: seconds since the first of them.
        ends_at: when they are not tolerated any longer, on the clock of the event loop; infinite if
            there are none.
    """

    __slots__ = ("_refused_since", "_since", "ends_at", "seconds")

    def __init__(self) -> None:
        self.record_success()

    def record_success(self) -> None:
        """Record a request that did not fail."""
        self.seconds: float = 0.0
        self.ends_at: float = math.inf
        self._since: float | None = None
        self._refused_since: float | None = None

    def record_failure(self, failure: Failure, limit: float) -> None:
        """Record a failure, of which the ones like it are tolerated for *limit* seconds."""
        now = anyio.current_time()
        self._since = now if self._since is None else self._since
        # A login that is refused late in an outage has its own time.
        if failure.kind not in REFUSED:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        self.seconds = now - self._since
        began = self._since if self._refused_since is None else self._refused_since
        self.ends_at = began + limit if limit else now

    @property
    def has_any(self) -> bool:
        """Whether the last request has failed."""
        return self._since is not None

    @property
    def is_final(self) -> bool:
        """Whether the failures are not tolerated any longer."""
        return anyio.current_time() >= self.ends_at


@final
@frozen
class FailedPoll:
    """A poll without a list.

    Attributes:
        failure: the failure of the request.
        seconds: seconds since the first of the consecutive failures.
        is_final: whether they have lasted for longer than is tolerated.
        is_outage: whether it is an outage, and not a wrong URL or login of a new client.
    """

    failure: Failure
    seconds: float
    is_final: bool
    is_outage: bool

    def to_failure(self, key: str) -> Failure:
        """Return the failure of a session whose state is not known because of the outage."""
        failure = evolve(self.failure, key=key)
        if not self.is_outage:
            # What is not found is the list, and not the session.
            is_missing = failure.kind is FailureKind.NOT_FOUND
            return evolve(failure, kind=FailureKind.PROTOCOL) if is_missing else failure

        message = f"the sessions could not be listed for {self.seconds:.0f} seconds: "
        kind = failure.kind if failure.kind in REFUSED else FailureKind.UNAVAILABLE
        return evolve(failure, kind=kind, message=message + failure.message)


@final
class Outage:
    """The current outage of a server; its begin, its end and its length are logged.

    Attributes:
        began: when the first of the consecutive failures was, on the clock of the event loop;
            None if there is no outage.
    """

    def __init__(self) -> None:
        self.began: float | None = None
        self._logged = -math.inf

    def record_failure(self, failure: Failure) -> None:
        """Record a failed list."""
        now = anyio.current_time()
        if self.began is None:
            self.began = self._logged = now
            logger.warning("the sessions cannot be listed now, and are listed later: %s", failure)
        elif now >= self._logged + _LOG_INTERVAL:
            self._logged = now
            minutes = (now - self.began) / 60
            logger.warning(
                "the sessions could not be listed for %.0f minutes: %s", minutes, failure
            )

    def record_success(self) -> None:
        """Record a list."""
        if self.began is not None:
            seconds = anyio.current_time() - self.began
            logger.warning("the sessions are listed again, after %.0f seconds", seconds)
            self.began = None
