"""What a type checker is to say of `Session`, its scopes and its streams. Never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, assert_type

from kaleden import (
    Availability,
    ConnectionInfo,
    Event,
    Failure,
    FinishedSession,
    Image,
    LogLine,
    LogReset,
    Outcomes,
    PlatformStats,
    ResourceOptions,
    ScopeError,
    ScopeStatistics,
    Session,
    SessionInfo,
    SessionList,
    SessionStatistics,
    Success,
    SyncLogStream,
    SyncOutcomeStream,
    SyncScope,
    SyncStreams,
)


def of_a_session(session: Session, ids: list[str], raw: bool) -> None:
    assert_type(session.create("fits", "skaha/astroml:latest", timeout=3), Outcomes[str])
    assert_type(session.run("fits", "skaha/astroml:latest"), Outcomes[FinishedSession])
    assert_type(session.info(ids), Outcomes[SessionInfo])
    assert_type(session.info(ids, raw=True), Outcomes[dict[str, Any]])
    assert_type(session.info(ids, raw=raw), Outcomes[SessionInfo] | Outcomes[dict[str, Any]])
    assert_type(session.fetch(), SessionList)
    assert_type(session.fetch(raw=True), list[dict[str, Any]])
    assert_type(session.fetch(raw=raw), SessionList | list[dict[str, Any]])
    assert_type(session.logs(ids, timeout=3.5), Outcomes[str])
    assert_type(session.events(ids), Outcomes[tuple[Event, ...]])
    assert_type(session.wait(ids, "Completed"), Outcomes[SessionInfo])
    assert_type(session.connect(ids), Outcomes[str])
    assert_type(session.renew(ids), Outcomes[bool])
    assert_type(session.destroy(ids), Outcomes[bool])
    assert_type(session.destroy_with("fits-"), Outcomes[bool])
    assert_type(session.reap("ledger"), Outcomes[bool])
    assert_type(session.retry_failed(session.logs(ids)), Outcomes[str])
    assert_type(session.apps("desk"), SessionList)
    assert_type(session.stats(), PlatformStats)
    assert_type(session.images(), list[Image])
    assert_type(session.context(), ResourceOptions)
    assert_type(session.repositories(), list[str])
    assert_type(session.availability(), Availability)
    assert_type(session.statistics(), SessionStatistics)
    assert_type(session.describe(), ConnectionInfo)
    assert_type(session.scope(), SyncScope)
    assert_type(session.follow(ids), SyncLogStream)
    assert_type(session.stream, SyncStreams)
    session.close()
    with Session() as entered:
        assert_type(entered, Session)


def of_a_scope(scope: SyncScope) -> None:
    with scope as entered:
        assert_type(entered, SyncScope)
    assert_type(scope.create("fits", "skaha/astroml:latest"), Outcomes[str])
    assert_type(scope.wait(), Outcomes[SessionInfo])
    assert_type(scope.ids, list[str])
    assert_type(scope.is_open, bool)
    assert_type(scope.error, ScopeError | None)
    assert_type(scope.statistics(), ScopeStatistics)
    assert_type(scope.watch(), AbstractContextManager[None])
    scope.adopt("abc")
    scope.release(["abc", SessionInfo()])


def of_streams(stream: SyncStreams, ids: list[str], raw: bool) -> None:
    assert_type(stream.info(ids), SyncOutcomeStream[SessionInfo])
    assert_type(stream.info(ids, raw=True), SyncOutcomeStream[dict[str, Any]])
    assert_type(
        stream.info(ids, raw=raw),
        SyncOutcomeStream[SessionInfo] | SyncOutcomeStream[dict[str, Any]],
    )
    assert_type(stream.logs(ids), SyncOutcomeStream[str])
    assert_type(stream.events(ids), SyncOutcomeStream[tuple[Event, ...]])
    assert_type(stream.renew(ids), SyncOutcomeStream[bool])
    assert_type(stream.wait(ids), SyncOutcomeStream[SessionInfo])
    with stream.logs(ids) as logs:
        for outcome in logs:
            assert_type(outcome, Success[str] | Failure)


def of_lines(lines: SyncLogStream) -> None:
    with lines as entered:
        for item in entered:
            assert_type(item, LogLine | LogReset | Failure)


def these_are_mistakes(session: Session) -> None:
    session.logs(17)  # type: ignore[arg-type]
    session.logs("a", timeout="3 s")  # type: ignore[arg-type]
    Session(backend="curio")  # type: ignore[arg-type]
