"""One verdict on an id that the server does not know.

The server sends an empty log for it, 404 for its events, which it also sends for a session that
waits in a queue, and 400 for its renewal. One list for each call decides.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, final

import anyio
from attrs import evolve

from kaleden._engine._operations import Operation
from kaleden._errors import FailureKind, RequestError, SessionNotOpen
from kaleden._results._batch import Failure, Outcome, Success
from kaleden._sessions._monitor._history import explain_unknown, index_names
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import Event

T = TypeVar("T")

_MAX_AGE: Final = 15.0
"""Seconds for which one list decides about the ids of a call."""


@final
class UnknownIds:
    """Finds the ids among those of one call that the server does not know.

    Args:
        sessions: lists the sessions, at most once for a call.
    """

    def __init__(self, sessions: SharedList) -> None:
        self._sessions = sessions
        self._since: float | None = None
        self._names: dict[str, list[str]] = {}

    def check_logs(self, operation: Operation[str]) -> Operation[str]:
        """Return an operation that fails for an unknown id, for which the server sends no text."""

        async def check(outcome: Outcome[str]) -> Outcome[str]:
            if isinstance(outcome, Failure) or outcome.value or outcome.omitted:
                return outcome

            return await self._check(outcome)

        return evolve(operation, check=check, can_defer=False)

    def check_events(self, operation: Operation[tuple[Event, ...]]) -> Operation[tuple[Event, ...]]:
        """Return an operation that succeeds for a known session without events."""

        async def check(outcome: Outcome[tuple[Event, ...]]) -> Outcome[tuple[Event, ...]]:
            if isinstance(outcome, Success) or outcome.kind is not FailureKind.NOT_FOUND:
                return outcome

            is_known = await self._find_known(outcome.key)
            if is_known is None:
                return outcome

            empty = Success[tuple[Event, ...]](outcome.key, (), outcome.attempts, outcome.elapsed)
            return empty if is_known else self._to_failure(outcome)

        return evolve(operation, check=check, can_defer=False)

    def check_renew(self, operation: Operation[bool]) -> Operation[bool]:
        """Return an operation that fails for an unknown id as other operations do."""

        async def check(outcome: Outcome[bool]) -> Outcome[bool]:
            if isinstance(outcome, Success) or outcome.kind is not FailureKind.BAD_REQUEST:
                return outcome

            return await self._check(outcome)

        return evolve(operation, check=check)

    async def _check(self, outcome: Outcome[T]) -> Outcome[T]:
        """Return a failure in place of the outcome for an id that the server does not know."""
        is_known = await self._find_known(outcome.key)
        return self._to_failure(outcome) if is_known is False else outcome

    def _to_failure(self, outcome: Outcome[Any]) -> Failure:
        message = explain_unknown(outcome.key, self._names)
        status = outcome.status if isinstance(outcome, Failure) else None
        return Failure(
            outcome.key,
            FailureKind.NOT_FOUND,
            message,
            status,
            sent=True,
            attempts=outcome.attempts,
            elapsed=outcome.elapsed,
        )

    async def _find_known(self, key: str) -> bool | None:
        """Return whether the server knows an id; None if its lists do not show that."""
        now = anyio.current_time()
        # The ids of a long call may be younger than its first list.
        if self._since is None or now > self._since + _MAX_AGE:
            self._since, self._names = now, {}
        try:
            snapshot = await self._sessions.since(self._since)
        except (RequestError, SessionNotOpen):
            return None

        history = self._sessions.history
        if key in snapshot.sessions or history.may_exist(key, snapshot.began):
            return True

        if not snapshot.is_sound:
            return None

        self._names = self._names or index_names(snapshot)
        return False
