"""Verified deletion of sessions.

The server responds to every delete with status 200, also for an unknown session and when the delete
failed. So the responses prove little. One list that begins after the last response decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias, cast

import anyio

from kaleden._engine import _operations
from kaleden._engine._collectors import to_progress_update
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._targets import Keys
from kaleden._errors import FailureKind, InvalidRequest, RequestError
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._results._outcome import contradict_success
from kaleden._results._progress import OK, ProgressCallback
from kaleden._sessions._monitor._lister import SharedList, Snapshot
from kaleden._wire import SessionInfo, SessionStatus, check_status

ListOutcome: TypeAlias = Snapshot | Failure


async def destroy(
    engine: Engine,
    sessions: SharedList,
    limits: Limits,
    keys: Keys,
    progress: ProgressCallback | None = None,
    *,
    retry: bool = True,
) -> Outcomes[bool]:
    """Delete sessions, then list once; report sessions that are absent or terminating as destroyed.

    *progress* is called after each response, and at the end with the result of the list. Without
    *retry*, transient failures are not retried; the caller does that.
    """
    operation = _operations.destroy(limits, idempotent=retry)
    responses = await engine.collect(operation, keys, progress, "answered")
    again = partial(destroy, engine, sessions, limits)
    if not any(_needs_list(response) for response in responses):
        return Outcomes("destroy", responses, again=again)

    listing = await _fetch_list(sessions.since_with_retry if retry else sessions.since)
    outcomes = Outcomes(
        "destroy", [_verify(response, listing) for response in responses], again=again
    )
    if progress is not None:
        counts = Counter[str]({OK: len(outcomes.values)}) + outcomes.counts()
        progress(to_progress_update("destroy", counts, len(outcomes)))
    return outcomes


def _needs_list(outcome: Outcome[bool]) -> bool:
    """Return whether only a list can show the effect of the delete."""
    if isinstance(outcome, Success):
        return True

    return outcome.sent and (
        outcome.kind.may_have_taken_effect or outcome.kind is FailureKind.NOT_FOUND
    )


async def _fetch_list(fetch: Callable[[float], Awaitable[Snapshot]]) -> ListOutcome:
    try:
        return await fetch(anyio.current_time())
    except RequestError as error:
        return error.failure


def _verify(outcome: Outcome[bool], listing: ListOutcome) -> Outcome[bool]:
    if not _needs_list(outcome):
        return outcome

    if isinstance(listing, Failure):
        return _to_unproven_failure(outcome, f"failed: {listing.message}", listing.status)

    session = listing.sessions.get(outcome.key)
    if session is None and listing.unreadable:
        return _to_unproven_failure(
            outcome, f"has {listing.unreadable} elements that cannot be identified"
        )

    if session is None or session.status == SessionStatus.TERMINATING:
        return Success(outcome.key, True, outcome.attempts, outcome.elapsed)

    if isinstance(outcome, Failure):
        return outcome

    message = (
        "the server reported that the delete succeeded, but still lists the session as "
        f"{session.status}"
    )
    return contradict_success(outcome, FailureKind.NOT_DESTROYED, message)


def _to_unproven_failure(outcome: Outcome[bool], reason: str, status: int | None = None) -> Failure:
    if isinstance(outcome, Failure):
        return outcome

    message = f"the server responded to the delete, but the list that should prove it {reason}"
    return contradict_success(outcome, FailureKind.NOT_DESTROYED, message, status)


def build_filter(prefix: object, status: str | None) -> Callable[[SessionInfo], bool]:
    """Return a function that selects sessions by name and status.

    Args:
        prefix: the start of the name, or a compiled pattern that matches at its start.
        status: the status; None for any.

    Raises:
        InvalidRequest: no session can have such a name or status.
    """
    matches_name = _build_name_matcher(prefix)
    wanted = None if status is None else check_status(status)

    def is_selected(info: SessionInfo) -> bool:
        return bool(matches_name(info.name)) and (wanted is None or info.status.matches(wanted))

    return is_selected


def _build_name_matcher(prefix: object) -> Callable[[str], object]:
    """Return a function that matches names; the server converts all names to lower case."""
    if isinstance(prefix, re.Pattern):
        return cast("re.Pattern[str]", prefix).match

    if not isinstance(prefix, str) or not re.fullmatch("[A-Za-z0-9-]+", prefix):
        msg = (
            f"no session's name can begin with {prefix!r}: give letters, digits and hyphens, or a "
            "pattern from re.compile"
        )
        raise InvalidRequest(msg)

    return re.compile(prefix, re.IGNORECASE).match
