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
from kaleden._results._outcome import contradict_success
from kaleden._results._progress import OK, ProgressCallback
from kaleden._sessions._monitor._lister import SharedList, Snapshot
from kaleden._wire import SessionInfo, SessionStatus, check_status

Listed: TypeAlias = Snapshot | Failure


async def destroy(
    engine: Engine,
    lister: SharedList,
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
    answers = await engine.collect(operation, keys, progress, "answered")
    again = partial(destroy, engine, lister, limits)
    if not any(_is_open(answer) for answer in answers):
        return Outcomes("destroy", answers, again=again)

    listed = await _list(lister.since_with_retry if retry else lister.since)
    outcomes = Outcomes("destroy", [_verdict(answer, listed) for answer in answers], again=again)
    if progress is not None:
        counts = Counter[str]({OK: len(outcomes.values)}) + outcomes.counts()
        progress(to_progress_update("destroy", counts, len(outcomes)))
    return outcomes


def _is_open(answer: Outcome[bool]) -> bool:
    """Whether only a list can tell what came of the delete."""
    if isinstance(answer, Success):
        return True

    return answer.sent and (
        answer.kind.may_have_taken_effect or answer.kind is FailureKind.NOT_FOUND
    )


async def _list(listed: Callable[[float], Awaitable[Snapshot]]) -> Listed:
    try:
        return await listed(anyio.current_time())
    except RequestError as error:
        return error.failure


def _verdict(answer: Outcome[bool], listed: Listed) -> Outcome[bool]:
    if not _is_open(answer):
        return answer

    if isinstance(listed, Failure):
        return _unproven(answer, f"failed: {listed.message}", listed.status)

    session = listed.sessions.get(answer.key)
    if session is None and listed.unreadable:
        return _unproven(answer, f"has {listed.unreadable} elements that nobody can tell apart")

    if session is None or session.status == SessionStatus.TERMINATING:
        return Success(answer.key, True, answer.attempts, answer.elapsed)

    return answer if isinstance(answer, Failure) else _survivor(answer, session)


def _survivor(answer: Success[bool], session: SessionInfo) -> Failure:
    message = (
        "the server answered the delete with success, and still lists the session as "
        f"{session.status}"
    )
    return contradict_success(answer, FailureKind.NOT_DESTROYED, message)


def _unproven(answer: Outcome[bool], why: str, status: int | None = None) -> Failure:
    if isinstance(answer, Failure):
        return answer

    message = f"the delete was answered, and the list that should prove it {why}"
    return contradict_success(answer, FailureKind.NOT_DESTROYED, message, status)


def chooser(prefix: object, status: str | None) -> Callable[[SessionInfo], bool]:
    """Make the test of whether a session is one that is to end, by its name and status.

    Raises:
        InvalidRequest: there can be none of that name or status.
    """
    begins = _name_matcher(prefix)
    wanted = None if status is None else check_status(status)

    def is_chosen(info: SessionInfo) -> bool:
        return bool(begins(info.name)) and (wanted is None or info.status.matches(wanted))

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
