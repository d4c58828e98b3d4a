"""Ending sessions, and making sure.

The server answers every delete with 200: for an unknown session, and also when the delete failed.
So the answers count for little, and one list that begins after the last of them decides.
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
from kaleden._results._outcome import contradicted
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
    """Delete sessions, then list once and report as destroyed what is absent or terminating.

    Args:
        engine: sends the deletes.
        lister: makes the list.
        limits: how long a delete may take.
        keys: the sessions.
        progress: is told of each answer, and in the end of what the list proves.
        retry: whether to try again after what may pass; not where the caller does.
    """
    operation = _operations.destroy(limits, idempotent=retry)
    responses = await engine.collect(operation, keys, progress, "answered")
    again = partial(destroy, engine, sessions, limits)
    if not any(_needs_list(answer) for answer in responses):
        return Outcomes("destroy", responses, again=again)

    listed = await _fetch_list(sessions.since_with_retry if retry else sessions.since)
    outcomes = Outcomes("destroy", [_verify(answer, listed) for answer in responses], again=again)
    if progress is not None:
        counts = Counter[str]({OK: len(outcomes.values)}) + outcomes.counts()
        progress(to_progress_update("destroy", counts, len(outcomes)))
    return outcomes


def _needs_list(outcome: Outcome[bool]) -> bool:
    """Whether only a list can tell what came of the delete."""
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
            outcome, f"has {listing.unreadable} elements that nobody can tell apart"
        )

    if session is None or session.status == SessionStatus.TERMINATING:
        return Success(outcome.key, True, outcome.attempts, outcome.elapsed)

    return outcome if isinstance(outcome, Failure) else _to_survivor_failure(outcome, session)


def _to_survivor_failure(outcome: Success[bool], session: SessionInfo) -> Failure:
    message = (
        "the server answered the delete with success, and still lists the session as "
        f"{session.status}"
    )
    return contradicted(outcome, FailureKind.NOT_DESTROYED, message)


def _to_unproven_failure(outcome: Outcome[bool], reason: str, status: int | None = None) -> Failure:
    if isinstance(outcome, Failure):
        return outcome

    message = f"the delete was answered, and the list that should prove it {reason}"
    return contradicted(outcome, FailureKind.NOT_DESTROYED, message, status)


def build_filter(prefix: object, status: str | None) -> Callable[[SessionInfo], bool]:
    """Make the test of whether a session is one that is to end, by its name and status.

    Raises:
        InvalidRequest: there can be none of that name or status.
    """
    matches_name = _name_matcher(prefix)
    wanted = None if status is None else check_status(status)

    def is_chosen(info: SessionInfo) -> bool:
        return bool(matches_name(info.name)) and (wanted is None or info.status.matches(wanted))

    return is_chosen


def _name_matcher(prefix: object) -> Callable[[str], object]:
    """Make the test of a name; the server writes all names in lower case."""
    if isinstance(prefix, re.Pattern):
        return cast("re.Pattern[str]", prefix).match

    if not isinstance(prefix, str) or not re.fullmatch("[A-Za-z0-9-]+", prefix):
        msg = (
            f"no session's name can begin with {prefix!r}: give letters, digits and hyphens, or a "
            "pattern from re.compile"
        )
        raise InvalidRequest(msg)

    return re.compile(prefix, re.IGNORECASE).match
