"""What a type checker is to say of `AsyncSession`, its scopes and its streams. Never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import kaleden
from kaleden import (
    AsyncSession,
    Availability,
    ConnectionInfo,
    Event,
    Failure,
    FinishedSession,
    Image,
    LogLine,
    LogReset,
    LogStream,
    Outcomes,
    OutcomeStream,
    PlatformStats,
    ResourceOptions,
    Scope,
    ScopeError,
    ScopeStatistics,
    SessionInfo,
    SessionList,
    SessionSpec,
    SessionStatistics,
    SessionStatus,
    Streams,
    Success,
)


async def of_a_session(session: AsyncSession, ids: list[str], raw: bool) -> None:
    assert_type(await session.create("fits", "skaha/astroml:latest"), Outcomes[str])
    assert_type(await session.create(SessionSpec("fits", "skaha/astroml:latest")), Outcomes[str])
    assert_type(await session.run("fits", "skaha/astroml:latest"), Outcomes[FinishedSession])
    assert_type(await session.info(ids), Outcomes[SessionInfo])
    assert_type(await session.info(ids, raw=True), Outcomes[dict[str, Any]])
    assert_type(await session.info(ids, raw=raw), Outcomes[SessionInfo] | Outcomes[dict[str, Any]])
    assert_type(await session.fetch(), SessionList)
    assert_type(await session.fetch(raw=True), list[dict[str, Any]])
    assert_type(await session.fetch(raw=raw), SessionList | list[dict[str, Any]])
    assert_type(await session.logs(ids), Outcomes[str])
    assert_type(await session.events(ids), Outcomes[tuple[Event, ...]])
    assert_type(await session.wait(ids, "Completed"), Outcomes[SessionInfo])
    assert_type(await session.wait(ids, lambda info: info.gid == 0), Outcomes[SessionInfo])
    assert_type(await session.connect(ids), Outcomes[str])
    assert_type(await session.renew(ids), Outcomes[bool])
    assert_type(await session.destroy(ids), Outcomes[bool])
    assert_type(await session.destroy_with("fits-"), Outcomes[bool])
    assert_type(await session.reap("ledger"), Outcomes[bool])
    assert_type(await session.retry_failed(await session.logs(ids)), Outcomes[str])
    assert_type(await session.apps("desk"), SessionList)
    assert_type(await session.stats(), PlatformStats)
    assert_type(await session.images(), list[Image])
    assert_type(await session.context(), ResourceOptions)
    assert_type(await session.repositories(), list[str])
    assert_type(await session.availability(), Availability)
    assert_type(session.statistics(), SessionStatistics)
    assert_type(session.describe(), ConnectionInfo)
    assert_type(session.scope(), Scope)
    assert_type(session.follow(ids), AbstractAsyncContextManager[LogStream])
    assert_type(session.stream, Streams)
    async with AsyncSession() as entered:
        assert_type(entered, AsyncSession)


async def of_a_scope(scope: Scope) -> None:
    async with scope as entered:
        assert_type(entered, Scope)
    assert_type(await scope.create("fits", "skaha/astroml:latest"), Outcomes[str])
    assert_type(await scope.wait(), Outcomes[SessionInfo])
    assert_type(scope.ids, list[str])
    assert_type(scope.is_open, bool)
    assert_type(scope.error, ScopeError | None)
    assert_type(scope.statistics(), ScopeStatistics)
    assert_type(scope.watch(), AbstractAsyncContextManager[None])
    await scope.adopt("abc")
    await scope.release(["abc", SessionInfo()])


async def of_streams(stream: Streams, ids: list[str], raw: bool) -> None:
    assert_type(stream.info(ids), AbstractAsyncContextManager[OutcomeStream[SessionInfo]])
    assert_type(
        stream.info(ids, raw=True), AbstractAsyncContextManager[OutcomeStream[dict[str, Any]]]
    )
    assert_type(
        stream.info(ids, raw=raw),
        AbstractAsyncContextManager[OutcomeStream[SessionInfo]]
        | AbstractAsyncContextManager[OutcomeStream[dict[str, Any]]],
    )
    assert_type(stream.logs(ids), AbstractAsyncContextManager[OutcomeStream[str]])
    assert_type(stream.events(ids), AbstractAsyncContextManager[OutcomeStream[tuple[Event, ...]]])
    assert_type(stream.renew(ids), AbstractAsyncContextManager[OutcomeStream[bool]])
    assert_type(stream.wait(ids), AbstractAsyncContextManager[OutcomeStream[SessionInfo]])
    async with stream.logs(ids) as logs:
        assert_type(logs, OutcomeStream[str])


async def of_outcomes_as_they_come(stream: OutcomeStream[str]) -> None:
    async for outcome in stream:
        assert_type(outcome, Success[str] | Failure)
    assert_type(stream.receive_nowait(), list[Success[str] | Failure])


async def of_lines(lines: LogStream) -> None:
    async for item in lines:
        assert_type(item, LogLine | LogReset | Failure)
    assert_type(lines.receive_nowait(), list[LogLine | LogReset | Failure])


async def any_of_these_is_ids(
    session: AsyncSession,
    outcomes: Outcomes[str],
    many: Iterable[str],
    arriving: AsyncIterable[SessionInfo],
) -> None:
    await session.logs("abc")
    await session.logs(SessionInfo())
    await session.logs(outcomes)
    await session.logs(many)
    await session.logs(arriving)
    await session.logs(key for key in many)


async def these_are_mistakes(session: AsyncSession, infos: Outcomes[SessionInfo]) -> None:
    await session.logs(17)  # type: ignore[arg-type]
    await session.logs([17])  # type: ignore[list-item]
    await session.logs(["a"], timeout=3)  # type: ignore[call-arg]
    await session.create("fits", "i", replica=3)  # type: ignore[call-arg]
    await session.create("fits", "i", env=["A=1"])  # type: ignore[arg-type]
    await session.wait("abc", until=3)  # type: ignore[arg-type]
    session.scope(on_success="keep")  # type: ignore[arg-type]
    AsyncSession(retry=3)  # type: ignore[arg-type]
    assert_type(infos.values[0].status, SessionStatus)
    print(infos.values[0].stauts)  # type: ignore[attr-defined]
    print(kaleden.Sesion)  # type: ignore[attr-defined]
    with session.scope():  # type: ignore[attr-defined]
        pass
